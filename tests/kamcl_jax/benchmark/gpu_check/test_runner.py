"""Parts in processes: each within its time, and none stops another."""

import json
import sys
import time

import pytest

from kamcl_jax.benchmark.gpu_check import runner
from kamcl_jax.benchmark.gpu_check.runner import Part

PROGRAM = """
import json, pathlib, sys, time
name = sys.argv[1].removeprefix("--part=")
if name != "silent":
    pathlib.Path(f"{name}.json").write_text(json.dumps({"number": 1}))
if name == "hangs":
    time.sleep(60)
if name == "fails":
    raise MemoryError("no room")
"""


@pytest.fixture
def run_parts(tmp_path, monkeypatch):
    """Runs parts of `PROGRAM`; returns what was found, and every report on the way."""
    monkeypatch.chdir(tmp_path)
    reports = []

    def run(parts, total=60.0):
        launch = runner.in_process([sys.executable, "-c", PROGRAM], {}, tmp_path / "log.txt")
        read = lambda name: runner.read_results(tmp_path, name)  # noqa: E731
        write = lambda found: reports.append(json.loads(json.dumps(found)))  # noqa: E731
        return runner.run(parts, total, launch, read, write), reports

    return run


def test_a_part_that_fails_or_hangs_stops_no_other(run_parts, monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 0.0)
    started = time.monotonic()
    parts = {name: Part(name, 20) for name in ("fails", "hangs", "silent")}
    parts["hangs"] = Part("hangs", 1.0)
    found, reports = run_parts(parts)
    assert time.monotonic() - started < 15
    assert found["fails"]["ended"].endswith("failed with the exit status 1")
    assert "MemoryError: no room" in found["fails"]["ended"]
    assert found["hangs"]["ended"] == "stopped when its time was up"
    assert found["silent"]["ended"] == "ok"
    # What a part had by then is kept, whatever became of it.
    assert [found[name]["results"] for name in parts] == [{"number": 1}, {"number": 1}, {}]
    assert [list(report) for report in reports] == [
        ["fails"],
        ["fails", "hangs"],
        ["fails", "hangs", "silent"],
    ]


def given_seconds(parts, total, monkeypatch, takes):
    """What each part is given if each takes so many seconds."""
    clock = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])
    given = {}

    def launch(name, seconds):
        given[name] = seconds
        clock[0] += takes[name]
        return runner.OK

    runner.run(parts, total, launch, lambda name: {}, lambda found: None)
    return given


def test_one_part_takes_what_the_others_leave(monkeypatch):
    parts = {"a": Part("a", 50), "b": Part("b", 30, takes_the_rest=True), "c": Part("c", 20)}
    assert given_seconds(parts, 100, monkeypatch, {"a": 10, "b": 70, "c": 20}) == {
        "a": 50,
        "b": 70,
        "c": 20,
    }
    assert given_seconds(parts, 60, monkeypatch, {"a": 50, "b": 8, "c": 0}) == {"a": 50, "b": 10}
