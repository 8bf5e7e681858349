"""What a person watches while training runs: a progress bar and TensorBoard events."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from tensorboardX import SummaryWriter
from tqdm import tqdm

SHOWN_ON_BAR = ("loss", "triplet", "contrastive", "alignment")


class Progress:
    """Shows losses and speed on a bar and writes them to TensorBoard.

    Of several processes only the first one shows and writes.
    """

    def __init__(self, workdir: Path, *, first_step: int, last_step: int, shown: bool):
        """Opens the bar and the event file.

        Args:
          workdir: event files go to its `tensorboard` folder.
          first_step: already taken.
          last_step: at which training ends.
          shown: whether this process shows and writes anything.
        """
        self._bar = tqdm(
            total=last_step,
            initial=first_step,
            desc="training",
            unit="step",
            dynamic_ncols=True,
            disable=not shown,
        )
        self._folder = workdir / "tensorboard"
        self._writer: SummaryWriter | None = None
        if shown:
            with self._told():
                self._writer = SummaryWriter(
                    str(self._folder), purge_step=first_step + 1, write_to_disk=True
                )
        self._since = time.perf_counter()
        self._timed_steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        if self._writer:
            # What ended the block says more than the events that are lost with it.
            with contextlib.suppress(*([OSError] if kind else [])), self._told():
                self._writer.close()

    def step(self) -> None:
        """Counts a step."""
        self._bar.update()
        self._timed_steps += 1

    def train(self, step: int, means: Mapping[str, float], batch_size: int) -> None:
        """Reports the means of a logging interval, and the speed since the last one."""
        elapsed = time.perf_counter() - self._since
        speed = self._timed_steps * batch_size / elapsed
        self._bar.set_postfix_str(
            ", ".join(f"{name} {means[name]:.2f}" for name in SHOWN_ON_BAR)
            + f", {speed:.3g} images/s"
        )
        self._write("train", step, {**means, "images_per_second": speed})
        self.resume_clock()

    def validation(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Reports validation after so many epochs."""
        self._write("validation", step, metrics)
        recalls = "  ".join(
            f"{name} {value:.1f}" for name, value in metrics.items() if "_r" in name
        )
        self.say(f"epoch {epoch:.3g}: validation mR {metrics['mR']:.2f}  ({recalls})")

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
            with self._told():
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._folder)) from error
