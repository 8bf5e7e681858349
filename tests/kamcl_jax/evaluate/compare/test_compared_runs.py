"""Runs to compare: names, differing fields, and where they differ most, whose answer is known."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.compare import runs
from kamcl_jax.evaluate.compare.report import COLOURS
from kamcl_jax.evaluate.compare.runs import MOST_RUNS, ComparedRun, RankedQueries
from kamcl_jax.ranking.ranks import Ranks


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["/runs/a", "/runs/b"], ["a", "b"]),
        (["/x/seed0", "/y/seed0", "/y/seed1"], ["x/seed0", "y/seed0", "seed1"]),
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


def test_too_few_too_many_and_equal_runs_are_refused(tmp_path, monkeypatch):
    assert len(set(COLOURS)) == MOST_RUNS
    for count in (1, MOST_RUNS + 1):
        with pytest.raises(ConfigError, match=f"takes 2 to 8 folders of runs, not {count}"):
            runs.read_runs([tmp_path / str(number) for number in range(count)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"names the run {tmp_path}/a twice"):
        runs.read_runs([Path("a"), Path("b"), tmp_path / "a"])


def test_a_run_without_a_report_is_named(stored_runs, tmp_path):
    copied = shutil.copytree(stored_runs.two, tmp_path / "copied")
    shutil.rmtree(copied / "report")
    with pytest.raises(ConfigError, match=r"copied has no report .* --mode=evaluate --workdir="):
        runs.read_runs([stored_runs.one, copied])


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


def ranked(label, *ranks, captions="abcdef"):
    found = ranks[0] if isinstance(ranks[0], Ranks) else Ranks.untied(ranks)
    split = SimpleNamespace(captions=list(captions))
    return RankedQueries(label, split, {"test_equal_texts": {"t2i": found}}, None)


ONE = ranked("one", 1, 50, 4, 2, 9, 3)
TWO = ranked("two", 1, 60, 1, 8, 3, 3)


def test_queries_are_ordered_by_the_factor_between_ranks():
    ahead, behind = runs.most_different([ONE, TWO], "t2i", 5)
    assert ahead == [3, 1]  # 8 / 2, 60 / 50
    assert behind == [2, 4]  # 4 / 1, 9 / 3
    assert runs.most_different([ONE, TWO], "t2i", 1) == ([3], [2])
    assert runs.most_different([TWO, ONE], "t2i", 5) == (behind, ahead)
    three = ranked("three", 30, 50, 4, 1, 9, 3)  # of several runs any may be far from the first
    assert runs.most_different([ONE, TWO, three], "t2i", 5) == ([0, 3, 1], [2, 4, 3])
    farthest = [runs.farthest([ONE, TWO, three], "t2i", query).label for query in (0, 2, 3)]
    assert farthest == ["three", "two", "two"]
    for compared in ([], [ONE, ONE]):
        assert runs.most_different(compared, "t2i", 5) == ([], [])


def test_captions_of_one_text_are_listed_once():
    one = ranked("one", 1, 2, 2, 1, 9, 5, captions="abbacd")
    two = ranked("two", 2, 8, 8, 2, 3, 5, captions="abbacd")
    assert runs.most_different([one, two], "t2i", 5) == ([1, 0], [4])


def test_where_scores_tie_the_expected_rank_counts():
    # Four irrelevant captions tie with the relevant one: the expected rank is 3.
    tied = ranked("tied", Ranks(np.zeros(3, int), np.full(3, 4), np.ones(3, int)), captions="abc")
    untied = ranked("untied", 2, 3, 4, captions="abc")
    assert runs.most_different([tied, untied], "t2i", 5) == ([2], [0])
