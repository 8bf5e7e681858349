"""The release's state_dict against its recorded names and shapes; what its momentum reaches."""

import json
import math
from pathlib import Path

import pytest
from flax import traverse_util

from configs import rsicd
from kamcl_jax.config import build
from kamcl_jax.errors import PretrainedError
from kamcl_jax.weights.release_layout import release_momentum_mask, state_layout
from kamcl_jax.weights.torch_layout import torch_shapes

RECORDED = Path(__file__).parents[2] / "golden" / "parity_seed0_shapes.json"
NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")
UNUSED = ("resnet.fc.", "extract_feature.linear.", "high_module.gpo.")


@pytest.fixture(scope="module")
def recorded():
    """Name -> shape, in the order of the PyTorch model's own state_dict."""
    return {name: tuple(shape) for name, shape in json.loads(RECORDED.read_text()).items()}


@pytest.fixture(scope="module")
def full_size():
    return build.abstract_state(rsicd.get_config("release"), 1226, 512)


def test_names_order_and_shapes_are_the_recorded_ones(recorded, full_size):
    tree = {
        "params": {"query": full_size.params, "key": full_size.key_params},
        "batch_stats": {"query": full_size.batch_stats, "key": full_size.key_batch_stats},
        "queues": {"image": full_size.image_queue.keys, "text": full_size.text_queue.keys},
    }
    described = torch_shapes(state_layout(18, 64, 512), tree)
    assert list(described) == list(recorded)
    assert described == recorded


@pytest.mark.parametrize(("depth", "width", "embedding"), [(50, 64, 512), (18, 64, 256)])
def test_a_model_that_the_release_cannot_have_is_refused(depth, width, embedding):
    with pytest.raises(PretrainedError, match=rf"has ResNet-{depth} of width 64 .* {embedding}$"):
        state_layout(depth, width, embedding)


def test_the_releases_momentum_reaches_as_many_image_tensors_as_the_text_has(recorded, full_size):
    # What PyTorch's `module.parameters()` walks over, in order.
    parameters = [name for name in recorded if not name.endswith(NO_PARAMETERS)]
    image, text = (
        [name for name in parameters if name.startswith(f"{tower}modelK.")]
        for tower in ("visual", "text")
    )
    reached, frozen = image[: len(text)], image[len(text) :]
    assert (len(image), len(text), len(frozen)) == (110, 38, 72)
    assert reached[-1].endswith("layer3.0.downsample.1.weight")
    # The 13 tensors that no forward pass uses are among the 110, at the end where nothing moves.
    size = {name: math.prod(shape) for name, shape in recorded.items()}
    share = sum(size[name] for name in frozen) / sum(size[name] for name in image)
    assert round(share, 3) == 0.895
    unused = [name for name in frozen if any(part in name for part in UNUSED)]
    assert len(unused) == 13

    layout = state_layout(18, 64, 512)
    moves = {layout[name].path[2:] for name in reached + text}
    mask = traverse_util.flatten_dict(release_momentum_mask(full_size.params))
    assert mask == {path: path in moves for path in traverse_util.flatten_dict(full_size.params)}
    frozen_paths = {layout[name].path[2:] for name in frozen if name not in unused}
    assert {path for path, moved in mask.items() if not moved} == frozen_paths
    assert len(frozen_paths) == 72 - 13
