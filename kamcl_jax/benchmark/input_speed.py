"""How fast training batches come out of the prepared data, without a step to use them."""

from collections.abc import Callable, Iterator
from functools import partial

import jax

from input_pipeline.splits import batches
from input_pipeline.splits.examples import Examples
from kamcl_jax.benchmark.trials import Action
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.mesh import Layout

IMAGES_A_TRIAL = 256


class Input:
    """Training batches in the order of a training, epoch after epoch.

    Attributes:
      images: that a trial reads.
    """

    def __init__(self, examples: Examples, seed: int, batch_size: int):
        """Takes a training split and the batches' size."""
        self._fetch = partial(_batch, examples, seed, batch_size)
        self._step = 0
        self._batches = -(-IMAGES_A_TRIAL // batch_size)
        self.images = self._batches * batch_size

    def _read(self) -> Iterator[batches.Batch]:
        first, self._step = self._step, self._step + self._batches
        yield from batches.prefetched(self._fetch, range(first, self._step))

    def read(self) -> None:
        """Reads the next batches, made ahead in a thread as in training."""
        for _ in self._read():
            pass

    def read_and_augment(self, augment: Callable[[jax.Array], jax.Array], layout: Layout) -> Action:
        """Returns what reads the next batches and makes them what the encoders see.

        That is all that the PyTorch original does in its data loader: images rotated, cropped and
        normalised. Here the device does it, in training within the step.

        Args:
          augment: from `step_parts.augmenter`.
          layout: where batches lie.
        """

        def run() -> None:
            for batch in self._read():
                jax.block_until_ready(augment(mesh.put_batch(layout, batch)["image"]))

        return run


def _batch(examples: Examples, seed: int, batch_size: int, step: int) -> batches.Batch:
    captions = batches.batch_captions(seed, step, len(examples.captions), batch_size)
    return batches.make_batch(examples, captions)
