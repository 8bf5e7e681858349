import jax
import jax.numpy as jnp
import pytest

from kamcl_jax.benchmark.roofline import Cost, Roofline, compiled_cost, uncounted_loop_cost


def test_the_larger_of_compute_and_memory_bounds():
    slow_memory, slow_units = Roofline(2.0, 4.0), Roofline(8.0, 2.0)
    assert (slow_memory.seconds, slow_memory.bound) == (4, "memory")
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


def scanned(x, kernel, rounds=5):
    return jax.lax.scan(lambda x, _: (once(x, kernel), None), x, length=rounds)[0]


def nested(x, kernel):
    return jax.lax.scan(lambda x, _: (scanned(x, kernel, 3), None), x, length=2)[0]


def looped(x, kernel):
    """Ends by the data."""
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: once(x, kernel), x)


@pytest.mark.parametrize(
    ("function", "rounds"),
    [(once, 0), (scanned, 4), (nested, 5), (looped, 2)],  # the first round is left to XLA
)
def test_rounds_beyond_the_first_are_added(function, rounds):
    assert uncounted(function, X, KERNEL, rounds=3) == Cost(rounds * FLOPS, rounds * BYTES)


def test_a_convolution_in_a_loop_counts_its_taps():
    images, kernel = jnp.ones((1, 6, 6, 3)), jnp.ones((3, 3, 3, 3))

    def convolved(x, _):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ), None

    def repeated(x):
        return jax.lax.scan(convolved, x, length=3)[0]

    assert uncounted(repeated, images).flops == 2 * (2 * 6 * 6 * 3 * 3 * 3 * 3)
