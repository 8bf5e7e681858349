"""Where runs differ most, on ranks whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from kamcl_jax.evaluate.compare import queries
from kamcl_jax.ranking.ranks import Ranks


def ranked(label, *ranks):
    return SimpleNamespace(label=label, ranks={"t2i": Ranks.untied(ranks)})


ONE = ranked("one", 1, 50, 4, 2, 9, 3)
TWO = ranked("two", 1, 60, 1, 8, 3, 3)


def test_queries_are_ordered_by_the_factor_between_ranks():
    ahead, behind = queries.most_different([ONE, TWO], "t2i", 5)
    assert ahead == [3, 1]  # 8 / 2, 60 / 50
    assert behind == [2, 4]  # 4 / 1, 9 / 3
    assert queries.most_different([ONE, TWO], "t2i", 1) == ([3], [2])


def test_the_other_way_round_they_change_places():
    ahead, behind = queries.most_different([ONE, TWO], "t2i", 5)
    assert queries.most_different([TWO, ONE], "t2i", 5) == (behind, ahead)


def test_of_several_runs_any_may_be_far_from_the_first():
    three = ranked("three", 30, 50, 4, 1, 9, 3)
    ahead, behind = queries.most_different([ONE, TWO, three], "t2i", 5)
    assert ahead == [0, 3, 1]
    assert behind == [2, 4, 3]
    farthest = [queries.farthest([ONE, TWO, three], "t2i", query).label for query in (0, 2, 3)]
    assert farthest == ["three", "two", "two"]


def test_where_scores_tie_the_expected_rank_counts():
    # Four wrong captions tie with the right one: the expected rank is 3.
    tied = SimpleNamespace(
        label="tied", ranks={"t2i": Ranks(np.zeros(3, int), np.full(3, 4), np.ones(3, int))}
    )
    untied = ranked("untied", 2, 3, 4)
    assert queries.most_different([tied, untied], "t2i", 5) == ([2], [0])


@pytest.mark.parametrize("runs", [[], [ONE, ONE]])
def test_without_a_difference_none_is_listed(runs):
    assert queries.most_different(runs, "t2i", 5) == ([], [])
