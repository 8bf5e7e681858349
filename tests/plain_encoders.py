"""Encoders that a config can name: without BatchNorm or dropout, and compiled in no time."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models.encoders import ConceptHead


class Colours(nn.Module):
    """Encodes the mean colours of an image's quarters, made stronger or weaker."""

    num_concepts: int
    embedding_size: int
    widths: tuple[int, ...] = ()
    contrast: float = 1.0

    @nn.compact
    def __call__(self, images, *, train):
        size, side = images.shape[0], images.shape[1] // 2
        x = images.reshape(size, 2, side, 2, side, 3).mean((2, 4)).reshape(size, -1)
        x = self.contrast * x
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return ConceptHead(self.num_concepts)(nn.Dense(self.embedding_size)(x))


class Words(nn.Module):
    """Encodes the mean of a caption's word vectors, and the concepts that it names."""

    num_tokens: int
    num_concepts: int
    embedding_size: int
    weight_of_concepts: float = 1.0

    @nn.compact
    def __call__(self, tokens, lengths, word_concepts, *, train):
        vectors = nn.Embed(self.num_tokens, 8)(tokens) * (tokens > 0)[..., None]
        mean = vectors.sum(1) / lengths[:, None].astype(vectors.dtype)
        concepts = self.weight_of_concepts * nn.Dense(8)(word_concepts)
        return ConceptHead(self.num_concepts)(nn.Dense(self.embedding_size)(mean + concepts))


class Constant(nn.Module):
    """Says the same of every image."""

    num_concepts: int
    embedding_size: int

    @nn.compact
    def __call__(self, images, *, train):
        bias = self.param("bias", nn.initializers.ones, ())
        size = len(images)
        return bias * jnp.ones((size, self.embedding_size)), jnp.full(
            (size, self.num_concepts), 0.5
        )


class NoModule:
    def __init__(self, **options):
        self.options = options


class WithoutTrain(nn.Module):
    num_concepts: int
    embedding_size: int

    def __call__(self, images):
        return images


class Swapped(Colours):
    @nn.compact
    def __call__(self, images, *, train):
        return Colours(self.num_concepts, self.embedding_size)(images, train=train)[::-1]


class InHalfPrecision(Colours):
    @nn.compact
    def __call__(self, images, *, train):
        outputs = Colours(self.num_concepts, self.embedding_size)(images, train=train)
        return jax.tree.map(lambda x: x.astype(images.dtype), outputs)


class WithACache(Colours):
    @nn.compact
    def __call__(self, images, *, train):
        self.variable("cache", "last", lambda: images.mean((1, 2)))
        return Colours(self.num_concepts, self.embedding_size)(images, train=train)
