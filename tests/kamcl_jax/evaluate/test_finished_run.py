"""A finished run is read again; what is wrong with it is told in one sentence."""

import json
import shutil

import numpy as np
import pytest
from stored_runs import STEP

from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import finished_run


@pytest.fixture
def copied(stored_runs, tmp_path):
    """A run to damage."""
    return shutil.copytree(stored_runs.one, tmp_path / "run")


def test_a_run_is_read_and_its_data_are_opened_again(stored_runs):
    run = finished_run.read(stored_runs.one)
    assert run.step == STEP
    assert run.config.data.options.train == 24
    assert [row["epoch"] for row in run.history.validation] == [1, 2]
    assert run.results == json.loads((stored_runs.one / finished_run.METRICS).read_text())
    assert run.results_of_step is run.results
    assert run.model().step == STEP
    data = finished_run.open_data(run)
    assert len(data.test.file_names) == 6
    assert data.train.images.shape[1:] == (70, 70, 3)  # to be cropped
    tested = finished_run.open_data(run, train_as_tested=True)
    assert tested.train.images.shape == (24, 64, 64, 3)
    np.testing.assert_array_equal(tested.train.tokens, data.train.tokens)
    np.testing.assert_array_equal(tested.test.images[:2], data.test.images[:2])


def test_the_config_or_data_of_another_run_are_refused(stored_runs, tmp_path):
    run = finished_run.read(stored_runs.one)
    other = run.config.copy_and_resolve_references()
    other.data.options.train = 30
    other.data.dir = str(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"config.data.options.train: 24 in the checkpoint, 30"):
        finished_run.open_data(run, other)
    assert not (tmp_path / "data").exists()
    run.record["training captions"] = "other"
    with pytest.raises(ConfigError, match="the data's training captions changed"):
        finished_run.open_data(run)


def test_a_report_may_be_of_another_step_missing_or_damaged(copied):
    metrics = copied / finished_run.METRICS
    written = metrics.read_text()
    metrics.write_text(json.dumps({**json.loads(written), "best_step": STEP - 1}))
    assert finished_run.read(copied).results_of_step is None
    assert finished_run.read(copied).results["best_step"] == STEP - 1
    metrics.unlink()
    assert finished_run.read(copied).results is None
    for damaged in (written[:100], '{"test": {}}'):  # cut short, or of an older version
        metrics.write_text(damaged)
        with pytest.raises(ConfigError, match=r"metrics.json is no whole report; --mode=evaluate"):
            finished_run.read(copied)


@pytest.fixture
def continued(copied):
    """A run whose latest checkpoint, after the best one, was never validated."""
    best = copied / "checkpoints" / str(STEP)
    shutil.copytree(best, best.with_name(str(STEP + 5)), ignore=shutil.ignore_patterns("metrics"))
    return copied


def test_a_damaged_latest_checkpoint_costs_no_more_than_its_history(continued):
    stored = continued / "checkpoints" / str(STEP + 5) / "record" / "metadata"
    content = json.loads(stored.read_text())
    content["record"]["history"]["seconds"] = 99.0
    stored.write_text(json.dumps(content))
    run = finished_run.read(continued)
    assert (run.step, run.history.seconds) == (STEP, 99.0)
    stored.write_text("{")
    run = finished_run.read(continued)
    assert (run.step, run.history.seconds) == (STEP, 12.0)
    assert run.model().step == STEP
