"""What a person watches while training runs: a progress bar and TensorBoard events."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from kamcl_jax.parallel import hosts

Row = dict[str, float]
"""The metrics of one step, or their means over some."""

COUNTS = ("skipped",)
"""Metrics that count over the whole training: the last value stands for an interval."""

# Without tqdm's own speed: the bar and its figures fit a terminal of 80 columns.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


@contextlib.contextmanager
def told_if_slow(sentence: str, seconds: float) -> Iterator[None]:
    """Prints a sentence if the block takes longer than this."""
    timer = threading.Timer(seconds, hosts.say, [sentence])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Progress:
    """Shows the loss and the speed on a bar, and writes all metrics to TensorBoard.

    Of several processes only the first one shows and writes.
    """

    def __init__(self, workdir: Path, first_step: int, last_step: int):
        """Opens the bar, with `first_step` steps taken, and a file in `workdir/tensorboard`."""
        self._bar = tqdm(
            total=last_step,
            initial=first_step,
            desc="training",
            bar_format=_BAR,
            dynamic_ncols=True,
            disable=not hosts.is_first(),
        )
        self._writer: SummaryWriter | None = None
        if hosts.is_first():
            self._writer = SummaryWriter(
                str(workdir / "tensorboard"), purge_step=first_step + 1, write_to_disk=True
            )
        self.resume_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        if self._writer:
            # What ended the block says more than the events that are lost with it.
            with contextlib.suppress(*([OSError] if kind else [])):
                self._writer.close()

    def step(self) -> None:
        """Counts a step."""
        self._bar.update()
        self._timed_steps += 1

    def train(self, step: int, means: Row, batch_size: int) -> None:
        """Reports the means of a logging interval, and the speed since the last one."""
        speed = self._timed_steps * batch_size / (time.perf_counter() - self._since)
        self._bar.set_postfix_str(f"loss {means['loss']:.2f}, {speed:.3g} images/s")
        self._write("train", step, {**means, "images_per_second": speed})
        self.resume_clock()

    def validation(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Reports the validation after so many epochs."""
        self._write("validation", step, metrics)
        recalls = "  ".join(
            f"{name} {value:.1f}" for name, value in metrics.items() if "_r" in name
        )
        mean = f"mR {metrics['mR']:.2f}"
        if "concept_map" in metrics:
            mean += f", concept mAP {metrics['concept_map']:.1f}"
        self.say(f"epoch {epoch:.3g}: validation {mean}  ({recalls})")
        self.resume_clock()

    def say(self, sentence: str) -> None:
        """Prints a line above the bar."""
        if self._writer:
            self._bar.write(sentence)

    def resume_clock(self) -> None:
        """Starts timing anew, after work that is not training."""
        self._since = time.perf_counter()
        self._timed_steps = 0

    def _write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)


def fetch(metrics: Sequence[Mapping[str, jax.Array]]) -> list[Row]:
    """Returns the metrics of some steps as numbers; this waits for the device."""
    return [
        {name: float(value) for name, value in of_step.items()}
        for of_step in jax.device_get(metrics)
    ]


def means(rows: list[Row]) -> Row | None:
    """Returns the means of an interval's metrics over the steps whose metrics are all finite.

    Counts are those of the last step. Where no step's metrics are finite, there are no means.
    """
    finite = [row for row in rows if all(map(math.isfinite, row.values()))]
    if not finite:
        return None
    of_all = {name: float(np.mean([row[name] for row in finite])) for name in finite[0]}
    return of_all | {name: rows[-1][name] for name in COUNTS if name in rows[-1]}
