"""Embeds a split, ranks it both ways and measures recall."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from input_pipeline.examples import Examples
from kamcl_jax import augmentation, losses, sharding

RECALL_AT = (1, 5, 10)
TIES = ("expected", "argsort")

EncodeImages = Callable[[Any, jax.Array], jax.Array]
EncodeTexts = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Compiled encoders; one compilation serves every split of the same shapes.

    Attributes:
      images: (variables, uint8[B, S, S, 3]) -> unit vectors f32[B, E].
      texts: (variables, i32[B, T], i32[B], f32[B, N]) -> unit vectors f32[B, E].
      mesh: over whose `data` axis batches are split.
    """

    images: EncodeImages
    texts: EncodeTexts
    mesh: Mesh


def make_encoders(model: nn.Module, mesh: Mesh) -> Encoders:
    """Returns jitted encoders of a `DualEncoder` in evaluation mode."""
    whole, split = sharding.replicated(mesh), sharding.over_batch(mesh)

    def images(variables, pixels):
        normalised = augmentation.normalise(pixels)
        hybrid, _ = model.apply(variables, normalised, method="encode_images")
        return losses.l2_normalise(hybrid)

    def texts(variables, tokens, lengths, word_concepts):
        # The host keeps word concepts in a byte each.
        word_concepts = word_concepts.astype(jnp.float32)
        hybrid, _ = model.apply(variables, tokens, lengths, word_concepts, method="encode_texts")
        return losses.l2_normalise(hybrid)

    return Encoders(
        jax.jit(images, in_shardings=(whole, split), out_shardings=whole),
        jax.jit(texts, in_shardings=(whole, split, split, split), out_shardings=whole),
        mesh,
    )


def embed_images(
    encoders: Encoders, variables: Any, images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Embeds uint8[N, S, S, 3] (may be memory-mapped) -> f32[N, E], unit vectors."""
    batches = _padded_batches((images,), batch_size, encoders.mesh.size)
    return _collect(lambda arrays: encoders.images(variables, *arrays), batches)


def embed_texts(
    encoders: Encoders,
    variables: Any,
    tokens: np.ndarray,
    lengths: np.ndarray,
    word_concepts: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """Embeds captions i32[M, T], i32[M], [M, N] -> f32[M, E], unit vectors."""
    batches = _padded_batches((tokens, lengths, word_concepts), batch_size, encoders.mesh.size)
    return _collect(lambda arrays: encoders.texts(variables, *arrays), batches)


def score(
    encoders: Encoders,
    variables: Any,
    examples: Examples,
    batch_size: int,
    ties: str = "expected",
) -> tuple[dict[str, float], np.ndarray]:
    """Scores a split.

    Args:
      encoders: from `make_encoders`.
      variables: of the model.
      examples: the split.
      batch_size: of the encoding.
      ties: see `retrieval_metrics`.

    Returns:
      The split's retrieval metrics and its cosine similarities f32[N, M].

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    images = embed_images(encoders, variables, examples.images, batch_size)
    texts = embed_texts(
        encoders,
        variables,
        examples.tokens,
        examples.lengths,
        examples.word_concepts,
        batch_size,
    )
    similarity = images @ texts.T
    return retrieval_metrics(similarity, examples.image_of_caption, ties), similarity


def _padded_batches(
    arrays: tuple[np.ndarray, ...], batch_size: int, devices: int
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yields (rows that count, arrays of one fixed batch size); the last row fills the last batch.

    One size means one compilation; it is rounded up to a multiple of the devices.
    """
    total = arrays[0].shape[0]
    size = -(-min(batch_size, total) // devices) * devices
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        yield min(size, total - start), tuple(array[rows] for array in arrays)


def _collect(encode, batches) -> np.ndarray:
    # Results are fetched one batch late: the device works while the host reads the next rows.
    collected, pending = [], None
    for count, arrays in batches:
        if pending is not None:
            collected.append(np.asarray(pending[1])[: pending[0]])
        pending = (count, encode(arrays))
    if pending is not None:
        collected.append(np.asarray(pending[1])[: pending[0]])
    return np.concatenate(collected)


def image_to_text_ranks(
    similarity: np.ndarray, image_of_caption: np.ndarray, ties: str = "expected"
) -> np.ndarray:
    """Ranks each image's best own caption among all captions, 1 = first.

    With `ties="expected"`, captions that score the same stand in random order and the rank is the
    expected one: of m own and t other captions tied at the best own score, the first own one has
    t / (m + 1) others before it on average.

    Args:
      similarity: f32[N, M].
      image_of_caption: int[M], row of the image that each caption describes; any number an image,
        at least one.
      ties: "argsort" lets tied captions stand as NumPy's sort leaves them, see
        `retrieval_metrics`.

    Returns:
      f64[N].

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    if _by_argsort(ties):
        places = [
            _place_by_argsort(scores, image_of_caption == image)
            for image, scores in enumerate(similarity)
        ]
        return np.array(places, np.float64)
    own = image_of_caption[None, :] == np.arange(similarity.shape[0])[:, None]
    best = np.where(own, similarity, -np.inf).max(axis=1, keepdims=True)
    greater = (~(similarity <= best)).sum(axis=1)  # NaN ranks behind everything
    tied = similarity == best
    own_tied = (tied & own).sum(axis=1)
    return 1 + greater + (tied.sum(axis=1) - own_tied) / (own_tied + 1)


def text_to_image_ranks(
    similarity: np.ndarray, image_of_caption: np.ndarray, ties: str = "expected"
) -> np.ndarray:
    """Ranks each caption's image among all images, 1 = first.

    Args:
      similarity: f32[N, M].
      image_of_caption: int[M], row of the image that each caption describes.
      ties: as for `image_to_text_ranks`.

    Returns:
      f64[M].

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    if _by_argsort(ties):
        images = np.arange(similarity.shape[0])
        places = [
            _place_by_argsort(scores, images == image)
            for image, scores in zip(image_of_caption, similarity.T, strict=True)
        ]
        return np.array(places, np.float64)
    match = similarity[image_of_caption, np.arange(similarity.shape[1])]
    greater = (~(similarity <= match)).sum(axis=0)  # NaN ranks behind everything
    others_tied = np.maximum((similarity == match).sum(axis=0) - 1, 0)
    return 1 + greater + others_tied / 2


def _by_argsort(ties: str) -> bool:
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; it must be one of {', '.join(map(repr, TIES))}")
    return ties == "argsort"


def _place_by_argsort(scores: np.ndarray, right: np.ndarray) -> int:
    """Returns the place of the first right item as the KAMCL release counts it, 1 = first.

    NumPy's default sort, read backwards, decides between equal scores; how it leaves them may
    change with NumPy's version and the processor. A NaN comes first.

    Args:
      scores: f32[n].
      right: bool[n], at least one true.
    """
    # The release sorts doubles, and which of two tied ones comes first depends on the type.
    order = np.argsort(scores.astype(np.float64))[::-1]
    return 1 + int(np.argmax(right[order]))


def retrieval_metrics(
    similarity: np.ndarray, image_of_caption: np.ndarray, ties: str = "expected"
) -> dict[str, float]:
    """Returns the field's metrics of a score matrix.

    Args:
      similarity: f32[N, M], images by captions.
      image_of_caption: int[M].
      ties: "expected" gives tied scores their expected rank over random orders of the tied;
        "argsort" does as the KAMCL release: they stay as NumPy's sort leaves them, and the median
        rank is rounded down.

    Returns:
      `i2t_r1`, `i2t_r5`, `i2t_r10`, `t2i_r1`, `t2i_r5`, `t2i_r10`: recall@k in percent (share of
      queries whose rank is at most k); `mR`: their mean; `i2t_medr`, `i2t_meanr`, `t2i_medr`,
      `t2i_meanr`: median and mean rank, 1 = first.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    ranks = {
        "i2t": image_to_text_ranks(similarity, image_of_caption, ties),
        "t2i": text_to_image_ranks(similarity, image_of_caption, ties),
    }
    metrics = {
        f"{way}_r{k}": 100 * float(np.mean(rank <= k))
        for way, rank in ranks.items()
        for k in RECALL_AT
    }
    metrics["mR"] = float(np.mean(list(metrics.values())))
    for way, rank in ranks.items():
        median = np.median(rank)
        metrics[f"{way}_medr"] = float(np.floor(median) if _by_argsort(ties) else median)
        metrics[f"{way}_meanr"] = float(np.mean(rank))
    return metrics


def chance_metrics(image_of_caption: np.ndarray) -> dict[str, float]:
    """Returns the recalls and mR, in percent, that random scores have in expectation.

    With c of M captions right, k random ones miss them all with probability
    C(M - c, k) / C(M, k).
    """
    captions_of_image = np.bincount(image_of_caption)
    num_images, num_captions = captions_of_image.size, image_of_caption.size
    chance = {}
    for k in RECALL_AT:
        misses = np.ones(num_images)
        for drawn in range(min(k, num_captions)):
            left = np.maximum(num_captions - captions_of_image - drawn, 0)
            misses *= left / (num_captions - drawn)
        chance[f"i2t_r{k}"] = 100 * float(np.mean(1 - misses))
        chance[f"t2i_r{k}"] = 100 * min(k / num_images, 1.0)
    chance["mR"] = float(np.mean(list(chance.values())))
    return chance
