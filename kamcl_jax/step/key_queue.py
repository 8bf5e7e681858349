"""The queue of past keys (MoCo; He et al. 2020), and which keys belong to a query."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from kamcl_jax.parallel.mesh import Layout

IMAGE_ID, TEXT_ID = "image_id", "text_id"
"""The entries of a batch that say which image and which text its pairs are of, i32[B] from 0. They
are there where something asks which keys belong together."""

UNKNOWN = -1
"""The id of the random keys that training starts with. Nothing else has it."""


class PairIds(struct.PyTreeNode):
    """The images and texts of R pairs.

    Attributes:
      image: i32[R], the image's row in its split.
      text: i32[R], the same number for equal captions.
    """

    image: jax.Array
    text: jax.Array

    @classmethod
    def of_batch(cls, batch: Mapping[str, jax.Array]) -> "PairIds":
        """Returns the ids that a batch carries."""
        return cls(batch[IMAGE_ID], batch[TEXT_ID])

    @classmethod
    def unknown(cls, count: int) -> "PairIds":
        """Returns the ids of `count` keys that belong to no pair."""
        # Two arrays: the state is donated, and no buffer can be donated twice.
        return cls(*(jnp.full((count,), UNKNOWN, jnp.int32) for _ in range(2)))


class KeyQueue(struct.PyTreeNode):
    """A ring buffer of past keys.

    Attributes:
      keys: f32[K, E], unit vectors.
      pointer: i32[], the row that the next batch of keys takes.
      ids: The pairs that the K keys come from; None where nothing asks for them.
    """

    keys: jax.Array
    pointer: jax.Array
    ids: PairIds | None = None


def random_queue(key: jax.Array, length: int, width: int, *, with_ids: bool = False) -> KeyQueue:
    """Returns a queue of random unit vectors f32[length, width], as training starts with.

    The queue keeps the ids of its keys' pairs if it is made `with_ids`.
    """
    keys = jax.random.normal(key, (length, width))
    keys /= jnp.linalg.norm(keys, axis=1, keepdims=True)
    return KeyQueue(keys, jnp.zeros((), jnp.int32), PairIds.unknown(length) if with_ids else None)


def push(queue: KeyQueue, keys: jax.Array, ids: PairIds | None = None) -> KeyQueue:
    """Replaces the oldest keys of a queue by new ones: first in, first out.

    Args:
      queue: The queue, of length K.
      keys: f32[B, E], unit vectors. They are stored without a gradient.
      ids: The pairs of the B keys. A queue that has no ids does not use them.
    """
    length, batch = queue.keys.shape[0], keys.shape[0]
    if batch > length:
        raise ValueError(f"a batch of {batch} keys does not fit into a queue of length {length}")
    rows = (queue.pointer + jnp.arange(batch)) % length

    # A scatter, which GSPMD splits along the queue without moving the queue.
    def write(stored: jax.Array, new: jax.Array) -> jax.Array:
        return stored.at[rows].set(new, unique_indices=True)

    return KeyQueue(
        write(queue.keys, jax.lax.stop_gradient(keys)),
        (queue.pointer + batch) % length,
        None if queue.ids is None else jax.tree.map(write, queue.ids, ids),
    )


class Sides(struct.PyTreeNode):
    """What keys are for the queries of a batch: a mask, or a share of each.

    Attributes:
      of_images: bool[B, K] or f32[B, K], what text key k is for image i.
      of_texts: Of the same type and shape, what image key k is for caption i.
    """

    of_images: jax.Array
    of_texts: jax.Array

    @property
    def per_query(self) -> jax.Array:
        """f32[], how many keys of a query a mask has on average."""
        count = self.of_images.sum(1, jnp.int32) + self.of_texts.sum(1, jnp.int32)
        return count.mean(dtype=jnp.float32) / 2

    def either(self, other: "Sides") -> "Sides":
        """Returns the mask of what is in this mask or in another one."""
        return jax.tree.map(jnp.logical_or, self, other)


def same_in_batch(batch: PairIds) -> Sides:
    """Says which other keys of a batch are of a query's image or of its text, see `same_in_queue`.

    Both sides are the same bool[B, B], False on the diagonal.
    """
    others = ~jnp.eye(len(batch.image), dtype=bool)
    same = _same_pair(batch, batch) & others
    return Sides(same, same)


def same_in_queue(
    batch: PairIds, image_queue: PairIds, text_queue: PairIds, layout: Layout | None = None
) -> Sides:
    """Says which past keys are of a query's image or of its text.

    A text key belongs to an image if it describes that image, or if it says what the image's own
    caption says. An image key belongs to a caption if the caption, or one that is equal, describes
    it.

    Args:
      batch: The ids of the B pairs.
      image_queue: The ids of the K past image keys.
      text_queue: The ids of the K past text keys.
      layout: Where the queues lie.
    """
    if layout is not None and layout.shard_queues:
        batch = jax.lax.with_sharding_constraint(batch, layout.whole)
    return Sides(of_images=_same_pair(batch, text_queue), of_texts=_same_pair(batch, image_queue))


def unfilled(batch_size: int, image_queue: PairIds, text_queue: PairIds) -> Sides:
    """Says which past keys are the random ones that training starts with, for B queries."""

    def rows(ids: PairIds) -> jax.Array:
        return jnp.broadcast_to(ids.image == UNKNOWN, (batch_size, len(ids.image)))

    return Sides(of_images=rows(text_queue), of_texts=rows(image_queue))


def joined(parts: list[Sides]) -> Sides:
    """Returns what several lists of keys are, one list after the other."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *masks: jnp.concatenate(masks, axis=1), *parts)


def _same_pair(queries: PairIds, keys: PairIds) -> jax.Array:
    """Says which of K keys are of a query's image or of its text -> bool[B, K]."""
    same_image = queries.image[:, None] == keys.image[None, :]
    return same_image | (queries.text[:, None] == keys.text[None, :])
