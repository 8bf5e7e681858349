"""The worked examples of docs/extending.md in one run, named by its config.

A vision transformer, one more loss term, false negatives left out. No encoder has statistics.
"""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_model import BATCH, tiny_config

import kamcl_jax
from examples import uniformity_config
from kamcl_jax.config import build, fields
from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import evaluate
from kamcl_jax.runs import record as run_record
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of
from kamcl_jax.train import loop

EPOCH = 24 * 5 // BATCH


def extended():
    config = tiny_config()
    config.image_encoder.module = "examples.vision_transformer:VisionTransformer"
    config.image_encoder.options = {"patch_size": 16, "width": 8, "depth": 1, "heads": 2}
    config.text_encoder.module = "plain_encoders:Words"  # compiles in no time
    config.loss.extra_terms = uniformity_config.get_config().loss.extra_terms
    config.loss.mask_false_negatives = True
    config.num_epochs = 2
    config.log_every_steps = EPOCH
    return config


@dataclasses.dataclass(frozen=True)
class Run:
    config: object
    workdir: object
    results: dict

    def record(self, step):
        with Checkpoints(folder_of(self.workdir), read_only=True) as checkpoints:
            return checkpoints.record(step)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """All runs here are of the same config."""
    made = {}

    def once(make):
        def remembered(experiment):
            if make not in made:
                made[make] = make(experiment)
            return made[make]

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((loop, "_compile_step"), (evaluate, "make_encoders")):
            patch.setattr(module, name, once(getattr(module, name)))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run in one go, and one that goes on from its first epoch."""
    folder = tmp_path_factory.mktemp("extended")
    config = extended()
    config.data.dir = str(folder / "data")
    whole = Run(config, folder / "whole", loop.train(config, folder / "whole"))
    shutil.copytree(folder_of(whole.workdir), folder_of(folder / "again"))
    shutil.rmtree(folder_of(folder / "again") / str(2 * EPOCH))
    return whole, Run(config, folder / "again", loop.train(config, folder / "again"))


def test_the_model_is_the_named_one_and_has_no_statistics(runs):
    with Checkpoints(folder_of(runs[0].workdir), read_only=True) as checkpoints:
        like = build.build(runs[0].config).abstract_state
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        state = checkpoints.restore(checkpoints.latest, like, one).state
    assert state.batch_stats == state.key_batch_stats == {}
    assert state.params["image"]["patches"]["kernel"].shape == (16, 16, 3, 8)
    kernels = (tree["image"]["patches"]["kernel"] for tree in (state.params, state.key_params))
    assert not np.array_equal(*kernels)
    # As many pairs as the last steps have shown.
    np.testing.assert_array_equal(state.image_queue.ids.image, state.text_queue.ids.image)
    assert (np.asarray(state.text_queue.ids.text) >= 0).all()


def test_a_run_that_was_stopped_ends_with_the_same_bits(runs):
    whole, stopped = (run.record(2 * EPOCH) for run in runs)
    assert whole["history"]["train"] == stopped["history"]["train"]
    assert runs[0].results["test"] == runs[1].results["test"]


def test_the_term_and_the_false_negatives_are_in_the_history_and_the_picture(runs):
    rows = runs[0].record(2 * EPOCH)["history"]["train"]
    assert [row["step"] for row in rows] == [EPOCH, 2 * EPOCH]
    for row in rows:
        assert -4 * 2 < row["uniformity"] <= 0
        assert row["false_negatives"] > 0
        expected = (
            row["triplet"]
            + 10 * row["contrastive"]
            + row["alignment_weight"] * row["alignment"]
            + runs[0].config.loss.extra_terms.uniformity.weight * row["uniformity"]
        )
        np.testing.assert_allclose(row["loss"], expected, rtol=1e-5)
    with Image.open(runs[0].workdir / "report" / "losses.png") as image:
        assert image.height > 900  # three rows of curves


def test_a_checkpoint_is_evaluated_by_its_own_config(runs):
    assert evaluate.evaluate(None, runs[0].workdir)["test"] == runs[0].results["test"]


def test_a_checkpoint_is_opened_without_its_data(runs):
    model = kamcl_jax.load(runs[0].workdir)
    assert model.config.image_encoder.options.width == 8
    images = model.encode_images([np.zeros((70, 50, 3), np.uint8)])
    texts = model.encode_texts(["a pond", "two planes"])
    assert model.similarity(images, texts).shape == (1, 2)


def test_a_run_goes_on_with_the_same_extensions_only(runs):
    record = runs[0].record(2 * EPOCH)
    assert fields.flatten(run_record.config_of(record)) == record["config"]
    fields.check_against_checkpoint(runs[0].config, record["config"])
    other = runs[0].config.copy_and_resolve_references()
    other.image_encoder.options.width = 10
    other.loss.extra_terms.uniformity.weight = 0.2
    other.loss.mask_false_negatives = False
    with pytest.raises(ConfigError) as refused:
        fields.check_against_checkpoint(other, record["config"])
    for field in (
        "image_encoder.options.width: 8 in the checkpoint, 10 now",
        "loss.extra_terms.uniformity.weight",
        "loss.mask_false_negatives: True in the checkpoint, False now",
    ):
        assert field in str(refused.value)
