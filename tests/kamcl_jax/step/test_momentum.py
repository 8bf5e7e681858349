import jax
import numpy as np
import pytest

from kamcl_jax.step import momentum


def test_average_is_a_convex_combination_of_every_leaf():
    key = {"a": np.array([1.0, 2.0]), "b": {"c": np.array(4.0)}}
    query = {"a": np.array([3.0, 0.0]), "b": {"c": np.array(0.0)}}
    result = momentum.average(key, query, 0.75)
    np.testing.assert_allclose(result["a"], [1.5, 1.5])
    np.testing.assert_allclose(result["b"]["c"], 3.0)


def test_with_a_mask_the_marked_leaves_move_and_the_others_stay():
    key = {"a": np.array([1.0, 2.0]), "b": {"c": np.array([4.0]), "d": np.array([7.0])}}
    query = {"a": np.array([3.0, 0.0]), "b": {"c": np.array([0.0]), "d": np.array([-1.0])}}
    mask = {"a": False, "b": {"c": True, "d": False}}
    result = momentum.average(key, query, 0.75, lambda _: mask)
    assert jax.tree.map(np.ndarray.tolist, result) == {"a": [1, 2], "b": {"c": [3], "d": [7]}}


def test_without_momentum_the_marked_leaves_are_copies():
    # key + (query - key) would lose what the query has beside 1e30.
    key = [np.float32([1 / 3, 1e30]), np.float32([1 / 3, 1e30])]
    query = [np.float32([0.1, 1 / 7]), np.float32([5, 6])]
    result = momentum.average(key, query, 0.0, lambda _: [True, False])
    np.testing.assert_array_equal(result, [query[0], key[1]])


def test_average_refuses_trees_that_differ():
    with pytest.raises(ValueError, match=r"structure|mismatch|Dict key"):
        momentum.average({"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2)}, 0.9)
