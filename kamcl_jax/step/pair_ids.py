"""Which image and which text a pair is of, so that keys of the same are no negatives of a query."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

IMAGE, TEXT = "image_id", "text_id"
"""Of a batch, where false negatives are left out: i32[B], from 0; see `make_batch`."""

UNKNOWN = -1
"""Of the random keys that training starts with: nothing is the same as they are."""


class PairIds(struct.PyTreeNode):
    """The images and texts of R pairs.

    Attributes:
      image: i32[R], the image's row in its split.
      text: i32[R], the same for equal captions; see `input_pipeline.language.texts`.
    """

    image: jax.Array
    text: jax.Array


def of_batch(batch: Mapping[str, jax.Array]) -> PairIds:
    """Returns the ids that a batch carries."""
    return PairIds(batch[IMAGE], batch[TEXT])


def unknown(count: int) -> PairIds:
    """Returns the ids of pairs that are no one's."""
    # Two arrays: the state is donated, and no buffer can be donated twice.
    return PairIds(*(jnp.full((count,), UNKNOWN, jnp.int32) for _ in range(2)))


def same(queries: PairIds, keys: PairIds) -> jax.Array:
    """Says which keys are of a query's image or of its text -> bool[B, K].

    The rule serves both directions. A text key is no negative of an image if it describes that
    image, or if it says what the image's own caption says. An image key is no negative of a
    caption if the caption describes it, or if a caption that is the same does.

    Args:
      queries: of B pairs, none of them unknown.
      keys: of K pairs.
    """
    same_image = queries.image[:, None] == keys.image[None, :]
    return same_image | (queries.text[:, None] == keys.text[None, :])
