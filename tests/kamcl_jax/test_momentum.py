from collections import deque

import jax
import numpy as np
import pytest

from kamcl_jax import momentum


def test_average_is_a_convex_combination_of_every_leaf():
    key = {"a": np.array([1.0, 2.0]), "b": {"c": np.array(4.0)}}
    query = {"a": np.array([3.0, 0.0]), "b": {"c": np.array(0.0)}}
    result = momentum.average(key, query, 0.75)
    np.testing.assert_allclose(result["a"], [1.5, 1.5])
    np.testing.assert_allclose(result["b"]["c"], 3.0)


def test_average_refuses_trees_that_differ():
    with pytest.raises(ValueError, match=r"structure|mismatch|Dict key"):
        momentum.average({"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2)}, 0.9)


def test_queue_is_a_ring_buffer():
    queue = momentum.random_queue(jax.random.key(0), 6, 3)
    np.testing.assert_allclose(np.linalg.norm(queue.keys, axis=1), 1, rtol=1e-6)
    expected = deque(np.asarray(queue.keys), maxlen=6)
    for number in range(5):
        keys = np.full((2, 3), number, np.float32)
        queue = momentum.push(queue, keys)
        expected.extend(keys)
    stored = np.roll(queue.keys, -int(queue.pointer), axis=0)
    np.testing.assert_array_equal(stored, np.stack(expected))


def test_no_gradient_through_pushed_keys():
    queue = momentum.random_queue(jax.random.key(0), 4, 3)
    gradient = jax.grad(lambda keys: momentum.push(queue, keys).keys.sum())(np.ones((2, 3), "f"))
    assert not np.any(gradient)
