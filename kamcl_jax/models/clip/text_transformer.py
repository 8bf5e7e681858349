"""The text transformer of CLIP and of SigLIP."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models.clip.transformer import Transformer, layer_norm, normal
from kamcl_jax.models.layers import Dense, plus


class TextTransformer(nn.Module):
    """Embeds texts as CLIP does if its blocks are causal, and as SigLIP does otherwise.

    CLIP projects the first end token, which sees all before it, so that nothing behind it matters.
    The end token is the last of the vocabulary.
    SigLIP projects the last place, and all places see each other, the padding among them.

    Attributes:
      transformer: The blocks, of width D.
      vocabulary: The rows of the token embedding.
      context: The tokens of the longest text.
      embedding_size: E.
    """

    transformer: Transformer
    vocabulary: int
    context: int
    embedding_size: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps i32[B, T], T at most the context and for SigLIP the context itself, to [B, E]."""
        blocks = self.transformer
        width, clip = blocks.sizes.width, blocks.causal
        positions = self.param("positions", normal(0.01), (self.context, width))
        # Through float32 at least, so that a frequent token's many gradients are summed there.
        wide = jnp.promote_types(positions.dtype, jnp.float32)
        init = normal(0.02)
        embed = nn.Embed(self.vocabulary, width, embedding_init=init, dtype=wide, name="tokens")
        embedded = plus(embed(tokens).astype(positions.dtype), positions[: tokens.shape[1]])
        after = layer_norm(blocks.epsilon, "norm")(blocks(embedded))
        if clip:
            place = jnp.argmax(tokens == self.vocabulary - 1, axis=1)
            text = jnp.take_along_axis(after, place[:, None, None], axis=1)[:, 0]
        else:
            text = after[:, -1]
        size, init = self.embedding_size, normal(width**-0.5)
        if clip:
            return nn.Dense(size, use_bias=False, kernel_init=init, name="projection")(text)
        return Dense(size, init, name="projection")(text)
