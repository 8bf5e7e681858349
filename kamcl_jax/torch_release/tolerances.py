"""Compares quantities with golden ones: tolerances from the original's own rounding noise."""

import dataclasses
import itertools

import numpy as np

NOISE_MULTIPLE = 10.0
"""Errors up to this many times the original's own float32 error are accepted."""

EVALUATION_FLOOR, FLOOR = 2e-6, 1e-5
"""Errors up to this share of a quantity's magnitude are accepted besides, for `eval/*` and else."""

QUEUES = ("/queue_image", "/queue_text")
HEADS = ("_head", *QUEUES)
"""Ends of the names of long arrays, of which a golden file keeps the first entries."""


@dataclasses.dataclass(frozen=True)
class Row:
    """The verdict on one quantity.

    Attributes:
      entries: How many numbers were compared.
      max_absolute: The largest absolute error.
      max_relative: The largest error relative to the magnitude that its tolerance is relative to.
      tolerance: The absolute tolerance of the entry that uses up most of its own.
      used: The share of that tolerance that the entry's error uses up; beyond 1 it fails.
      noise_ratio: That entry's error over the original's float32 noise; NaN where the noise is zero
        or not given.
      failed: Indices (along the first axis) of entries beyond their tolerance.
      problem: Why nothing was compared, "" if it was.
    """

    name: str
    entries: int
    max_absolute: float
    max_relative: float
    tolerance: float
    used: float
    noise_ratio: float
    failed: tuple[int, ...]
    problem: str = ""

    @property
    def passes(self) -> bool:
        """Whether every entry is within its tolerance."""
        return not self.failed and not self.problem


def compare(
    name: str,
    ours: np.ndarray | None,
    golden: np.ndarray | None,
    noise: np.ndarray | None,
    multiple: float = NOISE_MULTIPLE,
    noise_limit: float | None = None,
) -> Row:
    """Compares one quantity.

    Args:
      name: The quantity's name, which decides on the floor of its tolerance.
      ours: Our numbers, None if we have none of that name. Of `HEADS` the file may keep less than
        we have.
      golden: The original's numbers in float64, None if it has none. Integers must be equal.
      noise: The error of the original's own float32 run: one for each entry, one for each row, or
        one in all; None if the file has none.
      multiple: How many times the noise is accepted as error.
      noise_limit: The share of the magnitude that this part of the tolerance is cut to, if any.
    """
    if ours is None or golden is None:
        whose = "we compute" if ours is None else "the original computes"
        return _incomparable(name, golden, f"{whose} nothing of this name")
    golden, ours = np.atleast_1d(golden), np.atleast_1d(ours)
    fits = golden.shape == ours.shape
    if name.endswith(HEADS) and ours.ndim == golden.ndim:
        fits = bool(np.all(np.less_equal(golden.shape, ours.shape)))
    if not fits:
        return _incomparable(name, golden, f"ours is {list(ours.shape)}, not {list(golden.shape)}")
    ours = ours[tuple(slice(length) for length in golden.shape)].astype(np.float64)
    spread = _spread(noise, golden)
    scale = _scale(noise, np.abs(golden.astype(np.float64)))
    floor = EVALUATION_FLOOR if name.startswith("eval/") else FLOOR
    exact = np.issubdtype(golden.dtype, np.integer)
    from_noise = multiple * spread
    if noise_limit is not None:
        from_noise = np.minimum(from_noise, noise_limit * scale)
    tolerance = np.zeros(golden.shape) if exact else from_noise + floor * scale
    error = np.abs(ours - golden)
    beyond = ~(error <= tolerance)  # NaN fails
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(error == 0, 0, error / tolerance)
    worst = np.unravel_index(np.argmax(np.nan_to_num(shares, nan=np.inf)), golden.shape)
    rows = np.nonzero(beyond.reshape(len(golden), -1).any(axis=1))[0]
    return Row(
        name=name,
        entries=golden.size,
        max_absolute=float(error.max()),
        max_relative=float(np.max(error / np.where(scale > 0, scale, np.inf))),
        tolerance=float(tolerance[worst]),
        used=float(shares[worst]),
        noise_ratio=float(error[worst] / spread[worst]) if spread[worst] > 0 else np.nan,
        failed=tuple(int(row) for row in rows),
    )


def merge(name: str, rows: list[Row]) -> Row:
    """Returns one row for many quantities: their largest errors, and which of them fail."""
    failed = [row for row in rows if not row.passes]
    worst = max(rows, key=lambda row: row.max_relative)
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return dataclasses.replace(
        worst,
        name=name,
        entries=sum(row.entries for row in rows),
        max_absolute=max(row.max_absolute for row in rows),
        failed=(),
        problem=f"{failed[0].name}{more}" if failed else "",
    )


def table(rows: list[Row]) -> str:
    """Returns one line for each quantity, as Markdown that also reads well in a terminal."""
    head = ["quantity", "numbers", "max abs error", "max rel error", "tolerance", "used"]
    head += ["error / noise", ""]
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # The first and the last column hold words, the others numbers.
    line = " | ".join(["| {:<{}}", *["{:>{}}"] * 6, "{:<{}} |"])
    first, *rest = (line.format(*itertools.chain(*zip(row, widths, strict=True))) for row in cells)
    return "\n".join([first, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rest])


def _cells(row: Row) -> list[str]:
    ratio = "-" if np.isnan(row.noise_ratio) else f"{row.noise_ratio:.2g}"
    numbers = [f"{x:.2e}" for x in (row.max_absolute, row.max_relative, row.tolerance)]
    verdict = f"FAIL: {row.problem}" if row.problem else "ok" if row.passes else "FAIL"
    used = "-" if np.isnan(row.used) else f"{row.used:.2g}"
    return [row.name, str(row.entries), *numbers, used, ratio, verdict]


def _incomparable(name: str, golden: np.ndarray | None, problem: str) -> Row:
    entries = 0 if golden is None else np.asarray(golden).size
    nan = float("nan")
    return Row(name, entries, nan, nan, nan, nan, nan, (), problem)


def _spread(noise: np.ndarray | None, golden: np.ndarray) -> np.ndarray:
    noise = np.asarray(0.0 if noise is None else noise, np.float64)
    return np.broadcast_to(
        noise.reshape(noise.shape + (1,) * (golden.ndim - noise.ndim)), golden.shape
    )


def _scale(noise: np.ndarray | None, magnitude: np.ndarray) -> np.ndarray:
    """Returns what a tolerance is relative to: the largest entry of those that share a noise."""
    shared = 0 if noise is None else np.ndim(noise)
    largest = magnitude.max(axis=tuple(range(shared, magnitude.ndim)), keepdims=True)
    return np.broadcast_to(largest, magnitude.shape)
