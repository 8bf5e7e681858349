"""What is timed beside the step: how fast batches are read, and a split is encoded and ranked."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax
import numpy as np

from input_pipeline.splits import batches
from input_pipeline.splits.examples import Examples
from kamcl_jax.benchmark.trials import Action
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step.encoding import Batch

IMAGES_A_TRIAL = 256

RSICD_TEST = (1093, 5465)
"""Images and captions of RSICD's test split, whose score matrix is ranked whatever the config."""


class BatchReader:
    """Reads training batches in the order of a training; a trial reads `images` of them.

    The `columns` are as in `make_batch`.
    """

    def __init__(
        self,
        examples: Examples,
        seed: int,
        batch_size: int,
        columns: Mapping[str, np.ndarray] | None = None,
    ):
        self._fetch = partial(_batch, examples, columns, seed, batch_size)
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

    def read_and_augment(self, augment: Callable[[Batch], jax.Array], layout: Layout) -> Action:
        """Returns what reads the next batches and makes them what the encoders see.

        The PyTorch original does both in its data loader: it rotates, crops and normalises there.
        """

        def run() -> None:
            for batch in self._read():
                jax.block_until_ready(augment(mesh.put_batch(layout, batch)))

        return run


def _batch(
    examples: Examples,
    columns: Mapping[str, np.ndarray] | None,
    seed: int,
    batch_size: int,
    step: int,
) -> batches.Batch:
    captions = batches.batch_captions(seed, step, len(examples.captions), batch_size)
    return batches.make_batch(examples, captions, columns)


@dataclasses.dataclass(frozen=True)
class SplitSample:
    """The part of a split that a trial encodes: its first images with all of their captions."""

    images: np.ndarray  # u8[N, S, S, 3]
    image_of_caption: np.ndarray  # int[M], 0 to N - 1
    tokens: np.ndarray  # i32[M, T]
    lengths: np.ndarray  # i32[M]
    word_concepts: np.ndarray  # u8[M, C]
    batch_size: int

    @property
    def captions(self) -> int:
        """The number of captions."""
        return len(self.lengths)


def first_captions(examples: Examples, captions: int, batch_size: int) -> SplitSample:
    """Returns as many of a split's first images as have at most that many captions, or one."""
    counts = np.bincount(examples.image_of_caption, minlength=len(examples.images))
    images = max(1, int(np.searchsorted(np.cumsum(counts), captions, side="right")))
    rows = np.flatnonzero(examples.image_of_caption < images)
    return SplitSample(
        images=np.asarray(examples.images[np.arange(images)]),
        image_of_caption=examples.image_of_caption[rows],
        tokens=examples.tokens[rows],
        lengths=examples.lengths[rows],
        word_concepts=examples.word_concepts[rows],
        batch_size=batch_size,
    )


def random_scores(images: int, captions: int) -> np.ndarray:
    """Returns a score matrix f32[images, captions] of normal numbers."""
    return np.random.default_rng(0).standard_normal((images, captions), np.float32)
