"""Where the training split goes: what a config asks for, and what 'auto' makes of the devices."""

import jax
import numpy as np
import pytest
from tiny_model import BATCH, tiny_config

from kamcl_jax.config import build
from kamcl_jax.parallel import compilation
from kamcl_jax.step import resident_batch
from kamcl_jax.train import feed


@pytest.fixture(scope="module")
def experiment_with(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")

    def make(choice, **loss):
        config = tiny_config()
        config.loss.update(loss)
        config.data.dir, config.data.residency = str(data), choice
        return build.build(config)

    return make


def chosen(experiment):
    return [step_input.resident for step_input in feed.candidates(experiment)]


def test_a_config_that_says_where_is_obeyed_whatever_the_memory(experiment_with, monkeypatch):
    monkeypatch.setattr(compilation, "available_memory", lambda: 1)
    assert chosen(experiment_with("device")) == [True]
    assert feed.candidates(experiment_with("device"))[0].fits(10**15)
    assert chosen(experiment_with("host")) == [False]


def test_auto_is_the_host_where_the_memory_is_unknown_as_on_a_cpu(experiment_with):
    assert compilation.available_memory() is None
    assert chosen(experiment_with("auto")) == [False]


def test_auto_is_the_device_if_data_and_step_take_at_most_their_share(experiment_with, monkeypatch):
    experiment = experiment_with("auto")
    monkeypatch.setattr(compilation, "available_memory", lambda: 10**9)
    assert chosen(experiment) == [True, False]
    on_device, on_host = feed.candidates(experiment)
    limit = int(feed.SHARE_OF_MEMORY * 10**9)
    assert on_device.fits(limit)
    assert not on_device.fits(limit + 1)
    assert on_host.fits(10**15)
    # Data that are too large by themselves are not compiled for.
    monkeypatch.setattr(compilation, "available_memory", lambda: on_device.table_bytes)
    assert chosen(experiment) == [False]


def test_auto_is_the_host_with_several_processes(experiment_with, monkeypatch):
    experiment = experiment_with("auto")
    monkeypatch.setattr(compilation, "available_memory", lambda: 10**9)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert chosen(experiment) == [False]


def test_the_sentences_say_where_and_how_much(experiment_with):
    (on_host,) = feed.candidates(experiment_with("host"))
    assert on_host.describe() == "training data: read by the host, a batch at a time"
    (on_devices,) = feed.candidates(experiment_with("device"))
    assert on_devices.describe() == "training data: 0.00 GB in the memory of each device"
    assert on_devices.table_bytes > 24 * 64**2 * 3


@pytest.mark.parametrize("masked", [False, True])
def test_both_places_give_the_same_batches(experiment_with, masked):
    experiment = experiment_with("host", mask_false_negatives=masked)
    (on_host,) = feed.candidates(experiment)
    (on_devices,) = feed.candidates(experiment_with("device", mask_false_negatives=masked))
    looked_up = jax.jit(lambda numbers: resident_batch.batch_of(numbers, experiment.layout))
    fetches = on_host.open(), on_devices.open()
    for step in (0, 1, 20):
        batch, numbers = (fetch(step) for fetch in fetches)
        assert numbers.captions.shape == (BATCH,)
        assert batch.keys() == on_host.abstract.keys()
        found = dict(looked_up(numbers))
        jax.tree.map(np.testing.assert_array_equal, found, dict(batch))
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (found, batch)]
        assert shapes[0] == shapes[1]
