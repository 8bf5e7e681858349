"""The training split in the devices' memory, where a batch is looked up by its caption numbers."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding

from input_pipeline.splits.examples import Examples
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step.encoding import Batch

CHUNK_BYTES = 16 * 2**20
"""The images that are on their way to the devices at once."""


_DTYPES = {
    "image_of_caption": np.int32,
    "tokens": np.int32,
    "lengths": np.int32,
    "word_concepts": np.uint8,
    "image_concepts": np.float32,
}


class ResidentExamples(struct.PyTreeNode):
    """A split of N images and M captions as tables on the devices; see `Examples`.

    Attributes:
      images: u8[N, R, R, 3].
      image_of_caption: i32[M].
      tokens: i32[M, T].
      lengths: i32[M].
      word_concepts: u8[M, C].
      image_concepts: f32[N, C].
      columns: What else a batch says of each caption: name -> [M].
    """

    images: Any
    image_of_caption: Any
    tokens: Any
    lengths: Any
    word_concepts: Any
    image_concepts: Any
    columns: dict[str, Any] = struct.field(default_factory=dict)


def gather(examples: ResidentExamples, captions: jax.Array) -> Batch:
    """Looks up pairs: what `make_batch` does on the host, as a pure function of arrays.

    Args:
      examples: The tables.
      captions: i32[B], rows of captions, all of them in range. Each brings its image.
    """

    def rows(table: jax.Array, numbers: jax.Array) -> jax.Array:
        return table.at[numbers].get(mode="promise_in_bounds", wrap_negative_indices=False)

    images = rows(examples.image_of_caption, captions)
    return {
        "image": rows(examples.images, images),
        "tokens": rows(examples.tokens, captions),
        "lengths": rows(examples.lengths, captions),
        "word_concepts": rows(examples.word_concepts, captions).astype(jnp.float32),
        "image_concepts": rows(examples.image_concepts, images),
        **{name: rows(column, captions) for name, column in examples.columns.items()},
    }


def make_look_up(layout: Layout) -> Callable[[ResidentExamples, jax.Array], Batch]:
    """Returns `gather`, jitted: every device has all tables and looks up its own rows of a batch.

    Args:
      layout: Where the batches of the training lie.
    """
    return jax.jit(gather, in_shardings=(layout.whole, layout.batch), out_shardings=layout.batch)


def table_bytes(examples: Examples, columns: Mapping[str, np.ndarray] | None = None) -> int:
    """Returns the bytes that the tables of a split take on each device; no image is read.

    Args:
      examples: The split.
      columns: See `ResidentExamples`.
    """
    arrays = {name: getattr(examples, name) for name in _DTYPES}
    sizes = [math.prod(x.shape) * np.dtype(_DTYPES[name]).itemsize for name, x in arrays.items()]
    pixels = math.prod(examples.images.shape) * examples.images.dtype.itemsize
    return pixels + sum(sizes) + sum(column.nbytes for column in (columns or {}).values())


def load(
    examples: Examples,
    layout: Layout,
    chunk_bytes: int = CHUNK_BYTES,
    columns: Mapping[str, np.ndarray] | None = None,
) -> ResidentExamples:
    """Reads a split into the memory of every device; the host never holds all of its images.

    Args:
      examples: The split. Each of several processes has all of it.
      layout: The layout of the training.
      chunk_bytes: The size of the images that the host reads at once.
      columns: See `ResidentExamples`.
    """
    put = partial(_put, place=layout.whole)
    return ResidentExamples(
        images=_put_in_chunks(examples.images, layout.whole, chunk_bytes),
        **{name: put(np.asarray(getattr(examples, name), _DTYPES[name])) for name in _DTYPES},
        columns={name: put(column) for name, column in (columns or {}).items()},
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
