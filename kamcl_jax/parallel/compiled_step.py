"""Compiles the training step before the first batch; what it needs of memory and of the network."""

import dataclasses
import math
import re
from typing import Any

import jax

from kamcl_jax.parallel.mesh import Layout

GB = 1e9


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that a compiled step takes on each device, from XLA's own plan.

    Attributes:
      arguments: the state and a batch.
      results: the state after the step, the metrics.
      reused: results that take the place of arguments (the donated state).
      temporary: activations, gradients and whatever else lives within the step.
    """

    arguments: int
    results: int
    reused: int
    temporary: int

    @property
    def peak(self) -> int:
        """All that is there at once."""
        return self.arguments + self.results - self.reused + self.temporary


def compile_step(step: Any, abstract_state: Any, abstract_batch: Any, layout: Layout) -> Any:
    """Compiles a jitted training step for the shapes it will see.

    Args:
      step: from `train_step.make_train_step`.
      abstract_state: shapes of the state.
      abstract_batch: shapes of a batch.
      layout: where both lie.

    Returns:
      The executable, called as the step.
    """
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.batch), abstract_batch
    )
    return step.lower(abstract_state, batch).compile()


def memory(compiled: Any) -> StepMemory:
    """Returns the memory of an executable on each device."""
    stats = compiled.memory_analysis()
    return StepMemory(
        arguments=stats.argument_size_in_bytes,
        results=stats.output_size_in_bytes,
        reused=stats.alias_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
    )


def describe(taken: StepMemory, layout: Layout, table_bytes: int = 0) -> str:
    """Returns the sentence that training starts with.

    Args:
      taken: by the step.
      layout: of the training.
      table_bytes: of the training data that lie on each device beside the step.
    """
    devices, peak = layout.mesh.size, taken.peak + table_bytes
    of_tables = f"{table_bytes / GB:.2f} for the training data, " if table_bytes else ""
    sentence = (
        f"a step takes {peak / GB:.2f} GB on "
        f"{'one device' if devices == 1 else f'each of {devices} devices'}: "
        f"{taken.arguments / GB:.2f} for state and batch, {of_tables}"
        f"{taken.temporary / GB:.2f} within the step"
    )
    available = available_memory()
    if available is None:
        return sentence
    short = "" if peak <= available else "; it will not fit"
    return f"{sentence}; the device has {available / GB:.2f} GB{short}"


def available_memory() -> int | None:
    """Returns the bytes of an accelerator that JAX may use; None where it does not say (CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


@dataclasses.dataclass(frozen=True)
class Collective:
    """One array that a compiled program sends between devices.

    Attributes:
      kind: as "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute".
      dtype: XLA's name, as "f32".
      shape: of the result on each device.
      channel: number of the operation that sends it; one operation may send several arrays.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    channel: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the result on each device."""
        bits = int(re.sub(r"\D", "", self.dtype) or 8)  # "pred" has no number
        return math.prod(self.shape) * bits // 8

    def sent(self, devices: int) -> float:
        """Returns the bytes that each of a ring of devices sends."""
        if self.kind == "reduce-scatter":  # its result is a share
            return (devices - 1) * self.size
        if self.kind == "collective-permute":
            return self.size
        # An all-reduce is a reduce-scatter and an all-gather.
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * self.size * (devices - 1) / devices


_COLLECTIVE = re.compile(
    r"= (?P<results>\(.*?\)|\S+) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")


def collectives(program: str) -> list[Collective]:
    """Returns every array that a program's collectives produce.

    Args:
      program: the text of a compiled program's HLO, `compiled.as_text()`.
    """
    found, seen = [], set()
    for match in _COLLECTIVE.finditer(program):
        end = program.find("\n", match.end())
        named = _CHANNEL.search(program, match.end(), len(program) if end < 0 else end)
        channel = int(named[1]) if named else None
        # A TPU's program writes one that overlaps with computation several times.
        if channel is not None and channel in seen:
            continue
        seen.add(channel)
        for dtype, lengths in _ARRAY.findall(match["results"]):
            shape = tuple(int(length) for length in lengths.split(",") if length)
            found.append(Collective(match["kind"], dtype, shape, channel))
    return found
