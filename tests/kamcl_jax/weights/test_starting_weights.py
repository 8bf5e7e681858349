from functools import partial

import jax
import numpy as np
import pytest
from published_weights import (
    HIDDEN,
    WIDTH,
    encoder_arrays,
    random_like,
    shapes_of,
    write_skip_thoughts,
)
from tiny_model import tiny_config

from kamcl_jax.errors import PretrainedError
from kamcl_jax.step.key_queue import KeyQueue
from kamcl_jax.step.state import TrainState
from kamcl_jax.weights import starting_weights, tensor_files
from kamcl_jax.weights.torch_layout import to_torch
from kamcl_jax.weights.torchvision import resnet_layout

WORDS = ["sea", "heliport", "<unk>"]


@pytest.fixture
def config():
    config = tiny_config()
    config.text_encoder.word_width, config.text_encoder.hidden_width = WIDTH, HIDDEN
    return config


@pytest.fixture
def resnet(tmp_path, config):
    """Writes a ResNet, names it in the config and returns its variables."""
    path = tmp_path / "resnet18.safetensors"
    written = random_like(shapes_of(18))
    tensor_files.write(path, to_torch(written, resnet_layout(18, 4)), epoch=0, score=0.0)
    config.image_encoder.pretrained = str(path)
    return written


@pytest.fixture
def table(tmp_path, config):
    """Writes skip-thoughts' files, names their folder and returns the words' vectors."""
    folder = write_skip_thoughts(tmp_path / "skip-thoughts")
    config.text_encoder.pretrained = str(folder)
    return np.load(folder / "utable.npy")


@pytest.fixture
def state():
    """Query encoders of zeros, key encoders of ones."""
    resnet = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes_of(18))
    text = {"input_kernel": np.zeros((3, WIDTH, HIDDEN))}  # the sizes; all else comes from the file
    params = {
        "image": {"resnet": resnet["params"], "head": np.zeros(2)},
        "text": {"skip_thoughts": text, "head": np.zeros(3)},
    }
    batch_stats = {"image": {"resnet": resnet["batch_stats"], "other": np.zeros(4)}}
    return TrainState(
        step=np.array(0),
        skipped=np.array(0),
        params=params,
        batch_stats=batch_stats,
        key_params=jax.tree.map(np.ones_like, params),
        key_batch_stats=jax.tree.map(np.ones_like, batch_stats),
        opt_state={"moments": np.full(4, 5.0)},
        image_queue=KeyQueue(np.full((2, 3), 0.1), np.array(0)),
        text_queue=KeyQueue(np.full((2, 3), 0.2), np.array(1)),
        rng=np.array([6, 7]),
    )


def test_an_encoder_without_a_file_is_left_as_it_is(config, state, resnet):
    started = starting_weights.starting_state(config, state, WORDS)
    kernel = started.params["image"]["resnet"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, resnet["params"]["conv1"]["kernel"])
    assert started.params["text"] is state.params["text"]


def test_query_and_key_encoders_take_their_parts_and_nothing_else_changes(
    config, state, resnet, table
):
    starting_weights.check_weight_files(config)
    before = jax.tree.map(np.array, state)
    started = starting_weights.starting_state(config, state, WORDS)
    equal = partial(jax.tree.map, np.testing.assert_array_equal)
    for query, key, collection in (
        (started.params, started.key_params, "params"),
        (started.batch_stats, started.key_batch_stats, "batch_stats"),
    ):
        equal(query["image"]["resnet"], resnet[collection])
        equal(key["image"]["resnet"], resnet[collection])
        # They share no memory, as the state is donated.
        assert not any(jax.tree.leaves(jax.tree.map(np.shares_memory, query, key)))
    read = started.params["text"]["skip_thoughts"]
    np.testing.assert_array_equal(read["embedding"][1:], table[[4, 2, 2]])
    np.testing.assert_array_equal(read["input_kernel"][2], encoder_arrays()["encoder_Wx"])
    equal(started.key_params["text"]["skip_thoughts"], read)
    # What no file holds, and everything that is no encoder, stays.
    for part in ("image", "text"):
        assert not started.params[part]["head"].any()
        assert started.key_params[part]["head"].all()
    assert not started.batch_stats["image"]["other"].any()
    assert started.key_batch_stats["image"]["other"].all()
    encoders = ("params", "batch_stats", "key_params", "key_batch_stats")
    equal(started.replace(**{name: getattr(before, name) for name in encoders}), before)
    equal(state, before)


def test_missing_files_are_told_before_anything_is_read(config, table, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config.text_encoder.pretrained = "~/skip-thoughts"
    starting_weights.check_weight_files(config)
    config.text_encoder.pretrained = "~/nowhere"
    sentence = rf"cannot read {tmp_path}/nowhere/dictionary.txt: No such file .*download dictionary"
    with pytest.raises(PretrainedError, match=sentence):
        starting_weights.check_weight_files(config)
    config.image_encoder.pretrained = "nowhere/resnet18.pth"
    sentence = r"there is no file nowhere/resnet18.pth; download it as .*/models/resnet18-f37072fd"
    with pytest.raises(PretrainedError, match=sentence):
        starting_weights.check_weight_files(config)
