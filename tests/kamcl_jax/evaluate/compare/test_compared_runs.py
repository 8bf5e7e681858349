"""Runs to compare: their names, their differing fields, and which cannot be compared."""

import shutil
from pathlib import Path

import pytest

from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.compare import runs
from kamcl_jax.evaluate.compare.figures import COLOURS
from kamcl_jax.evaluate.compare.runs import MOST_RUNS, ComparedRun


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["/runs/a", "/runs/b"], ["a", "b"]),
        (["/x/seed0", "/y/seed0", "/y/seed1"], ["x/seed0", "y/seed0", "seed1"]),
        (["/x/z/a", "/y/z/a"], ["x/z/a", "y/z/a"]),
        (["/a", "/a/a"], ["//a", "a/a"]),
        (["/runs/_a", "/_x/b", "/y/b"], ["./_a", "./_x/b", "y/b"]),
        (["/" + 30 * "x" + "1", "/b"], ["xxxxxxxxxxx…xxxxxxxxxx1", "b"]),
        (
            ["/" + 20 * "x" + "1" + 20 * "y", "/" + 20 * "x" + "2" + 20 * "y", "/b"],
            ["1: xxxxxxxxxxx…yyyyyyyyyyy", "2: xxxxxxxxxxx…yyyyyyyyyyy", "b"],
        ),
    ],
)
def test_labels_are_short_and_all_different(folders, expected):
    assert runs.labels([Path(folder) for folder in folders]) == expected


def test_there_are_as_many_colours_as_runs():
    assert len(set(COLOURS)) == MOST_RUNS


@pytest.mark.parametrize("count", [0, 1, MOST_RUNS + 1])
def test_too_few_or_too_many_runs_are_refused(count, tmp_path):
    with pytest.raises(ConfigError, match=f"takes 2 to 8 folders of runs, not {count}"):
        runs.read([tmp_path / str(number) for number in range(count)])


def test_a_run_named_twice_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"names the run {tmp_path}/a twice"):
        runs.read([Path("a"), Path("b"), tmp_path / "a"])


def test_a_run_without_a_report_is_named(stored_runs, tmp_path):
    copied = shutil.copytree(stored_runs.two, tmp_path / "copied")
    shutil.rmtree(copied / "report")
    with pytest.raises(ConfigError, match=r"copied has no report .* --mode=evaluate --workdir="):
        runs.read([stored_runs.one, copied])


def test_fields_that_differ_are_listed_with_each_runs_value(stored_runs):
    one, two, three = (finished_run.read(stored_runs.one) for _ in range(3))
    two.config.seed = 7
    two.config.mesh.data = 4  # of the machine
    three.config.data.options.more = "x"
    compared = [ComparedRun(str(run), run, run.results) for run in (one, two, three)]
    assert runs.differing_fields(compared) == {
        "data.options.more": ["-", "-", "'x'"],
        "seed": ["0", "7", "0"],
    }
    assert runs.differing_fields(compared[:1] * 2) == {}
