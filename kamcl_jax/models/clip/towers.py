"""The towers of a preset, and what makes KAMCL's encoders of them."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models.clip.modified_resnet import ModifiedResNet
from kamcl_jax.models.clip.presets import ModifiedResNetSizes, Preset, TransformerSizes
from kamcl_jax.models.clip.text_transformer import TextTransformer
from kamcl_jax.models.clip.transformer import Implementation, Transformer
from kamcl_jax.models.clip.vision_transformer import ClipVisionTransformer, SiglipVisionTransformer
from kamcl_jax.models.towers import CONCEPT_HEAD, ConceptHead, DualEncoder, Encoded

INITIAL_BIAS = -10.0
"""Where the bias of SigLIP's loss starts: nearly all pairs of a batch do not belong together."""

EPSILONS = {"clip": 1e-5, "siglip": 1e-6}
"""Family -> the epsilon of its layer normalisations."""


Concepts = Literal["gated", "beside"]
"""What becomes of the concepts that an encoder predicts.

'gated' adds them to the embedding, times a learnt number that starts at 0: pretrained embeddings
are at first what they were. 'beside' leaves the embedding alone.
"""


def image_tower(
    preset: Preset, *, rematerialise: bool = False, implementation: Implementation = None
) -> nn.Module:
    """Returns the image tower: [B, S, S, 3], normalised by the preset, to [B, E].

    Args:
      preset: The published model.
      rematerialise: Whether the backward pass computes each block again.
      implementation: That of `transformer.Attention`.
    """
    sizes = preset.image
    if isinstance(sizes, ModifiedResNetSizes):
        return ModifiedResNet(sizes, preset.embedding_size, rematerialise, implementation)
    transformer = _transformer(preset, sizes, rematerialise, implementation)
    if preset.family == "siglip":
        return SiglipVisionTransformer(transformer, sizes.patch)
    return ClipVisionTransformer(transformer, sizes.patch, preset.embedding_size)


def text_tower(
    preset: Preset, *, rematerialise: bool = False, implementation: Implementation = None
) -> TextTransformer:
    """Returns the text tower, i32[B, T] to [B, E]; the arguments are those of `image_tower`."""
    sizes = preset.text
    transformer = _transformer(
        preset, sizes, rematerialise, implementation, causal=preset.family == "clip"
    )
    return TextTransformer(transformer, sizes.vocabulary, sizes.context, preset.embedding_size)


def dual_encoder(
    preset: Preset,
    num_concepts: int = 0,
    *,
    concepts: Concepts = "gated",
    with_bias: bool = False,
    rematerialise: bool = False,
    implementation: Implementation = None,
) -> DualEncoder:
    """Returns both towers as KAMCL's encoders, with the parameters that the logits are made by.

    Args:
      preset: The published model.
      num_concepts: The concepts that both encoders predict; 0 leaves the embeddings as published.
      concepts: What becomes of them.
      with_bias: Whether there is a bias of the logits for the sigmoid loss where the preset has
        none; it starts at -10, as that of a SigLIP does.
      rematerialise: Whether the backward pass computes each block again.
      implementation: That of `transformer.Attention`.
    """
    options: Any = {"rematerialise": rematerialise, "implementation": implementation}
    return DualEncoder(
        ClipImageEncoder(image_tower(preset, **options), num_concepts, concepts),
        ClipTextEncoder(text_tower(preset, **options), num_concepts, concepts),
        initial_temperature=0.1 if preset.family == "siglip" else 0.07,
        initial_bias=INITIAL_BIAS if preset.has_bias or with_bias else None,
    )


def convolves(model: nn.Module) -> bool:
    """Returns whether the speed of a `DualEncoder` depends on convolutions, as a ResNet's does."""
    image = getattr(model, "image", None)
    return not isinstance(image, ClipImageEncoder) or isinstance(image.tower, ModifiedResNet)


def abstract_variables(preset: Preset) -> Any:
    """Returns the shapes and dtypes of the variables of `dual_encoder(preset)`."""
    side = preset.image_size
    inputs = (
        jax.ShapeDtypeStruct((1, side, side, 3), jax.dtypes.canonicalize_dtype(float)),
        jax.ShapeDtypeStruct((1, preset.text.context), jnp.int32),
        jax.ShapeDtypeStruct((1,), jnp.int32),
        jax.ShapeDtypeStruct((1, 0), jnp.float32),
    )
    init = partial(dual_encoder(preset).init, train=False)
    return jax.eval_shape(init, jax.random.key(0), *inputs)


def _transformer(
    preset: Preset,
    sizes: TransformerSizes,
    rematerialise: bool,
    implementation: Implementation,
    causal: bool = False,
) -> Transformer:
    return Transformer(
        sizes,
        preset.activation,
        EPSILONS[preset.family],
        causal=causal,
        rematerialise=rematerialise,
        implementation=implementation,
    )


class ClipImageEncoder(nn.Module):
    """An image tower as KAMCL's image encoder.

    Attributes:
      tower: From `image_tower`.
      num_concepts: N; with 0 the embedding is the tower's own.
      concepts: What becomes of them.
    """

    tower: nn.Module
    num_concepts: int = 0
    concepts: Concepts = "gated"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Encoded:
        """Maps [B, S, S, 3], normalised by the preset, to (embedding [B, E], concepts [B, N])."""
        return _with_concepts(self.tower(images, train=train), self.num_concepts, self.concepts)


class ClipTextEncoder(nn.Module):
    """A text tower as KAMCL's text encoder.

    Attributes:
      tower: From `text_tower`.
      num_concepts: N; with 0 the embedding is the tower's own.
      concepts: What becomes of them.
    """

    tower: nn.Module
    num_concepts: int = 0
    concepts: Concepts = "gated"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, word_concepts: jax.Array, *, train: bool
    ) -> Encoded:
        """Maps i32[B, T] to (embedding [B, E], concepts [B, N]); nothing else matters."""
        del lengths, word_concepts, train  # the tower finds a text's end and its words itself
        return _with_concepts(self.tower(tokens), self.num_concepts, self.concepts)


def _with_concepts(embedding: jax.Array, num_concepts: int, concepts: Concepts) -> Encoded:
    """Adds what a concept head says (called in a module)."""
    embedding = embedding.astype(jnp.promote_types(embedding.dtype, jnp.float32))
    if not num_concepts:
        return embedding, jnp.zeros((embedding.shape[0], 0), embedding.dtype)
    added = concepts == "gated"
    return ConceptHead(num_concepts, gated=added, added=added, name=CONCEPT_HEAD)(embedding)
