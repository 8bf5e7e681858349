import jax
import jax.numpy as jnp
import pytest

from kamcl_jax.benchmark import roofline
from kamcl_jax.benchmark.roofline import Cost, compiled_cost, uncounted_loop_cost


def test_the_larger_of_compute_and_memory_bounds():
    cost = Cost(flops=8e9, bytes=2e9)
    assert cost.intensity == 4
    limit = roofline.roofline(cost, flops_per_second=4e9, bytes_per_second=1e9)
    assert (limit.compute_seconds, limit.memory_seconds) == (2, 2)
    slow_memory = roofline.roofline(cost, flops_per_second=4e9, bytes_per_second=0.5e9)
    assert (slow_memory.seconds, slow_memory.bound) == (4, "memory")
    slow_units = roofline.roofline(cost, flops_per_second=1e9, bytes_per_second=1e9)
    assert (slow_units.seconds, slow_units.bound) == (8, "compute")


def test_a_product_is_counted_by_xla():
    left, right = jnp.ones((8, 16)), jnp.ones((16, 4))
    cost = compiled_cost(jax.jit(jnp.matmul).lower(left, right).compile())
    assert cost.flops == pytest.approx(2 * 8 * 16 * 4, rel=0.05)
    assert cost.bytes >= 4 * (8 * 16 + 16 * 4 + 8 * 4)


def once(x, kernel):
    return jnp.tanh(x @ kernel)


X, KERNEL = jnp.ones((2, 8)), jnp.ones((8, 8))
FLOPS, BYTES = 2 * 2 * 8 * 8, 4 * (2 * 8 + 8 * 8 + 2 * 8)


def uncounted(function, *arguments, rounds=1):
    return uncounted_loop_cost(jax.jit(function).trace(*arguments).jaxpr, rounds)


def test_a_loop_of_known_length_adds_all_rounds_but_the_first():
    def scanned(x, kernel):
        return jax.lax.scan(lambda x, _: (once(x, kernel), None), x, length=5)[0]

    assert uncounted(scanned, X, KERNEL) == Cost(4 * FLOPS, 4 * BYTES)
    assert uncounted(once, X, KERNEL) == Cost(0, 0)  # that one is left to XLA


def test_a_loop_that_ends_by_the_data_adds_the_rounds_it_is_told():
    def looped(x, kernel, length):
        return jax.lax.fori_loop(0, length, lambda _, x: once(x, kernel), x)

    assert uncounted(looped, X, KERNEL, jnp.int32(3), rounds=3) == Cost(2 * FLOPS, 2 * BYTES)


def test_loops_within_loops_multiply():
    def nested(x, kernel):
        def inner(x, _):
            return jax.lax.scan(lambda x, _: (once(x, kernel), None), x, length=3)[0], None

        return jax.lax.scan(inner, x, length=2)[0]

    assert uncounted(nested, X, KERNEL).flops == 5 * FLOPS


def test_a_convolution_in_a_loop_counts_its_taps():
    images, kernel = jnp.ones((1, 6, 6, 3)), jnp.ones((3, 3, 3, 3))

    def convolved(x, _):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ), None

    def scanned(x):
        return jax.lax.scan(convolved, x, length=3)[0]

    assert uncounted(scanned, images).flops == 2 * (2 * 6 * 6 * 3 * 3 * 3 * 3)


def test_the_machine_is_measured(monkeypatch):
    monkeypatch.setattr(roofline, "matmul_side", lambda: 64)
    monkeypatch.setattr(roofline, "copied_bytes", lambda: 2**12)
    for action in roofline.machine_actions(jnp.float32).values():
        action()
    assert roofline.flops_per_second(2.0) == 64**3
    assert roofline.bytes_per_second(0.5) == 4 * 2**12
