"""What a person watches while training runs: a progress bar and TensorBoard events."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

SHOWN_ON_BAR = ("loss", "triplet", "contrastive", "alignment")


class Progress:
    """Shows losses and speed on a bar and writes them to TensorBoard, every so many steps.

    Metrics stay on the device between writes, so that watching does not make the device wait.
    """

    def __init__(
        self, workdir: Path, *, first_step: int, last_step: int, batch_size: int, log_every: int
    ):
        """Opens the bar and the event file.

        Args:
          workdir: event files go to its `tensorboard` folder.
          first_step: already taken.
          last_step: at which training ends.
          batch_size: images a step.
          log_every: steps between two writes.
        """
        self._bar = tqdm(
            total=last_step, initial=first_step, desc="training", unit="step", dynamic_ncols=True
        )
        self._writer = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=first_step + 1, write_to_disk=True
        )
        self._batch_size = batch_size
        self._log_every = log_every
        self._pending: list[Mapping[str, jax.Array]] = []
        self._since = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._writer.close()

    def step(self, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float] | None:
        """Takes one step's metrics; returns their means where a write is due."""
        self._bar.update()
        self._pending.append(metrics)
        return self.flush(step) if step % self._log_every == 0 else None

    def flush(self, step: int) -> dict[str, float] | None:
        """Writes the means of the metrics since the last write, if there are any."""
        if not self._pending:
            return None
        fetched = jax.device_get(self._pending)
        means = {name: float(np.mean([m[name] for m in fetched])) for name in fetched[0]}
        elapsed = time.perf_counter() - self._since
        means["images_per_second"] = len(fetched) * self._batch_size / elapsed
        self._bar.set_postfix_str(
            ", ".join(f"{name} {means[name]:.2f}" for name in SHOWN_ON_BAR)
            + f", {means['images_per_second']:.3g} images/s"
        )
        self._write("train", step, means)
        self._pending = []
        self.resume_clock()
        return means

    def validation(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Reports validation after so many epochs."""
        self._write("validation", step, metrics)
        recalls = "  ".join(
            f"{name} {value:.1f}" for name, value in metrics.items() if "_r" in name
        )
        self._bar.write(f"epoch {epoch:.3g}: validation mR {metrics['mR']:.2f}  ({recalls})")

    def resume_clock(self) -> None:
        """Starts timing anew, after work that is not training."""
        self._since = time.perf_counter()

    def _write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
