"""Where the training split goes: what a config asks for, and what 'auto' makes of the devices."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_model import BATCH, tiny_config

from input_pipeline.language.texts import equal_text_ids
from input_pipeline.splits import batches
from kamcl_jax.config import build
from kamcl_jax.parallel import compilation
from kamcl_jax.train import feed


@pytest.fixture(scope="module")
def experiment_with(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")

    def make(choice, **fields):
        config = tiny_config()
        config.update_from_flattened_dict(fields)
        config.data.dir, config.data.residency = str(data), choice
        return build.build(config)

    return make


def on_devices(experiment, step_bytes=0):
    return feed.choose(experiment, step_bytes).table_bytes > 0


def test_a_config_that_says_where_is_obeyed_whatever_the_memory(experiment_with, monkeypatch):
    monkeypatch.setattr(compilation, "available_memory", lambda: 1)
    chosen = [feed.choose(experiment_with(place), 10**15) for place in ("host", "device")]
    assert [one.table_bytes > 0 for one in chosen] == [False, True]
    assert [one.describe() for one in chosen] == [
        "training data: read by the host, a batch at a time",
        "training data: 0.00 GB in the memory of each device",
    ]


def test_auto_is_the_device_if_one_process_knows_that_data_and_step_take_at_most_their_share(
    experiment_with, monkeypatch
):
    experiment = experiment_with("auto")
    assert compilation.available_memory() is None  # as on every CPU
    assert not on_devices(experiment)
    monkeypatch.setattr(compilation, "available_memory", lambda: 10**9)
    table_bytes = feed.choose(experiment, 0).table_bytes
    assert table_bytes > 24 * 64**2 * 3
    room = int(feed.SHARE_OF_MEMORY * 10**9) - table_bytes
    assert on_devices(experiment, room)
    assert not on_devices(experiment, room + 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not on_devices(experiment)


MASKS, FLIPS = {"loss.mask_false_negatives": True}, {"augmentation.flips": True}


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ({}, set()),
        (MASKS, {"image_id", "text_id"}),
        (FLIPS, {"says_direction"}),
        ({"augmentation.quarter_turns": True} | MASKS, {"image_id", "text_id", "says_direction"}),
    ],
)
def test_both_places_give_the_same_batches(experiment_with, fields, columns):
    feeds = [feed.choose(experiment_with(place, **fields), 0) for place in ("host", "device")]
    on_host, on_device = (one.open() for one in feeds)
    for step in (0, 1, 20):
        batch, looked_up = on_host(step), on_device(step)
        assert batch["image"].shape[0] == BATCH
        assert batch.keys() & {"image_id", "text_id", "says_direction"} == columns
        jax.tree.map(np.testing.assert_array_equal, looked_up, batch)
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (looked_up, batch)]
        assert shapes[0] == shapes[1]
        same = jax.tree.map(
            lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), batch, looked_up
        )
        assert all(jax.tree.leaves(same))


def test_pairs_say_what_they_are_of_where_false_negatives_are_masked(experiment_with):
    experiment = experiment_with("host", **MASKS)
    train, batch = experiment.data.train, feed.choose(experiment, 0).open()(1)
    assert batch.keys() == experiment.abstract_batch().keys()
    rows = batches.batch_captions(experiment.config.seed, 1, len(train.captions), BATCH)
    np.testing.assert_array_equal(batch["image_id"], train.image_of_caption[rows])
    texts = equal_text_ids(train.captions)
    np.testing.assert_array_equal(batch["text_id"], texts[rows])


def test_captions_say_whether_they_say_a_direction_where_images_are_mirrored(experiment_with):
    experiment = experiment_with("host", **FLIPS)
    captions = list(experiment.data.train.captions)
    captions[::3] = ["A pier at the LEFT."] * len(captions[::3])
    train = dataclasses.replace(experiment.data.train, captions=captions)
    data = dataclasses.replace(experiment.data, train=train)
    batch = feed.choose(dataclasses.replace(experiment, data=data), 0).open()(1)
    assert batch.keys() == experiment.abstract_batch().keys()
    rows = batches.batch_captions(experiment.config.seed, 1, len(train.captions), BATCH)
    np.testing.assert_array_equal(batch["says_direction"], rows % 3 == 0)
