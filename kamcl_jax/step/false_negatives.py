"""Keys that are no negatives of a query: they are of its image, or of its text."""

import jax
import jax.numpy as jnp
from flax import struct

from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import pair_ids
from kamcl_jax.step.pair_ids import PairIds


class FalseNegatives(struct.PyTreeNode):
    """Keys that are left out of the negatives of a batch's queries.

    Attributes:
      of_images: bool[B, K], text keys that are none of image i's negatives.
      of_texts: bool[B, K], image keys that are none of caption i's negatives.
    """

    of_images: jax.Array
    of_texts: jax.Array

    @property
    def per_query(self) -> jax.Array:
        """How many keys a query leaves out, on average, f32[]."""
        count = self.of_images.sum(1, jnp.int32) + self.of_texts.sum(1, jnp.int32)
        return count.mean(dtype=jnp.float32) / 2


def find(
    batch: PairIds,
    image_queue: PairIds | None,
    text_queue: PairIds | None,
    layout: Layout | None = None,
) -> FalseNegatives:
    """Finds the keys that are of a query's image or of its text.

    Args:
      batch: of its B pairs.
      image_queue: of the K pairs that past image keys are of; None: the negatives are the other
        keys of the batch.
      text_queue: likewise of past text keys.
      layout: where queues lie.
    """
    if image_queue is None or text_queue is None:
        others = ~jnp.eye(len(batch.image), dtype=bool)
        left_out = pair_ids.same(batch, batch) & others
        return FalseNegatives(left_out, left_out)
    if layout is not None and layout.shard_queues:
        batch = jax.lax.with_sharding_constraint(batch, layout.whole)
    return FalseNegatives(
        of_images=pair_ids.same(batch, text_queue), of_texts=pair_ids.same(batch, image_queue)
    )
