"""The report of whatever parts there are."""

import pytest

from kamcl_jax.benchmark.gpu_check import figures, report
from kamcl_jax.benchmark.gpu_check.report import GOALS


def part(results, ended="ok", title="A part"):
    return {"title": title, "ended": ended, "seconds": 1.0, "limit": 9.0, "results": results}


def step(seconds, batch=100):
    quartiles = {"quartile_low": seconds, "quartile_high": seconds}
    return {"seconds": seconds, "images_per_second": batch / seconds, **quartiles}


@pytest.fixture
def found():
    return {
        "steps": part(
            {
                "ours, float32, batch 100": {**step(0.02), "compile_seconds": 40.0, "bytes": 9e9},
                "ours, bfloat16, batch 100": {"failed": "Traceback\nXlaRuntimeError: no room"},
                "original, float32, batch 100": step(0.05),
                "ours, bfloat16, with input from the device": step(0.01),
                "the original's loader": {"images_per_second": 400.0},
            },
            title="Training steps",
        ),
        "profile": part({"float32": {"left_out": "no time was left for it"}}),
        "race": part({}, ended="line\nfailed with the exit status 1"),
    }


def test_goals_are_measured_from_the_parts(found):
    measured = [goal.measured(found, 100) for goal in GOALS]
    # The original loads 100 images in 250 ms and then takes its step of 50 ms.
    assert measured == [pytest.approx(2.5), None, pytest.approx(30.0), None]
    # Ten loaders need 25 ms, less than the step.
    assert report.epoch_ratio(found, 100, 10) == pytest.approx(5.0)
    text = report.text(found, [100], rehearsal=False)
    (line,) = (line for line in text.splitlines() if "step in float32" in line)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["1.5", "2.5", "yes"]


def test_what_failed_or_was_left_out_is_told(found):
    text = report.text(found, [100], rehearsal=True)
    assert "A rehearsal" in text
    assert "failed: XlaRuntimeError: no room" in text
    assert "left out: no time was left for it" in text
    _, failed = text.split("## What failed")
    assert "### steps: ours, bfloat16, batch 100" in failed
    assert "### race\n\n```\nline\nfailed with the exit status 1\n```" in failed
    assert "A rehearsal" not in report.text({}, [100], rehearsal=False)


def test_runners_are_compared_after_the_same_number_of_epochs(tmp_path):
    def curve(*scores):
        return [
            {"epoch": n, "mR": mr, "minutes": n / 2, "loss": 1.0} for n, mr in enumerate(scores, 1)
        ]

    curves = {"ours, float32": curve(4.0, 6.0, 8.0), "original": curve(3.0, 5.0), "late": []}
    run = {"seed": 0, "curves": curves, "failed": {}}
    run["start_seconds"] = dict.fromkeys(curves, 1.0)
    last = report.at_the_same_epoch(run)
    assert {name: point["mR"] for name, point in last.items()} == {
        "ours, float32": 6.0,
        "original": 5.0,
    }
    found = {"race": part({"config": {}, "runs": [run]}, title="The race")}
    assert " original |" in report.text(found, [100], rehearsal=False)
    figures.draw(tmp_path, found, (100,))
    assert [path.name for path in tmp_path.iterdir()] == ["race.png"]
