"""How fast a test split is encoded and ranked."""

import dataclasses
from typing import Any

import numpy as np

from input_pipeline.splits.examples import Examples
from kamcl_jax.benchmark.trials import Action
from kamcl_jax.inference import embed
from kamcl_jax.inference.embed import Encoders
from kamcl_jax.ranking.ranks import rank_both_ways

RSICD_TEST = (1093, 5465)
"""Images and captions of RSICD's test split, whose score matrix is ranked whatever the config."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What of a test split is encoded in a trial: the first images with all of their captions.

    Attributes:
      images: u8[N, S, S, 3].
      image_of_caption: int[M], 0 to N - 1.
      tokens: i32[M, T].
      lengths: i32[M].
      word_concepts: u8[M, C].
      batch_size: of the encoding.
    """

    images: np.ndarray
    image_of_caption: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    word_concepts: np.ndarray
    batch_size: int

    @property
    def captions(self) -> int:
        """Number of captions."""
        return len(self.lengths)


def first_captions(examples: Examples, captions: int, batch_size: int) -> Encoded:
    """Returns as many of a split's first images as have that many captions, one at least.

    Args:
      examples: the split.
      captions: at most.
      batch_size: of the encoding.
    """
    counts = np.bincount(examples.image_of_caption, minlength=len(examples.images))
    images = max(1, int(np.searchsorted(np.cumsum(counts), captions, side="right")))
    rows = np.flatnonzero(examples.image_of_caption < images)
    return Encoded(
        images=np.asarray(examples.images[np.arange(images)]),
        image_of_caption=examples.image_of_caption[rows],
        tokens=examples.tokens[rows],
        lengths=examples.lengths[rows],
        word_concepts=examples.word_concepts[rows],
        batch_size=batch_size,
    )


def encode_images(encoders: Encoders, variables: Any, of: Encoded) -> Action:
    """Returns what encodes every image once."""
    return lambda: embed.embed_images(encoders, variables, of.images, of.batch_size)


def encode_captions(encoders: Encoders, variables: Any, of: Encoded) -> Action:
    """Returns what encodes every caption once."""
    return lambda: embed.embed_texts(
        encoders, variables, of.tokens, of.lengths, of.word_concepts, of.batch_size
    )


def encode_images_of_captions(encoders: Encoders, variables: Any, of: Encoded) -> Action:
    """Returns what encodes an image for every caption, as the PyTorch original does."""
    images = of.images[of.image_of_caption]
    return lambda: embed.embed_images(encoders, variables, images, of.batch_size)


def random_scores(images: int, captions: int) -> np.ndarray:
    """Returns a score matrix f32[images, captions] of normal numbers."""
    return np.random.default_rng(0).standard_normal((images, captions), np.float32)


def rank(scores: np.ndarray, image_of_caption: np.ndarray) -> Action:
    """Returns what ranks a score matrix both ways."""
    return lambda: rank_both_ways(scores, image_of_caption)


def five_captions_each(images: int) -> np.ndarray:
    """Returns int[5 * images], the image of each caption where every image has five in a row."""
    return np.arange(5 * images) // 5
