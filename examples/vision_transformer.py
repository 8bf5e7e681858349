"""A vision transformer (Dosovitskiy et al. 2021) that takes the place of KAMCL's image encoder.

`--config.image_encoder.module=examples.vision_transformer:VisionTransformer` trains with it.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models.towers import ConceptHead, Encoded


class Block(nn.Module):
    """Self-attention and an MLP, each with a normalisation before it and a residual beside it."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B, P, W] to the same shape."""
        x += nn.MultiHeadDotProductAttention(self.heads, name="attention")(nn.LayerNorm()(x))
        width = x.shape[-1]
        hidden = nn.gelu(nn.Dense(4 * width, name="expand")(nn.LayerNorm()(x)))
        return x + nn.Dense(width, name="reduce")(hidden)


class VisionTransformer(nn.Module):
    """Embeds patches, applies blocks, averages the patches and adds the concept head.

    The first two attributes come from the data and the config, the others from
    `config.image_encoder.options`.

    Attributes:
      num_concepts: How many concepts the head predicts.
      embedding_size: The width of the embedding.
      patch_size: The side of a patch in pixels, which divides that of the image.
      width: The width of the blocks.
      depth: How many blocks there are.
      heads: How many heads the attention of each block has; it divides the width.
      rematerialise: Whether the backward pass computes blocks again instead of keeping them.
    """

    num_concepts: int
    embedding_size: int
    patch_size: int = 8
    width: int = 96
    depth: int = 4
    heads: int = 4
    rematerialise: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Encoded:
        """Encodes images f32[B, S, S, 3] of the size S that the parameters were made for."""
        del train  # nothing is dropped, and there are no running statistics
        side = (self.patch_size, self.patch_size)
        if images.shape[1] % self.patch_size:
            raise ValueError(f"patches of {side} do not fill images of {images.shape[1:3]}")
        x = nn.Conv(self.width, side, side, name="patches")(images)
        x = x.reshape(x.shape[0], -1, self.width)
        places = self.param("positions", nn.initializers.normal(0.02), x.shape[1:], jnp.float32)
        x += places.astype(x.dtype)
        block = nn.remat(Block) if self.rematerialise else Block
        for number in range(self.depth):
            x = block(self.heads, name=f"block{number}")(x)
        pooled = nn.LayerNorm(name="norm")(x).mean(axis=1)
        latent = nn.Dense(self.embedding_size, name="to_embedding")(pooled)
        return ConceptHead(self.num_concepts, name="concept_head")(latent)
