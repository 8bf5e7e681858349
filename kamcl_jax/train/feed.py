"""Where the training split lies, on the host or on the devices, and how a step gets its batch.

`config.data.residency` decides. On the devices a batch is a few caption numbers, and the host
neither reads nor sends an image; on the host the split may be larger than any device.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from input_pipeline.splits import batches
from kamcl_jax.config import build
from kamcl_jax.config.build import Experiment
from kamcl_jax.parallel import compilation, mesh
from kamcl_jax.parallel.compilation import GB
from kamcl_jax.step import resident_batch
from kamcl_jax.step.resident_batch import CaptionNumbers

SHARE_OF_MEMORY = 0.6
"""How much of a device's memory 'auto' lets a step take together with the training split: the
evaluation and fragments need their room, too."""

Fetch = Callable[[int], Any]
"""Step number -> what the step takes beside the state."""


@dataclasses.dataclass(frozen=True)
class StepInput:
    """How a step gets its batch.

    Attributes:
      resident: Whether the training split lies on the devices.
      abstract: The shapes, dtypes and places of what the step takes beside the state.
      table_bytes: How many bytes of the training split lie on each device.
      limit: How many bytes the step may take on each device; None sets no limit.
      open: Reads what has to be there before the first step, and returns the function that
        fetches a step's input.
    """

    resident: bool
    abstract: Any
    table_bytes: int
    limit: int | None
    open: Callable[[], Fetch]

    def fits(self, peak: int) -> bool:
        """Whether a step that takes `peak` bytes on each device is within the limit."""
        return self.limit is None or peak <= self.limit

    def describe(self) -> str:
        """Returns the sentence that says where the training split lies."""
        if self.resident:
            return f"training data: {self.table_bytes / GB:.2f} GB in the memory of each device"
        return "training data: read by the host, a batch at a time"


def candidates(experiment: Experiment) -> list[StepInput]:
    """Returns what the config allows; the first one whose step fits is to be taken."""
    choice = experiment.config.data.residency
    if choice == "device":
        return [_on_devices(experiment, None)]
    if choice == "host":
        return [_on_host(experiment)]
    available = compilation.available_memory()
    # A CPU does not say how much memory it has: it is the host's, where images are mapped, not
    # read. Several processes must choose alike, though their devices may have different room; and
    # each would read all images instead of those of its own rows.
    if available is None or jax.process_count() > 1:
        return [_on_host(experiment)]
    on_devices = _on_devices(experiment, int(SHARE_OF_MEMORY * available))
    if not on_devices.fits(on_devices.table_bytes):  # there is no need to compile the step
        return [_on_host(experiment)]
    return [on_devices, _on_host(experiment)]


def _captions(experiment: Experiment) -> Callable[[int], np.ndarray]:
    """Returns the function from a step to the captions of this process's rows of the batch."""
    seed, size = experiment.config.seed, experiment.config.batch_size
    count = len(experiment.data.train.captions)
    rows = mesh.local_rows(experiment.layout, size)
    return lambda step: batches.batch_captions(seed, step, count, size)[rows]


def _on_host(experiment: Experiment) -> StepInput:
    examples, layout = experiment.data.train, experiment.layout

    def open_() -> Fetch:
        captions = _captions(experiment)
        texts = build.text_of_caption(experiment.config, experiment.data)
        return lambda step: mesh.put_batch(
            layout, batches.make_batch(examples, captions(step), texts)
        )

    return StepInput(False, experiment.abstract_batch(), 0, None, open_)


def _on_devices(experiment: Experiment, limit: int | None) -> StepInput:
    examples, layout, config = experiment.data.train, experiment.layout, experiment.config
    abstract = resident_batch.abstract(
        examples, config.batch_size, layout, config.loss.mask_false_negatives
    )

    def open_() -> Fetch:
        captions = _captions(experiment)
        texts = build.text_of_caption(config, experiment.data)
        tables = resident_batch.load(examples, layout, text_of_caption=texts)
        return lambda step: CaptionNumbers(
            tables, mesh.put_batch(layout, captions(step).astype(np.int32))
        )

    return StepInput(True, abstract, resident_batch.size_of(abstract.examples), limit, open_)
