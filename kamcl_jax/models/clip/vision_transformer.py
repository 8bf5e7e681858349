"""The vision transformers of CLIP and of SigLIP."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models.clip.transformer import Attention, Mlp, Transformer, layer_norm, normal
from kamcl_jax.models.layers import plus


class ClipVisionTransformer(nn.Module):
    """CLIP's vision transformer: the class token after the last block, projected.

    Attributes:
      transformer: The blocks, of width D.
      patch: The side of the patches in pixels.
      embedding_size: E.
    """

    transformer: Transformer
    patch: int
    embedding_size: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps [B, S, S, 3] to [B, E]; training is no different."""
        del train
        width, epsilon = self.transformer.sizes.width, self.transformer.epsilon
        init = normal(width**-0.5)
        patches = Patches(width, self.patch, bias=False, name="patches")(images)
        nothing = jnp.zeros_like(patches[:, :1])
        first = plus(nothing, self.param("class_embedding", init, (width,)))
        tokens = jnp.concatenate([first, patches], axis=1)
        tokens = plus(tokens, self.param("positions", init, tokens.shape[1:]))
        tokens = self.transformer(layer_norm(epsilon, "norm_before")(tokens))
        image = layer_norm(epsilon, "norm")(tokens[:, 0])
        project = nn.Dense(self.embedding_size, use_bias=False, kernel_init=init, name="projection")
        return project(image)


class SiglipVisionTransformer(nn.Module):
    """SigLIP's vision transformer: what one learnt query finds among the patches.

    Attributes:
      transformer: The blocks, whose width is that of the embedding.
      patch: The side of the patches in pixels.
    """

    transformer: Transformer
    patch: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps [B, S, S, 3] to [B, E]; training is no different."""
        del train
        width, epsilon = self.transformer.sizes.width, self.transformer.epsilon
        tokens = Patches(width, self.patch, bias=True, name="patches")(images)
        tokens = plus(tokens, self.param("positions", normal(width**-0.5), tokens.shape[1:]))
        tokens = layer_norm(epsilon, "norm")(self.transformer(tokens))
        return self._pooled(tokens)

    def _pooled(self, tokens: jax.Array) -> jax.Array:
        """A learnt query attends to all tokens, and an MLP is added (big_vision's "MAP head")."""
        blocks = self.transformer
        width = blocks.sizes.width
        query = self.param("query", normal(width**-0.5), (1, 1, width))
        queries = plus(jnp.zeros_like(tokens[:, :1]), query)
        attend = Attention(
            blocks.sizes.heads,
            width**-0.5,
            implementation=blocks.implementation,
            name="pooling_attention",
        )
        pooled = attend(tokens, queries)
        mlp = Mlp(blocks.sizes.mlp_width, blocks.activation, width**-0.5, name="pooling_mlp")
        return (pooled + mlp(layer_norm(blocks.epsilon, "pooling_norm")(pooled)))[:, 0]


class Patches(nn.Module):
    """Cuts images into patches and maps each to a token.

    This is a convolution whose steps are as long as its kernel, with the parameters of `nn.Conv`.
    It is computed as one matrix product, which a CPU does in half the time.

    Attributes:
      width: D, the features of a token.
      side: The side of a patch in pixels, P.
      bias: Whether the map has a bias.
    """

    width: int
    side: int
    bias: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps [B, S, S, C] to [B, (S // P)**2, D], row by row; pixels beyond are left out."""
        batch, height, width, channels = images.shape
        side, rows, columns = self.side, height // self.side, width // self.side
        shape = (side, side, channels, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        whole = images[:, : rows * side, : columns * side]
        patches = whole.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
        tokens = patches.reshape(batch, rows * columns, -1) @ kernel.reshape(-1, self.width)
        if not self.bias:
            return tokens
        return plus(tokens, self.param("bias", nn.initializers.zeros, (self.width,)))
