"""Training batches as a pure function of (seed, step), and their prefetching."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np

from input_pipeline.splits.examples import Examples

Batch = dict[str, np.ndarray]
T = TypeVar("T")


@lru_cache(maxsize=2)
def caption_order(seed: int, epoch: int, num_captions: int) -> np.ndarray:
    """Returns the order in which an epoch shows the captions, a permutation int64[num_captions]."""
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(num_captions)
    order.flags.writeable = False
    return order


def batch_captions(seed: int, step: int, num_captions: int, batch_size: int) -> np.ndarray:
    """Returns the captions of batch number `step`, counted from 0 over all epochs.

    Every epoch takes the captions in its own order and leaves out those that do not fill a last
    batch. Nothing but the arguments matters, so a resumed run goes on as if never stopped.

    Returns:
      int64[batch_size]; the batch is that of all hosts.
    """
    epoch, position = divmod(step, num_captions // batch_size)
    order = caption_order(seed, epoch, num_captions)
    return order[position * batch_size : (position + 1) * batch_size]


def make_batch(
    examples: Examples, captions: np.ndarray, columns: Mapping[str, np.ndarray] | None = None
) -> Batch:
    """Reads the pairs of the given captions.

    Args:
      examples: The split.
      captions: int64[B], rows of captions; each brings its image.
      columns: What else the batch says of each caption: name -> [M], rows for all captions.

    Returns:
      image: uint8[B, R, R, 3]; tokens: i32[B, T], 0 = padding; lengths: i32[B]; word_concepts:
      f32[B, N], concepts that the caption names; image_concepts: f32[B, N], the image's labels.
      With `columns` also what they have of the captions, under their names.
    """
    images = examples.image_of_caption[captions]
    return {
        "image": examples.images[images],
        "tokens": examples.tokens[captions],
        "lengths": examples.lengths[captions],
        "word_concepts": examples.word_concepts[captions].astype(np.float32),
        "image_concepts": examples.image_concepts[images],
        **{name: column[captions] for name, column in (columns or {}).items()},
    }


def prefetched(fetch: Callable[[int], T], steps: Iterable[int], depth: int = 2) -> Generator[T]:
    """Yields fetch(step) for each step in order, up to `depth` of them made ahead in a thread."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        pending: deque = deque()
        for step in steps:
            pending.append(worker.submit(fetch, step))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
