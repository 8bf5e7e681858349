"""The blocks of CLIP's and SigLIP's transformers, for images and texts alike."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models.clip.presets import TransformerSizes
from kamcl_jax.models.layers import Dense, plus

Implementation = Literal["xla", "cudnn", "plain"] | None
"""How attention is computed, see `Attention`."""


def quick_gelu(x: jax.Array) -> jax.Array:
    """The approximation of GELU by a sigmoid that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
}


def layer_norm(epsilon: float, name: str) -> nn.LayerNorm:
    """Returns a layer normalisation whose variance is that of the differences from the mean."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def normal(std: float) -> nn.initializers.Initializer:
    """Returns N(0, std^2), as CLIP draws nearly all of its weights."""
    return nn.initializers.normal(std)


class Projections(nn.Module):
    """The queries, keys and values of an attention, side by side in one matrix."""

    @nn.compact
    def __call__(self, tokens: jax.Array, first: int = 0, last: int = 3) -> list[jax.Array]:
        """Maps [..., D] to those from `first` on and before `last`, [..., D] each."""
        width = tokens.shape[-1]
        kernel = self.param("kernel", normal(width**-0.5), (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (3 * width,))
        part = slice(first * width, last * width)
        return jnp.split(plus(tokens @ kernel[:, part], bias[part]), last - first, axis=-1)


def plain_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, *, causal: bool = False
) -> jax.Array:
    """Computes `jax.nn.dot_product_attention` in the dtype of its input, in float64 too.

    Args:
      queries: [B, Q, heads, D / heads].
      keys: [B, T, heads, D / heads].
      values: [B, T, heads, D / heads].
      causal: Whether query q attends to the tokens up to q alone.

    Returns:
      [B, Q, heads, D / heads].
    """
    logits = jnp.einsum("bqhd,bthd->bhqt", queries, keys) / queries.shape[-1] ** 0.5
    if causal:
        earlier = jnp.tri(logits.shape[-2], logits.shape[-1], dtype=bool)
        logits = jnp.where(earlier, logits, -jnp.inf)
    return jnp.einsum("bhqt,bthd->bqhd", jax.nn.softmax(logits), values)


class Attention(nn.Module):
    """Multi-head attention of tokens to tokens.

    Attributes:
      heads: The number of heads.
      out_std: The deviation of the output's initial weights.
      features: The width of the output, F; None takes that of the tokens.
      implementation: What `jax.nn.dot_product_attention` takes; None lets it choose, and 'plain' is
        `plain_attention`. 'cudnn' is for inputs of 16 bits; others take 'xla' in its place.
    """

    heads: int
    out_std: float
    features: int | None = None
    implementation: Implementation = None

    @nn.compact
    def __call__(
        self, tokens: jax.Array, queries: jax.Array | None = None, *, causal: bool = False
    ) -> jax.Array:
        """Attends.

        Args:
          tokens: [B, T, D], where keys and values come from.
          queries: [B, Q, D], what attends to them; None takes the tokens themselves.
          causal: Whether a token attends to itself and those before it alone.

        Returns:
          [B, Q, F].
        """
        project = Projections(name="qkv")
        if queries is None:
            parts = project(tokens)
        else:
            parts = [*project(queries, 0, 1), *project(tokens, 1, 3)]
        in_heads = (x.reshape(*x.shape[:-1], self.heads, -1) for x in parts)
        implementation = self.implementation
        if implementation == "cudnn" and tokens.dtype.itemsize > 2:
            implementation = "xla"  # parameters are made in float32, which cuDNN does not take
        if implementation == "plain":
            attended = plain_attention(*in_heads, causal=causal)
        else:
            attended = jax.nn.dot_product_attention(
                *in_heads, is_causal=causal, implementation=implementation
            )
        features = self.features or tokens.shape[-1]
        out = Dense(features, normal(self.out_std), name="out")
        return out(attended.reshape(*attended.shape[:-2], -1))


class Mlp(nn.Module):
    """Two dense layers with an activation between them."""

    hidden: int
    activation: str
    out_std: float

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps [..., D] to [..., D]."""
        width = tokens.shape[-1]
        up = Dense(self.hidden, normal((2 * width) ** -0.5), name="up")
        down = Dense(width, normal(self.out_std), name="down")
        return down(ACTIVATIONS[self.activation](up(tokens)))


class Block(nn.Module):
    """Attention and an MLP, each behind a normalisation and added to what came in."""

    sizes: TransformerSizes
    activation: str
    epsilon: float
    implementation: Implementation = None

    @nn.compact
    def __call__(self, tokens: jax.Array, causal: bool) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; `causal` is that of `Attention`."""
        sizes = self.sizes
        # So that the sum over all layers keeps its size, as CLIP (and GPT-2 before it) does.
        out_std = sizes.width**-0.5 * (2 * sizes.layers) ** -0.5
        attention = Attention(
            sizes.heads, out_std, implementation=self.implementation, name="attention"
        )
        mlp = Mlp(sizes.mlp_width, self.activation, out_std, name="mlp")
        tokens += attention(layer_norm(self.epsilon, "attention_norm")(tokens), causal=causal)
        return tokens + mlp(layer_norm(self.epsilon, "mlp_norm")(tokens))


class Transformer(nn.Module):
    """A stack of blocks.

    Attributes:
      sizes: Its sizes.
      activation: One of `ACTIVATIONS`.
      epsilon: That of the normalisations.
      causal: Whether a token attends to itself and those before it alone.
      rematerialise: Whether the backward pass computes each block again instead of keeping its
        activations.
      implementation: That of `Attention`.
    """

    sizes: TransformerSizes
    activation: str
    epsilon: float
    causal: bool = False
    rematerialise: bool = False
    implementation: Implementation = None

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        kind = nn.remat(Block, static_argnums=(2,)) if self.rematerialise else Block
        for number in range(self.sizes.layers):
            block = kind(
                self.sizes,
                self.activation,
                self.epsilon,
                self.implementation,
                name=f"block_{number}",
            )
            tokens = block(tokens, self.causal)
        return tokens
