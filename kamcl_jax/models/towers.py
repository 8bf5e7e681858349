"""KAMCL's image and text towers: each returns a hybrid embedding and concept probabilities."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models import layers
from kamcl_jax.models.aggregator import HierarchicalAggregator, SharedMLP
from kamcl_jax.models.gpo import GPO, Pooling, weights_together
from kamcl_jax.models.resnet import ResNet
from kamcl_jax.models.skip_thoughts import SkipThoughts

Encoded = tuple[jax.Array, jax.Array]
"""(hybrid embedding f32[B, E], concept probabilities f32[B, N]), float32 at least."""


class ConceptHead(nn.Module):
    """Predicts concepts from a latent vector and adds them to it (knowledge-aided learning).

    The paper has as many concepts as embedding entries and adds the two. Fewer concepts take the
    first entries (the rest stay purely latent); more are brought to the embedding's width by a
    learned linear map.

    It computes in float32 at least, as the normalisation, the softmax and the losses after it do.

    Attributes:
      num_concepts: N.
      gated: Whether what is added is multiplied by a learnt number that starts at 0, so that an
        embedding of pretrained weights is at first what it was.
      added: Whether anything is added at all; if not, the latent vector is returned as it is.
    """

    num_concepts: int
    gated: bool = False
    added: bool = True

    @nn.compact
    def __call__(self, latent: jax.Array) -> Encoded:
        """Maps f32[B, E] to (hybrid f32[B, E], concept probabilities f32[B, N])."""
        width = latent.shape[-1]
        latent = latent.astype(jnp.promote_types(latent.dtype, jnp.float32))
        logits = layers.dense(self.num_concepts, width, "linear")(latent)
        concept = jax.nn.sigmoid(logits)
        if not self.added:
            return latent, concept
        if self.num_concepts <= width:
            added = jnp.pad(concept, ((0, 0), (0, width - self.num_concepts)))
        else:
            kernel_init = layers.linear_init
            narrow = nn.Dense(width, use_bias=False, kernel_init=kernel_init, name="to_embedding")
            added = narrow(concept)
        if self.gated:
            added *= self.param("gate", nn.initializers.zeros, ())
        return latent + added, concept


class ImageEncoder(nn.Module):
    """ResNet, hierarchical aggregator, concept head."""

    num_concepts: int  # N
    embedding_size: int = 512  # E
    depth: int = 18  # these three: see `ResNet`
    width: int = 64
    rematerialise: bool = False
    pooling_kernel: str = "counting"  # as `GPO` takes it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Encoded:
        """Encodes f32[B, S, S, 3], normalised, of the one size S the parameters were made for."""
        resnet = ResNet(self.depth, self.width, self.rematerialise, name="resnet")
        stages = resnet(images, train=train)
        aggregator = HierarchicalAggregator(
            self.embedding_size, self.pooling_kernel, name="aggregator"
        )
        latent = aggregator(stages)
        return ConceptHead(self.num_concepts, name=CONCEPT_HEAD)(latent)


class TextEncoder(nn.Module):
    """Skip-thoughts GRU, GPO over its states, fusion with concept words, concept head.

    Captions are masked to their own length: an embedding depends neither on the padding nor on the
    other captions of the batch. `caption_padding="release"` does as the PyTorch release instead:
    the GRU runs on over zero words, and the pooling takes as many states of every caption as the
    batch's longest has.
    """

    num_tokens: int  # rows of the word embedding, padding included
    num_concepts: int  # N
    embedding_size: int = 512  # E
    word_width: int = 620
    hidden_width: int = 2400
    dropout: float = 0.25
    caption_padding: str = "masked"
    pooling_kernel: str = "counting"  # as `GPO` takes it

    @nn.compact
    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, word_concepts: jax.Array, *, train: bool
    ) -> Encoded:
        """Encodes captions.

        Args:
          tokens: i32[B, T], 0 = padding.
          lengths: i32[B], each in 1..T.
          word_concepts: f32[B, N], 1 where the caption has the concept's word.
          train: Whether the GRU drops, which needs the "dropout" PRNG stream.
        """
        if self.caption_padding == "release":
            lengths = jnp.full_like(lengths, lengths.max())
        recurrent = SkipThoughts(
            self.num_tokens, self.word_width, self.hidden_width, self.dropout, name="skip_thoughts"
        )
        states = recurrent(tokens, lengths, train=train)
        words = layers.dense(self.embedding_size, self.hidden_width, "state_linear")(states)
        items = jnp.concatenate([words, SharedMLP(name="mlp")(words)], axis=1)
        present = jnp.arange(tokens.shape[1]) < lengths[:, None]
        present = jnp.concatenate([present, present], axis=1)
        word_gpo, gpo = (GPO(kernel=self.pooling_kernel, name=n) for n in ("word_gpo", "gpo"))
        word_weights, weights = weights_together(
            [Pooling(word_gpo, items.shape[1], any_length=True), Pooling(gpo, 2)]
        )
        sentence = jnp.tanh(word_gpo(items.swapaxes(1, 2), present, word_weights))
        named = layers.dense(self.embedding_size, self.num_concepts, "concept_linear")(
            word_concepts
        )
        latent = gpo(jnp.stack([sentence, named], axis=2), weights=weights)
        return ConceptHead(self.num_concepts, name=CONCEPT_HEAD)(latent)


CONCEPT_HEAD = "concept_head"
"""What both towers call their `ConceptHead`."""

LOGIT_SCALE = "logit_scale"
"""The parameter of a `DualEncoder` that learns the temperature of the contrastive losses."""

LOGIT_BIAS = "logit_bias"
"""The parameter of a `DualEncoder` that the sigmoid loss adds to similarities."""


class DualEncoder(nn.Module):
    """Both towers, or modules that are called like them, under one tree of parameters.

    With an `initial_temperature` there is a parameter `logit_scale`, f32[], beside those of the
    towers: the logarithm of what similarities are multiplied by in the losses. With an
    `initial_bias` there is `logit_bias`, f32[], too. No embedding depends on them.
    """

    image: nn.Module
    text: nn.Module
    initial_temperature: float | None = None
    initial_bias: float | None = None

    def setup(self) -> None:
        """Makes the parameters of the logits."""
        if self.initial_temperature is not None:
            start = nn.initializers.constant(-math.log(self.initial_temperature))
            self.logit_scale = self.param(LOGIT_SCALE, start, ())
        if self.initial_bias is not None:
            start = nn.initializers.constant(self.initial_bias)
            self.logit_bias = self.param(LOGIT_BIAS, start, ())

    def __call__(
        self,
        images: jax.Array,
        tokens: jax.Array,
        lengths: jax.Array,
        word_concepts: jax.Array,
        *,
        train: bool,
    ) -> tuple[Encoded, Encoded]:
        """Encodes B images and B captions, given as `ImageEncoder` and `TextEncoder` take them."""
        return (
            self.encode_images(images, train=train),
            self.encode_texts(tokens, lengths, word_concepts, train=train),
        )

    def encode_images(self, images: jax.Array, *, train: bool = False) -> Encoded:
        """Encodes images alone."""
        return self.image(images, train=train)

    def encode_texts(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        word_concepts: jax.Array,
        *,
        train: bool = False,
    ) -> Encoded:
        """Encodes captions alone."""
        return self.text(tokens, lengths, word_concepts, train=train)
