"""What a model says of a split, as files for other programs: NumPy's .npz and Apache Parquet.

`embeddings_<split>.npz`, without pickled objects:

| array                | type       | what it is                                              |
|----------------------|------------|---------------------------------------------------------|
| `image_embeddings`   | f32[N, E]  | unit vectors                                            |
| `image_concepts`     | f32[N, C]  | probabilities of the concepts                           |
| `file_names`         | str[N]     | of the images                                           |
| `caption_embeddings` | f32[M, E]  | unit vectors                                            |
| `caption_concepts`   | f32[M, C]  | probabilities of the concepts                           |
| `captions`           | str[M]     |                                                         |
| `image_of_caption`   | i32[M]     | the caption's row among the images                      |
| `concept_words`      | str[C]     | of the columns of the probabilities                     |
| `step`               | i64        | of the training, after which the model was saved        |

`embeddings_<split>.parquet`, a row for each image and then for each caption:

| column      | type          | what it is                                             |
|-------------|---------------|--------------------------------------------------------|
| `kind`      | string        | `image` or `caption`                                   |
| `file_name` | string        | of the image, or of the one that the caption describes |
| `caption`   | string        | null for an image                                      |
| `embedding` | list<float32> | E entries, a unit vector                               |
| `concepts`  | list<float32> | C probabilities                                        |

The schema's metadata has `concept_words`, a JSON list, and `step`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from input_pipeline.splits.examples import Examples
from kamcl_jax.export import whole_files
from kamcl_jax.inference import embed
from kamcl_jax.inference.embed import Encoded
from kamcl_jax.inference.model import TrainedModel

ROWS_AT_ONCE = 2**14
"""Rows of a group of a Parquet file, in memory at once."""


class EncodedSplit(NamedTuple):
    """What a model says of a split.

    Attributes:
      examples: the split.
      images: of its N images.
      captions: of its M captions.
      concept_words: C words.
      step: of the training, after which the model was saved.
    """

    examples: Examples
    images: Encoded
    captions: Encoded
    concept_words: list[str]
    step: int


def file_names(split: str) -> tuple[str, str]:
    """Returns the names of both files of a split."""
    return f"embeddings_{split}.npz", f"embeddings_{split}.parquet"


def write(folder: Path, split: str, model: TrainedModel, examples: Examples) -> None:
    """Encodes a split and writes both files.

    Args:
      folder: to write to.
      split: its name.
      model: that was trained with the split's data.
      examples: the split, images at the model's size.

    Raises:
      ExportError: a file cannot be written.
    """
    encoded = encode(model, examples)
    npz, parquet = file_names(split)
    write_npz(folder / npz, encoded)
    write_parquet(folder / parquet, encoded)


def encode(model: TrainedModel, examples: Examples) -> EncodedSplit:
    """Encodes the images and captions of a split.

    Args:
      model: that was trained with the split's data.
      examples: the split, images at the model's size.
    """
    encoders, batch_size = (model.encoders, model.variables), model.config.evaluation.batch_size
    images = embed.encode_images(*encoders, examples.images, batch_size)
    words = (examples.tokens, examples.lengths, examples.word_concepts)
    captions = embed.encode_texts(*encoders, *words, batch_size)
    known = len(model.concepts)
    images, captions = (
        Encoded(encoded.embeddings, encoded.concepts[:, :known]) for encoded in (images, captions)
    )
    return EncodedSplit(examples, images, captions, list(model.concepts.words), model.step)


def write_npz(path: Path, split: EncodedSplit) -> None:
    """Writes the .npz file.

    Raises:
      ExportError: it cannot be written.
    """
    arrays = {
        "image_embeddings": split.images.embeddings,
        "image_concepts": split.images.concepts,
        "file_names": np.array(list(split.examples.file_names)),
        "caption_embeddings": split.captions.embeddings,
        "caption_concepts": split.captions.concepts,
        "captions": np.array(list(split.examples.captions)),
        "image_of_caption": np.asarray(split.examples.image_of_caption),
        "concept_words": np.array(split.concept_words),
        "step": np.array(split.step),
    }
    whole_files.write(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def write_parquet(path: Path, split: EncodedSplit) -> None:
    """Writes the Parquet file.

    Raises:
      ExportError: it cannot be written.
    """
    whole_files.write(path, lambda file: _write_rows(file, split))


def _write_rows(file: IO[bytes], split: EncodedSplit) -> None:
    vector = pa.list_(pa.float32())
    schema = pa.schema(
        {
            "kind": pa.string(),
            "file_name": pa.string(),
            "caption": pa.string(),
            "embedding": vector,
            "concepts": vector,
        },
        metadata={"concept_words": json.dumps(split.concept_words), "step": str(split.step)},
    )
    examples = split.examples
    names = examples.file_names
    with pq.ParquetWriter(file, schema) as writer:
        for rows in _blocks(len(names)):
            none = [None] * (rows.stop - rows.start)
            columns = _columns("image", names[rows], none, split.images, rows)
            writer.write_batch(pa.record_batch(columns, schema))
        for rows in _blocks(len(examples.captions)):
            described = [names[image] for image in examples.image_of_caption[rows].tolist()]
            texts = examples.captions[rows]
            columns = _columns("caption", described, texts, split.captions, rows)
            writer.write_batch(pa.record_batch(columns, schema))


def _blocks(length: int) -> list[slice]:
    starts = range(0, length, ROWS_AT_ONCE)
    return [slice(start, min(start + ROWS_AT_ONCE, length)) for start in starts]


def _columns(
    kind: str,
    file_names: Sequence[str],
    captions: Sequence[str | None],
    encoded: Encoded,
    rows: slice,
) -> list[pa.Array]:
    return [
        pa.array([kind] * len(file_names), pa.string()),
        pa.array(file_names, pa.string()),
        pa.array(captions, pa.string()),
        _lists(np.asarray(encoded.embeddings[rows])),
        _lists(np.asarray(encoded.concepts[rows])),
    ]


def _lists(values: np.ndarray) -> pa.Array:
    """Turns f32[R, W] into R lists."""
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, values.reshape(-1))
