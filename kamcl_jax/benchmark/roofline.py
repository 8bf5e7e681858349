"""What a compiled program computes and moves, and how near to the machine's limits it comes."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from kamcl_jax.benchmark.trials import Action

MATMUL, COPY = "matrix product", "copy"
"""The two actions that measure the machine."""

_PRODUCTS = ("dot_general", "conv_general_dilated")


@dataclasses.dataclass(frozen=True)
class Cost:
    """The work of a program on one device."""

    flops: float
    bytes: float  # read and written by all operations, as if no cache were there between them

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __truediv__(self, devices: int) -> "Cost":
        return Cost(self.flops / devices, self.bytes / devices)

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least time that the machine's measured rates allow for a cost (Williams et al. 2009)."""

    compute_seconds: float  # of the operations, at the rate of a matrix product
    memory_seconds: float  # of the bytes, at the rate of a copy

    @property
    def seconds(self) -> float:
        """The longer one of the two."""
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def bound(self) -> str:
        """Which one that is, "compute" or "memory"."""
        return "compute" if self.compute_seconds >= self.memory_seconds else "memory"


def compiled_cost(compiled: Any) -> Cost:
    """Returns XLA's analysis of an executable; it counts the body of a loop once."""
    analysis = compiled.cost_analysis()
    return Cost(float(analysis["flops"]), float(analysis["bytes accessed"]))


def uncounted_loop_cost(jaxpr: Any, while_rounds: int) -> Cost:
    """Returns the cost of matrix products and convolutions in loops beyond the first round.

    XLA's analysis leaves them out, and the loops' elementwise operations, too.

    Args:
      jaxpr: The traced program, a `ClosedJaxpr`: over all devices, where XLA's is of one.
      while_rounds: The rounds of every loop whose rounds depend on the data.
    """
    total = Cost(0.0, 0.0)
    for equation, times in _products(jaxpr.jaxpr, while_rounds, 1):
        one = _product_cost(equation)
        total += Cost((times - 1) * one.flops, (times - 1) * one.bytes)
    return total


def _products(jaxpr: Any, while_rounds: int, times: int) -> Iterator[tuple[Any, int]]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _PRODUCTS:
            yield equation, times
        rounds = {"scan": equation.params.get("length", 1), "while": while_rounds}.get(name, 1)
        for inner in _inner(equation.params.values()):
            yield from _products(inner, while_rounds, times * rounds)


def _inner(values: Any) -> Iterator[Any]:
    """Yields the programs among an equation's parameters."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _inner(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):
            yield value.jaxpr


def _product_cost(equation: Any) -> Cost:
    left, right = (variable.aval for variable in equation.invars)
    (result,) = (variable.aval for variable in equation.outvars)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        terms = math.prod(left.shape[axis] for axis in contracted)
    else:
        kernel = equation.params["dimension_numbers"].rhs_spec
        outputs = right.shape[kernel[0]]
        terms = right.size // outputs // math.prod(equation.params["lhs_dilation"])
    moved = sum(x.size * x.dtype.itemsize for x in (left, right, result))
    return Cost(2.0 * result.size * terms, float(moved))


def matmul_side() -> int:
    """Returns the side of the square matrices that are multiplied."""
    return 2048 if jax.default_backend() == "cpu" else 8192


def copied_bytes() -> int:
    """Returns the size of the array that is copied; far more than any cache holds."""
    return 2**28 if jax.default_backend() == "cpu" else 2**30


def machine_actions(dtype: DTypeLike) -> dict[str, Action]:
    """Returns what measures one device at its best: a matrix product of that dtype, and a copy."""
    side = matmul_side()
    matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    array = jnp.ones(copied_bytes() // 4, jnp.float32)
    multiply = jax.jit(lambda x: x @ x)
    # A sign change, as XLA may leave out a mere copy; both read and write all of the array.
    copy = jax.jit(jnp.negative)
    return {
        MATMUL: lambda: jax.block_until_ready(multiply(matrix)),
        COPY: lambda: jax.block_until_ready(copy(array)),
    }


def flops_per_second(matmul_seconds: float) -> float:
    """Returns the rate of the matrix product, a multiplication and an addition counting as two."""
    return 2 * matmul_side() ** 3 / matmul_seconds


def bytes_per_second(copy_seconds: float) -> float:
    """Returns the rate of the copy, what is read and what is written both counting."""
    return 2 * copied_bytes() / copy_seconds
