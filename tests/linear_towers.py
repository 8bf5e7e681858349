"""Models that are called like a `DualEncoder` and compile in no time."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax import train_state
from kamcl_jax.models.batch_norm import BatchNorm
from kamcl_jax.models.encoders import DualEncoder


class Towers(nn.Module):
    """Called like a `DualEncoder`; without `noise` no sample's encoding depends on another one."""

    noise: bool = False

    @nn.compact
    def __call__(self, images, tokens, lengths, word_concepts, *, train):
        mean = self.variable("batch_stats", "mean", jnp.zeros, (3,))
        colours = images.mean((1, 2))
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * colours.mean(0)
        if self.noise:
            colours = BatchNorm(name="norm")(colours, train=train)
            colours = nn.Dropout(0.5, deterministic=not train)(colours)
        words = nn.Embed(20, 8)(tokens).mean(1)
        towers = []
        for name, features in (("image", colours), ("text", words + lengths[:, None])):
            latent = nn.Dense(16, name=name)(jnp.concatenate([features, word_concepts], axis=1))
            concepts = jax.nn.sigmoid(nn.Dense(12, name=f"{name}_concepts")(latent))
            towers.append((latent, concepts))
        return tuple(towers)


class Tower(nn.Module):
    """Called like an image or text encoder; encodes the mean of its first input."""

    embedding_size: int
    num_concepts: int

    @nn.compact
    def __call__(self, *inputs, train):
        features = inputs[0].reshape(len(inputs[0]), -1).mean(1, keepdims=True)
        outputs = nn.Dense(self.embedding_size + self.num_concepts)(features)
        outputs = BatchNorm()(outputs, train=train)
        embedding = outputs[:, : self.embedding_size]
        return embedding, jax.nn.sigmoid(outputs[:, self.embedding_size :])


def dual_encoder(embedding_size: int, num_concepts: int) -> DualEncoder:
    """A `DualEncoder` of two such towers, with dropout in none."""
    return DualEncoder(Tower(embedding_size, num_concepts), Tower(embedding_size, num_concepts))


def create_state(
    optimizer,
    *,
    image_size=64,
    num_concepts=12,
    embedding_size=16,
    queue_length=16,
    queue_ids=False,
) -> train_state.TrainState:
    """Their train state at step 0, by default of the shapes of `conftest.Tiny`."""
    return train_state.create(
        0,
        Towers(),
        optimizer,
        image_size=image_size,
        num_concepts=num_concepts,
        embedding_size=embedding_size,
        queue_length=queue_length,
        queue_ids=queue_ids,
    )
