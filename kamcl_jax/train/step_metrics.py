"""The metrics of single steps, from the device to the mean of a logging interval."""

import math
from collections.abc import Mapping

import jax
import numpy as np

Row = dict[str, float]

COUNTS = ("skipped",)
"""Metrics that count over the whole training: the last value stands for an interval."""


class StepMetrics:
    """Collects the metrics of the steps of one logging interval.

    They stay on the device until they are asked for, so that watching does not make it wait.
    """

    def __init__(self, pending: list[Row]):
        """Starts with the rows of an interval that an earlier process began."""
        self._rows = list(pending)
        self._on_device: list[Mapping[str, jax.Array]] = []

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        """Adds a step's metrics, f32[] each."""
        self._on_device.append(metrics)

    def fetch(self) -> list[Row]:
        """Returns the rows of the steps added since the last call; waits for the device."""
        new = [
            {name: float(value) for name, value in metrics.items()}
            for metrics in jax.device_get(self._on_device)
        ]
        self._on_device = []
        self._rows += new
        return new

    @property
    def rows(self) -> list[Row]:
        """The rows of all steps of the interval that have been fetched."""
        return list(self._rows)

    def clear(self) -> None:
        """Begins the next interval."""
        self._rows = []


def means(rows: list[Row]) -> Row | None:
    """Returns the means of an interval's metrics over the steps whose metrics are all finite.

    Counts are of the last step. None, if no step's are finite.
    """
    finite = [row for row in rows if all(math.isfinite(value) for value in row.values())]
    if not finite:
        return None
    of_all = {name: float(np.mean([row[name] for row in finite])) for name in finite[0]}
    return of_all | {name: rows[-1][name] for name in COUNTS if name in rows[-1]}


def first_not_finite(rows: list[Row]) -> tuple[int, list[str]] | None:
    """Returns the index of the first row that has a number that is not finite, and which have."""
    for index, row in enumerate(rows):
        wrong = [name for name, value in row.items() if not math.isfinite(value)]
        if wrong:
            return index, wrong
    return None
