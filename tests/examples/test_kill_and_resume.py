"""Real trainings that are killed or stopped end as one that never was, bit for bit."""

import dataclasses
import re
import signal

import numpy as np
import pytest

from examples import kill_and_resume
from examples.kill_and_resume import Result, Trial
from examples.watched_training import PHASES, Schedule
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of

STEPS_PER_EPOCH, LAST, LOG_EVERY = 10, 20, 4


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial")
    arguments = [*kill_and_resume.TINY, f"--config.data.dir={folder / 'data'}"]
    arguments += [f"--config.log_every_steps={LOG_EVERY}", "--config.data.options.train=16"]
    return Trial([*arguments, "--config.num_epochs=2"], folder / "runs")


@pytest.fixture(scope="module")
def whole(trial):
    return trial.whole()


def test_three_kills_change_nothing(trial, whole):
    # The undisturbed training compiled its programs, the others read them: that changes nothing.
    random = np.random.default_rng(0)
    for phase, step in [("compiling", 0), ("validation", STEPS_PER_EPOCH), ("writing", 12)]:
        kill = trial.kill("killed", phase, step, whole, random)
        assert kill is not None
        assert kill.step >= step
        assert not (trial.workdir("killed") / "report").exists()
    assert kill_and_resume.differences(whole.result, trial.finish("killed")) == []
    from_step = int(trial.goes_on_from(kill).removeprefix("step "))
    assert 0 < from_step <= kill.step


def test_a_signal_within_an_epoch_changes_nothing(trial, whole):
    stopped = [stop(trial, signal.SIGINT, 130, 11)]
    assert kill_and_resume.differences(whole.result, trial.finish("stopped")) == []
    for step, output in zip(stopped, trial.outputs("stopped")[1:], strict=True):
        assert f"going on from the checkpoint of step {step}\n" in output.read_text()


def stop(trial, number, status, from_step):
    """Sends a signal once a step has begun; returns the step of the last checkpoint."""
    with trial.start("stopped") as training:
        assert training.wait_for(lambda seen: seen.step >= from_step)
        training.process.send_signal(number)
        assert training.process.wait(timeout=60) == status
    assert f"{number.name}: stopping after this step" in training.output
    said = re.fullmatch(
        rf"stopped by {number.name} after step (\d+); the same command goes on from there",
        training.output.strip().splitlines()[-1],
    )
    assert said
    step = int(said[1])
    assert from_step <= step < LAST
    with Checkpoints(folder_of(trial.workdir("stopped")), read_only=True) as checkpoints:
        assert checkpoints.latest == step
        history = checkpoints.record(step)["history"]
    rows = [row["step"] for row in history["train"]]
    # The steps since the last row travel, too.
    assert len(history["pending"]) == step - max(rows, default=0)
    assert rows == [row for row in (4, 8, 10, 12, 16, 20) if row <= step]
    return step


@pytest.fixture
def result():
    state = {"weight": np.array([1.0, 0.0], np.float32), "step": np.int32(3)}
    return Result(state, {"history: train": [{"loss": 0.1}]})


def test_a_single_bit_is_a_difference(result):
    assert kill_and_resume.differences(result, result) == []
    for weight in (
        np.array([1.0, -0.0], np.float32),
        np.array([np.nextafter(np.float32(1), np.float32(2)), 0.0], np.float32),
        np.array([1.0, 0.0], np.float64),
        np.array([[1.0, 0.0]], np.float32),
    ):
        other = dataclasses.replace(result, state={**result.state, "weight": weight})
        assert kill_and_resume.differences(result, other) == ["weight"]


def test_missing_arrays_and_other_rows_are_differences(result):
    other = Result({"weight": result.state["weight"]}, {"history: train": [{"loss": 0.1}] * 2})
    assert kill_and_resume.differences(result, other) == ["history: train", "step"]


def test_a_plan_has_each_phase_once_and_the_report_last():
    for seed in range(20):
        phases, steps = zip(
            *kill_and_resume.plan(Schedule(15, 60), np.random.default_rng(seed)), strict=True
        )
        assert sorted(phases) == sorted(PHASES)
        assert phases[-1] == "report"
        steps = [step for phase, step in zip(phases, steps, strict=True) if phase != "compiling"]
        assert sorted(steps) == steps
        assert steps[-1] == 60
