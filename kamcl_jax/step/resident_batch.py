"""The training split in the devices' memory: a step takes caption numbers and looks the rest up."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding

from input_pipeline.splits.examples import Examples
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import pair_ids
from kamcl_jax.step.encoding import Batch

CHUNK_BYTES = 16 * 2**20
"""Images that are on their way to the devices at once."""


class ResidentExamples(struct.PyTreeNode):
    """A split of N images and M captions as tables on the devices; see `Examples`.

    Attributes:
      images: u8[N, R, R, 3].
      image_of_caption: i32[M].
      tokens: i32[M, T].
      lengths: i32[M].
      word_concepts: u8[M, C].
      image_concepts: f32[N, C].
      text_of_caption: i32[M], as `equal_text_ids` returns it, if batches are to say which
        image and which text their pairs are of.
    """

    images: Any
    image_of_caption: Any
    tokens: Any
    lengths: Any
    word_concepts: Any
    image_concepts: Any
    text_of_caption: Any = None


class CaptionNumbers(struct.PyTreeNode):
    """What a step takes instead of a batch.

    Attributes:
      examples: the tables, the same for every step.
      captions: i32[B], rows of captions; each brings its image.
    """

    examples: ResidentExamples
    captions: Any


def gather(examples: ResidentExamples, captions: jax.Array) -> Batch:
    """Looks up the pairs of the given captions: `loader.make_batch` as a pure function of arrays.

    Args:
      examples: the tables.
      captions: i32[B], rows of captions, all of them in range.
    """

    def rows(table: jax.Array, numbers: jax.Array) -> jax.Array:
        return table.at[numbers].get(mode="promise_in_bounds", wrap_negative_indices=False)

    images = rows(examples.image_of_caption, captions)
    ids = {}
    if examples.text_of_caption is not None:
        ids = {pair_ids.IMAGE: images, pair_ids.TEXT: rows(examples.text_of_caption, captions)}
    return {
        "image": rows(examples.images, images),
        "tokens": rows(examples.tokens, captions),
        "lengths": rows(examples.lengths, captions),
        "word_concepts": rows(examples.word_concepts, captions).astype(jnp.float32),
        "image_concepts": rows(examples.image_concepts, images),
        **ids,
    }


def batch_of(numbers: CaptionNumbers, layout: Layout) -> Batch:
    """Returns a step's batch, split over the devices: each looks up its own rows.

    Args:
      numbers: placed by `places`.
      layout: of the training.
    """
    batch = gather(numbers.examples, numbers.captions)
    batch = jax.lax.with_sharding_constraint(batch, layout.batch)
    # Fused with what follows, the look-up could change its rounding.
    return jax.lax.optimization_barrier(batch)


def places(layout: Layout, with_texts: bool = False) -> CaptionNumbers:
    """Returns where tables and caption numbers lie: a copy on every device, and split over them.

    Args:
      layout: of the training.
      with_texts: whether the tables have `text_of_caption`.
    """
    tables = ResidentExamples(*(layout.whole,) * (7 if with_texts else 6))
    return CaptionNumbers(tables, layout.batch)


def abstract(
    examples: Examples, batch_size: int, layout: Layout, with_texts: bool = False
) -> CaptionNumbers:
    """Returns the shapes, dtypes and places of what a step takes; reads nothing.

    Args:
      examples: the training split.
      batch_size: over all devices.
      layout: of the training.
      with_texts: whether the tables have `text_of_caption`.
    """
    images, word_concepts = examples.images, examples.word_concepts
    width = word_concepts.shape[1]
    captions = jax.ShapeDtypeStruct(examples.image_of_caption.shape, jnp.int32)
    shapes = CaptionNumbers(
        ResidentExamples(
            images=jax.ShapeDtypeStruct(images.shape, images.dtype),
            image_of_caption=captions,
            tokens=jax.ShapeDtypeStruct(examples.tokens.shape, jnp.int32),
            lengths=jax.ShapeDtypeStruct(examples.lengths.shape, jnp.int32),
            word_concepts=jax.ShapeDtypeStruct(word_concepts.shape, word_concepts.dtype),
            image_concepts=jax.ShapeDtypeStruct((len(images), width), jnp.float32),
            text_of_caption=captions if with_texts else None,
        ),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    )
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        shapes,
        places(layout, with_texts),
    )


def size_of(examples: ResidentExamples) -> int:
    """Returns the bytes that tables, or their shapes, take on each device."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(examples))


def load(
    examples: Examples,
    layout: Layout,
    chunk_bytes: int = CHUNK_BYTES,
    text_of_caption: np.ndarray | None = None,
) -> ResidentExamples:
    """Reads a split into the memory of every device; the host never holds all of its images.

    Args:
      examples: the split; of several processes, each has all of it.
      layout: of the training.
      chunk_bytes: of images that the host reads at once.
      text_of_caption: see `ResidentExamples`.
    """
    texts = text_of_caption
    put = partial(_put, place=layout.whole)
    return ResidentExamples(
        images=_put_in_chunks(examples.images, layout.whole, chunk_bytes),
        image_of_caption=put(np.asarray(examples.image_of_caption, np.int32)),
        tokens=put(np.asarray(examples.tokens, np.int32)),
        lengths=put(np.asarray(examples.lengths, np.int32)),
        word_concepts=put(np.asarray(examples.word_concepts)),
        image_concepts=put(np.asarray(examples.image_concepts, np.float32)),
        text_of_caption=None if texts is None else put(np.asarray(texts, np.int32)),
    )


def _put(array: np.ndarray, place: NamedSharding) -> jax.Array:
    return jax.make_array_from_process_local_data(place, array, array.shape)


def _put_in_chunks(images: Any, place: NamedSharding, chunk_bytes: int) -> jax.Array:
    """Copies rows into one array on the devices, which each chunk's copy takes over (donation)."""
    count = len(images)
    rows = max(1, min(count, chunk_bytes // math.prod(images.shape[1:])))

    @partial(jax.jit, out_shardings=place)
    def zeros():
        return jnp.zeros(images.shape, images.dtype)

    @partial(jax.jit, out_shardings=place, donate_argnums=0)
    def write(whole, chunk, start):
        return jax.lax.dynamic_update_slice_in_dim(whole, chunk, start, axis=0)

    whole = zeros()
    for start in range(0, count, rows):
        first = min(start, count - rows)  # the last chunk is as long as the others: one program
        chunk = _put(np.asarray(images[first : first + rows]), place)
        # Waits: otherwise all chunks would be read before the first has been copied.
        whole = jax.block_until_ready(write(whole, chunk, np.int32(first)))
    return whole
