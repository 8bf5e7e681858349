"""Embeds images and captions in batches, with the compiled encoders of a model."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from input_pipeline.splits.examples import Examples
from kamcl_jax.models import layers
from kamcl_jax.models.clip import towers
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.mesh import Layout, local_rows, put_batch
from kamcl_jax.ranking.scores import Array, Embeddings
from kamcl_jax.step import augmentation
from kamcl_jax.step.augmentation import IMAGENET, Normalisation
from kamcl_jax.step.encoding import cast_floats


class Rows(Protocol):
    """Rows of data that may be read lazily: an array, or what looks like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, whose first entry is the number of rows."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Returns the rows at i64[R]."""


Variables = dict[str, Any]
"""The `params` and `batch_stats` of a model."""

Captions = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The tokens i32[M, T], lengths i32[M] and word concepts [M, N] of M captions."""


class Encoded(NamedTuple):
    """What a model says of B images or captions.

    Attributes:
      embeddings: f32[B, E], unit vectors, so that inner products are cosines.
      concepts: f32[B, N], the probabilities of the concepts.
    """

    embeddings: Array
    concepts: Array


class EncodedSplit(NamedTuple):
    """What a model says of the N images and the M captions of a split."""

    images: Encoded
    captions: Encoded

    @property
    def embeddings(self) -> Embeddings:
        """Both sides' embeddings, without the concepts."""
        return Embeddings(self.images.embeddings, self.captions.embeddings)


EncodeImages = Callable[[Any, jax.Array], Encoded]
EncodeTexts = Callable[[Any, jax.Array, jax.Array, jax.Array], Encoded]


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Compiled encoders; one compilation serves every split of the same shapes.

    Attributes:
      images: (variables, u8[B, S, S, 3]) -> `Encoded`.
      texts: (variables, i32[B, T], i32[B], f32[B, N]) -> `Encoded`.
      layout: How batches are split over devices; each process reads its own share.
    """

    images: EncodeImages
    texts: EncodeTexts
    layout: Layout


def encoder_functions(
    model: nn.Module,
    dtype: DTypeLike | None = None,
    gathered: Callable[[Any], Any] = lambda params: params,
    normalisation: Normalisation = IMAGENET,
) -> tuple[EncodeImages, EncodeTexts]:
    """Returns what `Encoders` compiles: pure functions of a `DualEncoder` in evaluation mode.

    Args:
      model: The `DualEncoder`.
      dtype: The type that weights and activations are cast to; None leaves them.
      gathered: See `Layout.gathered`.
      normalisation: What the model expects of the pixels' values.
    """

    def apply(variables, method, *inputs):
        params = variables["params"]
        if dtype is not None:
            params, inputs = cast_floats((params, inputs), dtype)
        variables = {**variables, "params": gathered(params)}
        hybrid, concepts = model.apply(variables, *inputs, method=method)
        return Encoded(layers.l2_normalise(hybrid), jnp.asarray(concepts))

    def images(variables, pixels):
        return apply(variables, "encode_images", augmentation.normalise(pixels, normalisation))

    def texts(variables, tokens, lengths, word_concepts):
        # The host keeps word concepts in a byte each.
        word_concepts = word_concepts.astype(jnp.float32)
        return apply(variables, "encode_texts", tokens, lengths, word_concepts)

    return images, texts


def make_encoders(
    model: nn.Module,
    layout: Layout,
    dtype: DTypeLike | None = None,
    normalisation: Normalisation = IMAGENET,
) -> Encoders:
    """Returns the jitted `encoder_functions` of a model whose variables lie as `layout` says."""
    images, texts = encoder_functions(model, dtype, layout.gathered, normalisation)
    split = layout.batch
    compiled = partial(
        jax.jit,
        out_shardings=layout.whole,
        compiler_options=mesh.compiler_options(layout.mesh, convolves=towers.convolves(model)),
    )
    return Encoders(
        compiled(layout.traced(images), in_shardings=(None, split)),
        compiled(layout.traced(texts), in_shardings=(None, split, split, split)),
        layout,
    )


def encode_images(encoders: Encoders, variables: Any, images: Rows, batch_size: int) -> Encoded:
    """Encodes u8[N, S, S, 3], which may be read lazily; the result is on the host."""
    return _in_batches(partial(encoders.images, variables), (images,), batch_size, encoders.layout)


def embed_images(encoders: Encoders, variables: Any, images: Rows, batch_size: int) -> np.ndarray:
    """Encodes as `encode_images` does, but fetches the embeddings alone, f32[N, E]."""

    def embed(*inputs):
        return encoders.images(variables, *inputs).embeddings

    return _in_batches(embed, (images,), batch_size, encoders.layout)


def encode_texts(
    encoders: Encoders, variables: Any, captions: Captions, batch_size: int
) -> Encoded:
    """Encodes M captions; the result is on the host."""
    return _in_batches(partial(encoders.texts, variables), captions, batch_size, encoders.layout)


def embed_texts(
    encoders: Encoders, variables: Any, captions: Captions, batch_size: int
) -> np.ndarray:
    """Encodes as `encode_texts` does, but fetches the embeddings alone, f32[M, E]."""

    def embed(*inputs):
        return encoders.texts(variables, *inputs).embeddings

    return _in_batches(embed, captions, batch_size, encoders.layout)


def encode(encoders: Encoders, variables: Any, examples: Examples, batch_size: int) -> EncodedSplit:
    """Encodes the images and captions of a split, `batch_size` at once.

    Beside the embeddings the concepts lie on the host, 4 bytes for each image or caption and
    concept: 13 MB for RSICD's test split with 512 concepts.
    """
    return EncodedSplit(
        images=encode_images(encoders, variables, examples.images, batch_size),
        captions=encode_texts(encoders, variables, _captions(examples), batch_size),
    )


def embed(encoders: Encoders, variables: Any, examples: Examples, batch_size: int) -> Embeddings:
    """Encodes as `encode` does, but fetches the embeddings alone."""
    return Embeddings(
        images=embed_images(encoders, variables, examples.images, batch_size),
        captions=embed_texts(encoders, variables, _captions(examples), batch_size),
    )


def _captions(examples: Examples) -> Captions:
    return examples.tokens, examples.lengths, examples.word_concepts


def _in_batches(
    encode: Callable[..., Any], arrays: tuple[Rows, ...], batch_size: int, layout: Layout
) -> Any:
    """Encodes batches of one size, which are compiled once; the last row fills up the last batch.

    The size is a multiple of the devices, but the rows that count are `batch_size` on any number
    of them: with the release's padding the embedding of a caption depends on the others of its
    batch, and repeating one of those changes nothing.
    """
    total, devices = arrays[0].shape[0], layout.mesh.size
    count = min(batch_size, total)
    local = local_rows(layout, -(-count // devices) * devices)
    collected: list[Any] = []
    running: list[tuple[int, Any]] = []
    for start in range(0, total, count):
        end = min(start + count, total)
        rows = np.minimum(start + local, end - 1)
        batch = put_batch(layout, tuple(array[rows] for array in arrays))
        running.append((end - start, encode(*batch)))
        # Results are fetched one batch late: the device works while the host reads the next rows.
        if len(running) > 1:
            collected.append(_on_host(*running.pop(0)))
    collected.append(_on_host(*running.pop()))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *collected)


def _on_host(count: int, encoded: Any) -> Any:
    return jax.tree.map(lambda array: np.asarray(array)[:count], encoded)
