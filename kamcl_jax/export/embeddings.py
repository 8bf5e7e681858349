"""What a model says of a split, as files for other programs: NumPy's .npz and Apache Parquet.

`embeddings_<split>.npz`, without pickled objects:

| array                | type       | what it is                                              |
|----------------------|------------|---------------------------------------------------------|
| `image_embeddings`   | f32[N, E]  | unit vectors                                            |
| `image_concepts`     | f32[N, C]  | probabilities of the concepts                           |
| `file_names`         | str[N]     | the images' files                                       |
| `caption_embeddings` | f32[M, E]  | unit vectors                                            |
| `caption_concepts`   | f32[M, C]  | probabilities of the concepts                           |
| `captions`           | str[M]     | their texts                                             |
| `image_of_caption`   | i32[M]     | the caption's row among the images                      |
| `concept_words`      | str[C]     | the words of the columns of the probabilities           |
| `step`               | i64        | the training step after which the model was saved       |

`embeddings_<split>.parquet`, a row for each image and then for each caption:

| column      | type          | what it is                                             |
|-------------|---------------|--------------------------------------------------------|
| `kind`      | string        | `image` or `caption`                                   |
| `file_name` | string        | the image, or the one that the caption describes       |
| `caption`   | string        | null for an image                                      |
| `embedding` | list<float32> | E entries, a unit vector                               |
| `concepts`  | list<float32> | C probabilities                                        |

The schema's metadata has `concept_words`, a JSON list, and `step`.
"""

import json
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from input_pipeline.splits.examples import Examples
from kamcl_jax.export.model_folder import write_file
from kamcl_jax.inference import embed
from kamcl_jax.inference.model import TrainedModel

ROWS_AT_ONCE = 2**14
"""How many rows a group of a Parquet file has, which are in memory at once."""


def file_names(split: str) -> tuple[str, str]:
    """Returns the names of both files of a split."""
    return f"embeddings_{split}.npz", f"embeddings_{split}.parquet"


def write(folder: Path, split: str, model: TrainedModel, examples: Examples) -> None:
    """Encodes a split, whose images have the model's size, and writes both files."""
    encoders, batch_size = (model.encoders, model.variables), model.config.evaluation.batch_size
    images, captions = embed.encode(*encoders, examples, batch_size)
    known = list(model.concepts.words)
    arrays: dict[str, Any] = {
        "image_embeddings": images.embeddings,
        "image_concepts": images.concepts[:, : len(known)],
        "file_names": np.array(list(examples.file_names)),
        "caption_embeddings": captions.embeddings,
        "caption_concepts": captions.concepts[:, : len(known)],
        "captions": np.array(list(examples.captions)),
        "image_of_caption": np.asarray(examples.image_of_caption),
        "concept_words": np.array(known),
        "step": np.array(model.step),
    }
    npz, parquet = file_names(split)
    write_file(folder / npz, lambda file: np.savez(file, allow_pickle=False, **arrays))
    write_file(folder / parquet, lambda file: _write_rows(file, arrays))


def _write_rows(file: IO[bytes], arrays: dict[str, Any]) -> None:
    vector = pa.list_(pa.float32())
    schema = pa.schema(
        {
            "kind": pa.string(),
            "file_name": pa.string(),
            "caption": pa.string(),
            "embedding": vector,
            "concepts": vector,
        },
        metadata={
            "concept_words": json.dumps(arrays["concept_words"].tolist()),
            "step": str(arrays["step"]),
        },
    )
    names, captions = arrays["file_names"], arrays["captions"]
    described = names[arrays["image_of_caption"]]
    with pq.ParquetWriter(file, schema) as writer:
        for kind, files, texts in (
            ("image", names, np.full(len(names), None)),
            ("caption", described, captions),
        ):
            for start in range(0, len(files), ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                columns = [
                    [kind] * len(files[rows]),
                    files[rows].tolist(),
                    texts[rows].tolist(),
                    _lists(arrays[f"{kind}_embeddings"][rows]),
                    _lists(arrays[f"{kind}_concepts"][rows]),
                ]
                writer.write_batch(pa.record_batch(columns, schema))


def _lists(values: np.ndarray) -> pa.Array:
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, values.reshape(-1))
