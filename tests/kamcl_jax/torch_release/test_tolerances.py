import numpy as np
import pytest

from kamcl_jax.torch_release.tolerances import compare, merge, table

GOLDEN = np.array([[1.0, -2.0], [30.0, 40.0]])


def test_tolerance_is_ten_times_the_noise_and_a_share_of_the_magnitude():
    ones = np.ones(3)
    for error, passes in ((0.9e-5, True), (1.1e-5, False)):
        assert compare("x", ones + error, ones, np.zeros(3)).passes is passes
    for error, passes in ((1.9e-6, True), (2.1e-6, False)):
        assert compare("eval/x", ones + error, ones, np.zeros(3)).passes is passes
    for error, passes in ((1e-2 + 0.9e-5, True), (1e-2 + 1.1e-5, False)):
        assert compare("x", ones + error, ones, np.full(3, 1e-3)).passes is passes


def test_the_noise_part_can_be_limited_to_a_share_of_the_magnitude():
    ones, noise = np.ones(3), np.full(3, 0.07)
    assert compare("x", ones * 1.5, ones, noise).passes
    assert not compare("x", ones * 1.0002, ones, noise, noise_limit=1e-4).passes
    assert compare("x", ones * 1.0001, ones, noise, noise_limit=1e-4).passes


def test_one_noise_for_all_shares_the_largest_magnitude():
    error = np.array([[3e-4, 0], [0, 0]])
    assert compare("x", GOLDEN + error, GOLDEN, np.array(0.0)).passes
    by_row = compare("x", GOLDEN + error, GOLDEN, np.zeros(2))
    assert by_row.failed == (0,)
    assert not compare("x", GOLDEN + error, GOLDEN, np.zeros((2, 2))).passes


def test_numbers_that_are_none_fail_and_integers_must_be_equal():
    assert compare("x", GOLDEN * [[1, 1], [np.nan, 1]], GOLDEN, None).failed == (1,)
    golden = np.array([8, 8])
    row = compare("x", golden, golden, None)
    assert (row.passes, row.entries, row.max_absolute, row.max_relative) == (True, 2, 0, 0)
    assert not compare("x", golden * 1.02, golden, None).passes


def test_the_file_may_hold_the_head_of_a_long_array():
    ours = np.arange(20.0).reshape(2, 10)
    assert compare("step0/logits_head", ours, ours[:, :4], None).passes
    assert not compare("step0/logits", ours, ours[:, :4], None).passes
    assert "ours is [2, 10], not [20]" in compare("x", ours, ours.ravel(), None).problem


def test_what_one_side_lacks_fails():
    assert "we compute nothing of this name" in compare("x", None, GOLDEN, None).problem
    assert "the original computes nothing of this" in compare("x", GOLDEN, None, None).problem


def test_many_quantities_in_one_row():
    rows = [compare(n, GOLDEN * f, GOLDEN, None) for n, f in (("a", 1.0), ("b", 1.1), ("c", 1.2))]
    row = merge("all", rows)
    assert row.problem == "b and 1 more"
    assert row.entries == 12
    assert row.max_relative == pytest.approx(0.2)
    assert "FAIL: b and 1 more" in table([row])
    assert merge("all", rows[:1]).passes
