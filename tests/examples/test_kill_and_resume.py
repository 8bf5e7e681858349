"""Real trainings that are killed or stopped end as one that never was, bit for bit."""

import dataclasses
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from examples import kill_and_resume
from examples.kill_and_resume import Result, Trial
from examples.watched_training import PHASES, Schedule
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of

EPOCH, LAST, LOG_EVERY = 40, 80, 6  # steps


@pytest.fixture
def trial(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "fixtures"))
    arguments = [
        *kill_and_resume.TINY,
        f"--config.data.dir={tmp_path / 'data'}",
        "--config.data.options.train=64",
        "--config.num_epochs=2",
        "--config.image_encoder.module=noisy_encoders:Image",  # these start quickly
        "--config.text_encoder.module=noisy_encoders:Text",
    ]
    return Trial(arguments, tmp_path / "runs")


def test_a_signal_and_two_kills_change_nothing(trial):
    # The undisturbed training compiles its programs, the other one reads them.
    whole = trial.whole()
    assert whole.schedule == Schedule(EPOCH, LAST)
    step = stop(trial, signal.SIGINT, 130, from_step=3)
    random = np.random.default_rng(0)
    kills = [
        trial.kill("disturbed", "validation", EPOCH, whole, random),
        trial.kill("disturbed", "writing", EPOCH + 2, whole, random),
    ]
    assert [kill.step >= EPOCH for kill in kills] == [True, True]
    assert not (trial.workdir("disturbed") / "report").exists()
    assert kill_and_resume.differences(whole.result, trial.finish("disturbed")) == []
    first = trial.outputs("disturbed")[1]
    assert f"going on from the checkpoint of step {step}\n" in first.read_text()
    from_step = int(trial.goes_on_from(kills[-1]).removeprefix("step "))
    assert 0 < from_step <= kills[-1].step


def stop(trial, number, status, from_step):
    """Sends a signal once a step has begun; returns the step of the last checkpoint."""
    with trial.start("disturbed") as training:
        assert training.wait_for(lambda seen: seen.step >= from_step)
        training.process.send_signal(number)
        assert training.process.wait(timeout=60) == status
    assert f"{number.name}: stopping after this step" in training.output
    said = re.fullmatch(
        rf"stopped by {number.name} after step (\d+); the same command goes on from there",
        training.output.strip().splitlines()[-1],
    )
    step = int(said[1])
    assert from_step <= step < LAST
    with Checkpoints(folder_of(trial.workdir("disturbed")), read_only=True) as checkpoints:
        assert checkpoints.latest == step
        history = checkpoints.record(step)["history"]
    rows = [row["step"] for row in history["train"]]
    # The steps since the last row travel, too.
    assert len(history["pending"]) == step - max(rows, default=0)
    due = {*range(LOG_EVERY, step + 1, LOG_EVERY), *range(EPOCH, step + 1, EPOCH)}
    assert rows == sorted(due)
    return step


def test_a_single_bit_a_missing_array_and_other_rows_are_differences():
    state = {"weight": np.array([1.0, 0.0], np.float32), "step": np.int32(3)}
    result = Result(state, {"history: train": [{"loss": 0.1}]})
    assert kill_and_resume.differences(result, result) == []
    for weight in (
        np.array([1.0, -0.0], np.float32),
        np.array([np.nextafter(np.float32(1), np.float32(2)), 0.0], np.float32),
        np.array([1.0, 0.0], np.float64),
        np.array([[1.0, 0.0]], np.float32),
    ):
        other = dataclasses.replace(result, state={**result.state, "weight": weight})
        assert kill_and_resume.differences(result, other) == ["weight"]
    other = Result({"weight": result.state["weight"]}, {"history: train": [{"loss": 0.1}] * 2})
    assert kill_and_resume.differences(result, other) == ["history: train", "step"]


def test_a_plan_has_each_phase_once_and_the_report_last():
    for seed in range(20):
        kills = kill_and_resume.plan(Schedule(15, 60), np.random.default_rng(seed))
        assert sorted(phase for phase, _ in kills) == sorted(PHASES)
        assert kills[-1] == ("report", 60)
        steps = [step for phase, step in kills if phase != "compiling"]
        assert sorted(steps) == steps
