"""The text of a compiled program, `compiled.as_text()`, as computations and operations."""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property


@dataclasses.dataclass(frozen=True)
class Array:
    """The dtype, as XLA writes it ("f32"), and the shape of an operand or a result."""

    dtype: str
    shape: tuple[int, ...]
    near: bool = False  # a TPU's program keeps it beside the units that compute, in VMEM

    @property
    def entries(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        if self.dtype in ("token", "opaque"):
            return 0
        bits = re.search(r"\d+", self.dtype)  # "pred" has none and takes a byte
        return self.entries * int(bits[0] if bits else 8) // 8


@dataclasses.dataclass(frozen=True)
class Operation:
    """One line of a computation.

    Attributes:
      name: Its name, without the percent sign.
      kind: What it does, like "fusion" or "custom-call".
      results: The arrays that it produces: all of a tuple, and of the tuples in that.
      operands: The names of the operations that it reads.
      attributes: The text after the operands.
      literal: The text of the operands, which has a parameter's number or a constant's value.
    """

    name: str
    kind: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    literal: str

    @property
    def target(self) -> str:
        """What a custom call calls; empty for all others."""
        return self._attribute(r'custom_call_target="([^"]*)"')

    @property
    def place(self) -> str:
        """Where it comes from in the traced program, like "jit(step)/jvp(Encoder)/layer/dot"."""
        return self._attribute(r'op_name="([^"]*)"')

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that a loop, a condition, a call or a fusion runs, in their order."""
        branches = self._attribute(r"branch_computations=\{([^}]*)\}")
        if branches:
            return tuple(_NAME.findall(branches))
        return tuple(
            re.findall(
                r"\b(?:condition|body|calls|to_apply|called_computations=\{|true_computation"
                r"|false_computation)=?%([\w.\-]+)",
                self.attributes,
            )
        )

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """Returns a list of numbers like `lhs_contracting_dims={1,2}`, or the form in JSON."""
        found = self._attribute(rf'{attribute}"?[=:][{{\[]([\d",]*)')
        return tuple(int(number) for number in re.findall(r"\d+", found))

    def window(self, attribute: str) -> tuple[int, ...]:
        """Returns an attribute of a convolution's window, like (3, 3) of `size=3x3`.

        Of `pad=1_2x0_1` these are the entries before and after each axis, (1, 2, 0, 1).
        """
        found = self._attribute(rf"window=\{{[^}}]*\b{attribute}=([-\d_x]+)")
        return tuple(int(number) for number in re.findall(r"-?\d+", found))

    def _attribute(self, pattern: str) -> str:
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Operations in the order in which they run; the last one that is marked so is the result."""

    name: str
    operations: tuple[Operation, ...]
    root: str

    @cached_property
    def by_name(self) -> dict[str, Operation]:
        """The operations by their names."""
        return {operation.name: operation for operation in self.operations}

    def operands(self, operation: Operation) -> tuple[Array, ...]:
        """Returns the arrays that an operation reads."""
        return tuple(array for name in operation.operands for array in self.by_name[name].results)


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations of a program; it starts with `entry`."""

    computations: dict[str, Computation]
    entry: Computation

    def called(self, operation: Operation) -> list[Computation]:
        """Returns the computations that an operation runs."""
        return [self.computations[name] for name in operation.called]

    def trips(self, loop: Operation) -> int | None:
        """Returns how often a loop runs; None where that depends on the data."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        # A TPU's program does not say it, but JAX counts from zero while "place < constant".
        condition = self.called(loop)[0]
        root = condition.by_name[condition.root]
        if root.kind != "compare" or "direction=LT" not in root.attributes:
            return None
        most = condition.by_name[root.operands[1]]
        return int(most.literal) if most.kind == "constant" else None


_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) .*->.*\{\s*$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_KIND = re.compile(r"\s*([\w\-]+)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*:T\([^}]*S\(1\)[^}]*\})?")


def parse(text: str) -> Program:
    """Reads what `compiled.as_text()` writes."""
    computations: dict[str, Computation] = {}
    entry = name = root = ""
    operations: list[Operation] = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name, operations = head[2], []
            entry = name if head[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, tuple(operations), root)
        elif name and (start := _LINE.match(line)):
            operations.append(_operation(start[2], line[start.end() :]))
            root = start[2] if start[1] else root
    return Program(computations, computations[entry])


def arrays(text: str) -> Iterator[Array]:
    """Yields the arrays of a type like `(f32[2,3]{1,0}, s32[])`."""
    for dtype, lengths, near in _ARRAY.findall(text):
        shape = tuple(int(length) for length in lengths.split(",") if length)
        yield Array(dtype, shape, bool(near))


def _operation(name: str, line: str) -> Operation:
    end = _closing(line) if line.startswith("(") else line.index(" ")
    results, rest = line[:end], line[end:]
    kind = _KIND.match(rest)
    assert kind, line
    rest = rest[kind.end() - 1 :]
    end = _closing(rest)
    literal, attributes = rest[1 : end - 1], rest[end:]
    operands = () if kind[1] == "constant" else tuple(_NAME.findall(literal))
    return Operation(name, kind[1], tuple(arrays(results)), operands, attributes, literal)


def _closing(text: str) -> int:
    """Returns the place after the parenthesis that closes the first one."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"a parenthesis does not close: {text[:80]}")
