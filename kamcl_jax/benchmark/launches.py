"""What one run of a compiled program launches: each kernel, how often, and the work that it does.

A GPU pays for each launch, however small, so a loop of many tiny steps can take longer than all of
the arithmetic. On other devices the same count tells how many operations run one after another.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from kamcl_jax.benchmark.accelerators import Accelerator
from kamcl_jax.benchmark.hlo import Array, Computation, Operation, Program
from kamcl_jax.models import gpo_kernels
from kamcl_jax.parallel.compilation import COLLECTIVES

GRU_STEP_SECONDS = 2e-6
"""A guess at one step of a recurrence inside one kernel: a tiny product, whose result the next one
waits for."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What a kernel does in one run; sums of several are the work of all."""

    products: float = 0  # operations of matrix products and convolutions
    precision: str = "float32"  # of these, a key of `Accelerator.flops`
    simple: float = 0  # all other operations on numbers, each counting as one
    bytes: float = 0  # read and written, as if no cache kept anything between two kernels
    latency: float = 0  # seconds below which it does not come, on any device

    def seconds(self, device: Accelerator) -> float:
        """Returns the least time that the device's data sheet allows for it, without its launch."""
        return max(
            self.products / device.flops[self.precision],
            self.simple / device.simple,
            self.bytes / device.memory_speed,
            self.latency,
        )


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of the program."""

    name: str
    place: str  # in the traced program
    trips: int
    known: bool  # whether the program says so; else the trips depend on the data


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An operation that a device is launched for.

    Attributes:
      name: The operation's name.
      place: Where it comes from in the traced program.
      times: How often one run of the program launches it.
      work: What each of these launches does.
      loops: The loops around it, the outermost first.
      uncounted: The name of the code in it whose arithmetic is not known; empty as a rule.
    """

    name: str
    place: str
    times: int
    work: Work
    loops: tuple[Loop, ...] = ()
    uncounted: str = ""

    @property
    def origin(self) -> str:
        """The place of the innermost loop, or its own.

        Loops share the kernels that are alike, and such a kernel has the place of only one of them.
        """
        return self.loops[-1].place if self.loops else self.place

    def seconds(self, device: Accelerator) -> float:
        """Returns the predicted time of all its launches."""
        return self.times * (device.launch + self.work.seconds(device))


def kernels(program: Program, unknown_trips: int) -> list[Kernel]:
    """Returns every kernel that one run of a program launches.

    A condition takes the branch with the most launches. An operation that starts here and ends
    there (`-start`, `-done`) is one. A sort is one: XLA sorts up to about 2,000 entries in one
    kernel, longer lists take more.

    Args:
      program: The compiled program.
      unknown_trips: How often each loop runs whose trips depend on the data.
    """
    return list(_kernels(program, program.entry, unknown_trips, 1, ()))


def launches(some: Iterable[Kernel]) -> int:
    """Returns how many launches these kernels are."""
    return sum(kernel.times for kernel in some)


def traffic(some: Iterable[Kernel]) -> float:
    """Returns how many bytes they read and write in all launches."""
    return sum(kernel.times * kernel.work.bytes for kernel in some)


def products(some: Iterable[Kernel]) -> float:
    """Returns the operations of their matrix products and convolutions in all launches."""
    return sum(kernel.times * kernel.work.products for kernel in some)


def seconds(some: Iterable[Kernel], device: Accelerator) -> float:
    """Returns the predicted time of all their launches, one after another."""
    return sum(kernel.seconds(device) for kernel in some)


def overlapped(program: Program) -> int:
    """Returns how many collectives have kernels between their start and their end."""
    count = 0
    for computation in program.computations.values():
        started: dict[str, bool] = {}
        for operation in computation.operations:
            if operation.kind.endswith("-done"):
                count += started.pop(operation.operands[0], False)
            elif _starts_to_send(program, operation):
                started[operation.name] = False
            elif operation.kind not in _FREE:
                started = dict.fromkeys(started, True)
    return count


def _starts_to_send(program: Program, operation: Operation) -> bool:
    kinds = [operation.kind.removesuffix("-start")]
    if operation.kind == "async-start":
        kinds = [inner.kind for called in program.called(operation) for inner in called.operations]
    return operation.kind.endswith("-start") and not COLLECTIVES.isdisjoint(kinds)


# They are names, constants or views, or what ends an operation that has been counted.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
    "add-dependency", "opt-barrier", "partition-id", "replica-id", "domain",
}  # fmt: skip

# They move numbers and compute none.
_MOVES = {
    *_FREE, "broadcast", "iota", "slice", "dynamic-slice", "dynamic-update-slice", "concatenate",
    "transpose", "reshape", "pad", "gather", "copy", "reverse", "bitcast-convert",
}  # fmt: skip

_PARTS = ("dynamic-slice", "slice", "gather")
"""They read no more of their first operand than they return."""

_CHANGED_BY = {"dynamic-update-slice": 1, "scatter": -1}
"""They change their first operand in place, where this operand says."""


def _kernels(
    program: Program, computation: Computation, unknown: int, times: int, around: tuple[Loop, ...]
) -> Iterator[Kernel]:
    for operation in computation.operations:
        kind = operation.kind
        if kind in _FREE or kind.endswith(("-done", "-update")):
            continue
        if kind == "while":
            trips = program.trips(operation)
            loop = Loop(operation.name, operation.place, trips or unknown, trips is not None)
            condition, body = program.called(operation)
            # The host runs a loop with a known number of trips without asking its condition.
            for part in [body] if loop.known else [body, condition]:
                inside = (*around, loop)
                yield from _kernels(program, part, unknown, times * loop.trips, inside)
        elif kind == "conditional":
            branches = [
                list(_kernels(program, branch, unknown, times, around))
                for branch in program.called(operation)
            ]
            yield from max(branches, key=launches)
        elif kind in ("call", "async-start"):
            for called in program.called(operation):
                yield from _kernels(program, called, unknown, times, around)
        else:
            work, uncounted = _work(program, computation, operation)
            yield Kernel(operation.name, operation.place, times, work, around, uncounted)


def _work(program: Program, computation: Computation, operation: Operation) -> tuple[Work, str]:
    """Returns the work of an operation, and the name of what is not counted in it."""
    if operation.kind == "fusion":
        return _fused_work(program, operation)
    work, uncounted = _arithmetic(operation, computation.operands(operation))
    read, written = _read(computation, operation), _written_by(program, computation, operation)
    return dataclasses.replace(work, bytes=read + written), uncounted


def _fused_work(program: Program, operation: Operation) -> tuple[Work, str]:
    """Returns the same of a fusion: it keeps all but parameters and result in registers."""
    (fused,) = program.called(operation)
    needed = _needed(program, fused)
    products, simple, precision, uncounted = 0.0, 0.0, "float32", ""
    moved = _written(program, fused, fused.by_name[fused.root])
    for inner in fused.operations:
        share = needed[inner.name] / max(_entries(inner), 1)
        if inner.kind == "parameter":
            moved += share * _size(inner.results)
            continue
        if inner.kind == "fusion":
            work, name = _fused_work(program, inner)
        else:
            work, name = _arithmetic(inner, fused.operands(inner))
        if work.products:
            products, precision = products + work.products, work.precision
        simple += share * work.simple
        uncounted = uncounted or name
    return Work(products, precision, simple, moved), uncounted


def _needed(program: Program, fused: Computation) -> dict[str, float]:
    """Returns how many entries of each value a fused computation takes to make its result.

    A large array of which only a slice goes into the result is not read as a whole, and one that is
    changed in place not at all.
    """
    needed = dict.fromkeys(fused.by_name, 0.0)
    needed[fused.root] = _entries(fused.by_name[fused.root])
    results = {fused.root}  # names of what is written, not only used
    for operation in reversed(fused.operations):
        kind, whole = operation.kind, _entries(operation)
        own = needed[operation.name] = min(needed[operation.name], whole)
        for place, name in enumerate(operation.operands):
            entries = _entries(fused.by_name[name])
            taken = entries * own / max(whole, 1)
            if kind in ("tuple", "bitcast") and operation.name in results:
                results.add(name)
            if kind == "tuple":
                taken = entries
            elif kind == "broadcast" or (kind in _PARTS and place == 0):
                taken = own
            elif kind in _CHANGED_BY and place == 0 and operation.name in results:
                taken = 0
            elif kind == "fusion":
                taken *= _share_needed(program, operation, place)
            needed[name] += taken
    return needed


def _share_needed(program: Program, operation: Operation, place: int) -> float:
    """Returns the share of one operand that a fusion reads."""
    (fused,) = program.called(operation)
    needed = _needed(program, fused)
    (parameter,) = (
        inner
        for inner in fused.operations
        if inner.kind == "parameter" and inner.literal == str(place)
    )
    return needed[parameter.name] / max(_entries(parameter), 1)


def _entries(operation: Operation) -> int:
    return sum(array.entries for array in operation.results)


def _arithmetic(operation: Operation, operands: tuple[Array, ...]) -> tuple[Work, str]:
    kind = operation.kind
    if kind == "custom-call":
        return _library_call(operation, operands)
    if kind == "dot":
        return _product(operation, operands, "lhs_contracting_dims"), ""
    if kind == "convolution":
        return _convolution(operation, operation.results[0], operands[0], operands[1]), ""
    if kind in _MOVES:
        return Work(), ""
    if kind in ("reduce", "reduce-window", "select-and-scatter"):
        return Work(simple=sum(array.entries for array in operands)), ""
    return Work(simple=operation.results[0].entries if operation.results else 0), ""


def _precision(operation: Operation, operands: tuple[Array, ...]) -> str:
    if operands[0].dtype in ("bf16", "f16"):
        return "bfloat16"
    highest = re.search(r'operand_precision"?[=:][{\[]"?highest', operation.attributes, re.I)
    return "float32 highest" if highest else "float32"


def _product(operation: Operation, operands: tuple[Array, ...], contracted: str) -> Work:
    """Returns the work of a matrix product; an attribute names the axes that are summed."""
    terms = math.prod(operands[0].shape[axis] for axis in operation.numbers(contracted))
    return Work(2.0 * operation.results[0].entries * terms, _precision(operation, operands))


def _convolution(operation: Operation, output: Array, given: Array, kernel: Array) -> Work:
    """Returns the work of a convolution, without products with padding or with spread-out zeros.

    A gradient spreads its input apart, and a TPU's program writes every product as a convolution,
    some with a window of which one place at a time lies on the input.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", operation.attributes)
    assert labels, operation.name
    of_input, of_kernel, of_output = (
        dict(zip(axes, array.shape, strict=True))
        for axes, array in zip(labels.groups(), (given, kernel, output), strict=True)
    )
    pairs = of_output["b"] * of_output["f"] * of_kernel["i"]
    for axis in filter(str.isdigit, of_kernel):
        stride, spread, apart = (
            (operation.window(name) or (1,) * (int(axis) + 1))[int(axis)]
            for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        padding = operation.window("pad")
        before = padding[2 * int(axis)] if padding else 0
        places = np.arange(of_output[axis])[:, None] * stride - before
        places = places + np.arange(of_kernel[axis]) * apart
        inside = (places >= 0) & (places <= (of_input[axis] - 1) * spread)
        pairs *= int(np.sum(inside & (places % spread == 0)))
    return Work(2.0 * pairs, _precision(operation, (given,)))


def _library_call(operation: Operation, operands: tuple[Array, ...]) -> tuple[Work, str]:
    target = operation.target
    if target.startswith("__cublas$"):
        return _product(operation, operands, "lhs_contracting_dimensions"), ""
    if target.startswith("__cudnn$conv"):
        result = operation.results[0]
        # Labels and window are those of the convolution whose gradient it may be.
        output, given, kernel = {
            "__cudnn$convBackwardInput": (operands[0], result, operands[1]),
            "__cudnn$convBackwardFilter": (operands[1], operands[0], result),
        }.get(target, (result, *operands[:2]))
        return _convolution(operation, output, given, kernel), ""
    if target in _TPU_NOTES:
        return Work(), ""
    named = re.search(r'\bname = "(\w+)"', operation.attributes)
    name = named[1] if named else pallas_name(operation.place) or target
    if name in PALLAS:
        return PALLAS[name](operands, operation.results), ""
    return Work(), name


_TPU_NOTES = (
    "AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "GatherScatterIndicesBitpacked"
)  # fmt: skip
"""Custom calls of a TPU's program that compute nothing."""


def pallas_name(place: str) -> str:
    """Returns the name of the Pallas kernel that a place in the traced program has, or nothing."""
    found = re.search(r"([\w.]+)/pallas_call", place)
    return found[1] if found else ""


def _count_ahead(operands: tuple[Array, ...], results: tuple[Array, ...]) -> Work:
    """A comparison for each entry of [rows, N] and item of its row, and two more within a tile.

    An H100's core compares half as many numbers a cycle as it adds (64 and 128), so a comparison
    counts as two. The sums that it guards are made beside it, by other units.
    """
    items = operands[0].shape[-1]
    comparisons = items + 2 * min(items, gpo_kernels.ITEMS)
    return Work(simple=2.0 * results[0].entries * comparisons)


def _gpo_gru(operands: tuple[Array, ...], results: tuple[Array, ...]) -> Work:
    """Recurrences over N states [..., N, H] side by side, with three products of H x H a state."""
    del operands
    *_, steps, hidden = results[0].shape
    return Work(
        simple=3.0 * results[0].entries * hidden * 2,
        latency=steps * GRU_STEP_SECONDS,
    )


PALLAS: dict[str, Callable[[tuple[Array, ...], tuple[Array, ...]], Work]] = {
    "count_ahead": _count_ahead,
    "gpo_gru_forward": _gpo_gru,
    "gpo_gru_backward": _gpo_gru,
}
"""What is not in a program's text: the arithmetic of our kernels, from operands and results.

The keys are the names that `pallas_call` is given. Bytes are counted as for all kernels: each
operand is read and each result written once.
"""


def _size(some: Iterable[Array]) -> int:
    return sum(array.bytes for array in some if not array.near)


def _read(computation: Computation, operation: Operation) -> float:
    """Returns the bytes that an operation reads, of a large array only the part that it needs."""
    if operation.kind in _PARTS:
        return _size(operation.results)
    operands = operation.operands[operation.kind in _CHANGED_BY :]
    return _size(array for name in operands for array in computation.by_name[name].results)


def _written_by(program: Program, computation: Computation, operation: Operation) -> float:
    """Returns the bytes that a kernel writes, of an array that it changes only the part."""
    kind, results = operation.kind, operation.results
    if kind == "fusion":
        (fused,) = program.called(operation)
        return _written(program, fused, fused.by_name[fused.root])
    if kind in _CHANGED_BY:
        return _size(computation.by_name[operation.operands[_CHANGED_BY[kind]]].results)
    if kind.endswith("-start"):
        # Some name their operands beside their results.
        return _size(results) - _size(computation.operands(operation)) or _size(results)
    # Libraries have room to work in beside their result, which need not be used.
    library = operation.target.startswith(("__cublas$", "__cudnn$"))
    return _size(results[:1] if library else results)


def _written(program: Program, fused: Computation, value: Operation) -> float:
    """Returns the bytes that a fused computation writes for a value that is its result."""
    if value.kind == "parameter":  # it lies there already
        return 0
    if value.kind in ("tuple", "bitcast"):
        return sum(_written(program, fused, fused.by_name[name]) for name in value.operands)
    written = _written_by(program, fused, value)
    if value.kind in _CHANGED_BY:
        written += _written(program, fused, fused.by_name[value.operands[0]])
    return written
