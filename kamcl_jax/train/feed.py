"""Where the training split lies, on the host or on the devices, and how a step comes by its batch.

On the devices a batch is looked up by a few caption numbers, and the host neither reads nor sends
an image. On the host the split may be larger than any device. `config.data.residency` decides.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import jax
import numpy as np

from input_pipeline.splits import batches
from kamcl_jax.config import build
from kamcl_jax.config.build import Experiment
from kamcl_jax.parallel import compilation, mesh
from kamcl_jax.parallel.compilation import GB
from kamcl_jax.step import resident_batch
from kamcl_jax.step.encoding import Batch

SHARE_OF_MEMORY = 0.6
"""The share of a device that 'auto' lets a step take with the training split beside it: evaluation
and fragments need their room, too."""

Fetch = Callable[[int], Batch]
"""The number of a step -> its batch, on the devices."""

Columns = Mapping[str, np.ndarray]
"""What `build.caption_columns` returns."""


@dataclasses.dataclass(frozen=True)
class Feed:
    """How a training comes by its batches."""

    table_bytes: int  # of the training split on each device; 0 where the host reads it
    open: Callable[[], Fetch]  # reads what the first step needs; returns how to fetch a batch

    def describe(self) -> str:
        """Returns the sentence that says where the training split lies."""
        if self.table_bytes:
            return f"training data: {self.table_bytes / GB:.2f} GB in the memory of each device"
        return "training data: read by the host, a batch at a time"


def choose(experiment: Experiment, step_bytes: int) -> Feed:
    """Returns the feed that the config asks for; 'auto' takes the devices if there is room.

    Args:
      experiment: The training.
      step_bytes: What the step itself takes of each device.
    """
    choice = experiment.config.data.residency
    columns = build.caption_columns(experiment.config, experiment.data.train)
    table_bytes = resident_batch.table_bytes(experiment.data.train, columns)
    if choice == "device" or (choice == "auto" and _there_is_room(step_bytes + table_bytes)):
        return Feed(table_bytes, lambda: _from_devices(experiment, columns))
    return Feed(0, lambda: _from_host(experiment, columns))


def _there_is_room(needed: int) -> bool:
    available = compilation.available_memory()
    # A CPU says nothing of its memory: that is the host's, where images are mapped, not read.
    # Several processes must choose alike, though their devices may have different room; and each
    # would read all images, where on the host it reads those of its own rows.
    if available is None or jax.process_count() > 1:
        return False
    return needed <= SHARE_OF_MEMORY * available


def _captions(experiment: Experiment) -> Callable[[int], np.ndarray]:
    """Returns step -> the captions of this process's rows of the batch."""
    config, num_captions = experiment.config, len(experiment.data.train.captions)
    rows = mesh.local_rows(experiment.layout, config.batch_size)
    order = partial(batches.batch_captions, config.seed)
    return lambda step: order(step, num_captions, config.batch_size)[rows]


def _from_host(experiment: Experiment, columns: Columns) -> Fetch:
    train, layout, captions = experiment.data.train, experiment.layout, _captions(experiment)
    return lambda step: mesh.put_batch(layout, batches.make_batch(train, captions(step), columns))


def _from_devices(experiment: Experiment, columns: Columns) -> Fetch:
    train, layout, captions = experiment.data.train, experiment.layout, _captions(experiment)
    tables = resident_batch.load(train, layout, columns=columns)
    look_up = resident_batch.make_look_up(layout)
    return lambda step: look_up(tables, mesh.put_batch(layout, captions(step).astype(np.int32)))
