"""Embeds a split, scores it, and looks closer at the scores of the test split."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from input_pipeline.splits.examples import Examples
from kamcl_jax.models import layers
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.ranking.scores import Array, Embeddings
from kamcl_jax.step import augmentation, precision


class Rows(Protocol):
    """Rows of data that may be read lazily: an array, or what looks like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows first."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Returns the rows at i64[R]."""


Variables = dict[str, Any]
"""`params` and `batch_stats` of a model."""


class Encoded(NamedTuple):
    """What a model says of B images or captions.

    Attributes:
      embeddings: f32[B, E], unit vectors, so that inner products are cosines.
      concepts: f32[B, N], probabilities.
    """

    embeddings: Array
    concepts: Array


EncodeImages = Callable[[Any, jax.Array], Encoded]
EncodeTexts = Callable[[Any, jax.Array, jax.Array, jax.Array], Encoded]


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Compiled encoders; one compilation serves every split of the same shapes.

    Attributes:
      images: (variables, uint8[B, S, S, 3]) -> `Encoded`.
      texts: (variables, i32[B, T], i32[B], f32[B, N]) -> `Encoded`.
      layout: by which batches are split; each process reads its own share.
    """

    images: EncodeImages
    texts: EncodeTexts
    layout: Layout


def encoder_functions(
    model: nn.Module,
    dtype: DTypeLike | None = None,
    gathered: Callable[[Any], Any] = lambda params: params,
) -> tuple[EncodeImages, EncodeTexts]:
    """Returns what `Encoders` compiles: pure functions of a `DualEncoder` in evaluation mode.

    Args:
      model: a `DualEncoder`.
      dtype: that weights and activations are cast to; None leaves them.
      gathered: see `Layout.gathered`.
    """

    def apply(variables, method, *inputs):
        params = variables["params"]
        if dtype is not None:
            params, inputs = precision.cast_floats((params, inputs), dtype)
        variables = {**variables, "params": gathered(params)}
        hybrid, concepts = model.apply(variables, *inputs, method=method)
        return Encoded(layers.l2_normalise(hybrid), jnp.asarray(concepts))

    def images(variables, pixels):
        return apply(variables, "encode_images", augmentation.normalise(pixels))

    def texts(variables, tokens, lengths, word_concepts):
        # The host keeps word concepts in a byte each.
        word_concepts = word_concepts.astype(jnp.float32)
        return apply(variables, "encode_texts", tokens, lengths, word_concepts)

    return images, texts


def make_encoders(model: nn.Module, layout: Layout, dtype: DTypeLike | None = None) -> Encoders:
    """Returns jitted encoders of a `DualEncoder` in evaluation mode.

    Args:
      model: a `DualEncoder`.
      layout: where its variables lie.
      dtype: that weights and activations are cast to; None leaves them.
    """
    images, texts = encoder_functions(model, dtype, layout.gathered)
    split = layout.batch
    compiled = partial(
        jax.jit,
        out_shardings=layout.whole,
        compiler_options=mesh.compiler_options(layout.mesh),
    )
    return Encoders(
        compiled(images, in_shardings=(None, split)),
        compiled(texts, in_shardings=(None, split, split, split)),
        layout,
    )


def embed_images(encoders: Encoders, variables: Any, images: Rows, batch_size: int) -> np.ndarray:
    """Embeds uint8[N, S, S, 3] (may be read lazily) -> f32[N, E], unit vectors."""
    batches = _padded_batches((images,), batch_size, encoders.layout)
    return _collect(lambda arrays: encoders.images(variables, *arrays).embeddings, batches)


def encode_images(encoders: Encoders, variables: Any, images: Rows, batch_size: int) -> Encoded:
    """Encodes uint8[N, S, S, 3] (may be read lazily), on the host."""
    batches = _padded_batches((images,), batch_size, encoders.layout)
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
    batches = _padded_batches((tokens, lengths, word_concepts), batch_size, encoders.layout)
    return _collect(lambda arrays: encoders.texts(variables, *arrays).embeddings, batches)


def encode_texts(
    encoders: Encoders,
    variables: Any,
    tokens: np.ndarray,
    lengths: np.ndarray,
    word_concepts: np.ndarray,
    batch_size: int,
) -> Encoded:
    """Encodes captions i32[M, T], i32[M], [M, N], on the host."""
    batches = _padded_batches((tokens, lengths, word_concepts), batch_size, encoders.layout)
    return _collect(lambda arrays: encoders.texts(variables, *arrays), batches)


def embed(encoders: Encoders, variables: Any, examples: Examples, batch_size: int) -> Embeddings:
    """Embeds the images and captions of a split; unit vectors, so that their scores are cosines.

    Args:
      encoders: from `make_encoders`.
      variables: of the model.
      examples: the split.
      batch_size: of the encoding.
    """
    return Embeddings(
        images=embed_images(encoders, variables, examples.images, batch_size),
        captions=embed_texts(
            encoders,
            variables,
            examples.tokens,
            examples.lengths,
            examples.word_concepts,
            batch_size,
        ),
    )


def _padded_batches(
    arrays: tuple[Rows, ...], batch_size: int, layout: Layout
) -> Iterator[tuple[int, tuple[jax.Array, ...]]]:
    """Yields (rows that count, arrays of one fixed size); a batch's last row fills it up.

    One size means one compilation. It is a multiple of the devices, but the rows that count are
    `batch_size` on any number of them: with the release's padding the embedding of a caption
    depends on the others of its batch, and repeating one of those changes nothing.
    """
    total, devices = arrays[0].shape[0], layout.mesh.size
    count = min(batch_size, total)
    local = mesh.local_rows(layout, -(-count // devices) * devices)
    for start in range(0, total, count):
        end = min(start + count, total)
        rows = np.minimum(start + local, end - 1)
        batch = tuple(array[rows] for array in arrays)
        yield end - start, mesh.put_batch(layout, batch)


def _collect(encode: Callable[..., Any], batches: Iterator[tuple[int, tuple]]) -> Any:
    # Results are fetched one batch late: the device works while the host reads the next rows.
    collected, pending = [], None
    for count, arrays in batches:
        if pending is not None:
            collected.append(_on_host(*pending))
        pending = (count, encode(arrays))
    if pending is not None:
        collected.append(_on_host(*pending))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *collected)


def _on_host(count: int, encoded: Any) -> Any:
    return jax.tree.map(lambda array: np.asarray(array)[:count], encoded)
