"""Searches an index, exactly or through FAISS.

Through FAISS the embeddings of N images are grouped around 4 sqrt(N) centres, and a query is
compared with the groups of the nearest centres only. That is quicker for more than a million
images. The groups lie in `faiss.index` beside the rows, and take as much of the disk as the
embeddings. FAISS is optional: `pip install faiss-cpu`.
"""

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.language.tokens import tokenize
from input_pipeline.language.word_tokenizer import WordTokenizer
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.ranking.top_k import top_k
from kamcl_jax.search.index import ImageIndex, printable

SCORES_NOTE = "Scores order the images of one search; alone they mean nothing."

FAISS_FILE = "faiss.index"
ROWS_A_GROUP = 40
"""At least as many rows are in a group on average, and place its centre; FAISS warns of fewer."""

ADDED_AT_ONCE = 2**16


class Found(NamedTuple):
    """An image that a query has found.

    Attributes:
      row: Its row in the index.
      file: Its path below the index's `images_root`.
      score: The cosine of its embedding and the query's.
    """

    row: int
    file: str
    score: float


def search(
    index: ImageIndex, queries: np.ndarray, k: int, *, approximate: bool = False
) -> list[list[Found]]:
    """Finds the nearest images.

    Args:
      index: The index to search.
      queries: f32[Q, E], unit vectors.
      k: How many images a query finds; all of them if the index has fewer.
      approximate: Whether to search through FAISS, which is sooner but misses some.

    Returns:
      For each query its images, the nearest first.
    """
    if approximate:
        scores, rows = faiss_top_k(index, queries, k)
    else:
        scores, rows = top_k(queries, index.embeddings, k)
    return [
        [
            Found(row, index.files[row], score)
            for row, score in zip(some_rows, some_scores, strict=True)
            if row >= 0
        ]
        for some_rows, some_scores in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def query_notes(model: TrainedModel, query: str) -> list[str]:
    """Returns what a user should know of how the model reads a query, in sentences."""
    notes, max_tokens = [], model.config.data.max_tokens
    if model.is_cut(query):
        read = f"the first {max_tokens} words" if max_tokens else "the beginning of so long a query"
        notes.append(f"The model reads only {read}.")
    if not isinstance(model.tokenizer, WordTokenizer):
        return notes
    unknown = model.unknown_words(query)
    if unknown:
        notes.append(f"The model does not know: {', '.join(map(printable, unknown))}.")
    tokens = tokenize(query)[: max_tokens or None]
    if not model.concepts.columns_of(tokens) and not any(
        word in model.vocabulary for word in tokens
    ):
        notes.append("It knows no word of this query, so the order of the images means nothing.")
    return notes


def faiss_top_k(
    index: ImageIndex, queries: np.ndarray, k: int, *, share: float = 1 / 32
) -> tuple[np.ndarray, np.ndarray]:
    """Finds most of the k nearest images of each query.

    The groups are made when they are first needed. Rows that are new since then are added to them,
    and beyond twice as many rows they are made anew. If they cannot be written, that is said on
    stderr, and the next search makes them again.

    A query is compared with a `share` of the groups; the other arguments are those of `search`.

    Returns:
      Scores f32[Q, K], descending, and rows i64[Q, K], where K = min(k, N); a row of -1 is none.
    """
    try:
        import faiss
    except ImportError as error:
        raise DataError("--faiss needs FAISS: pip install faiss-cpu.") from error
    if not len(index.embeddings):
        return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    groups = _groups_of_all_rows(faiss, index)
    groups.nprobe = math.ceil(share * groups.nlist)
    return groups.search(_in_memory(queries), min(k, len(index.embeddings)))


def _groups_of_all_rows(faiss: ModuleType, index: ImageIndex) -> Any:
    path, total = index.generation / FAISS_FILE, len(index.embeddings)
    groups = _read_groups(faiss, path, faiss.IO_FLAG_MMAP)
    if groups is not None and groups.ntotal == total:
        return groups
    # The rows of a generation never change, so those in the file are the first ones.
    few_are_new = groups is not None and groups.ntotal <= total <= 2 * groups.ntotal
    groups = _read_groups(faiss, path, 0) if few_are_new else None  # mapped ones take no more rows
    if groups is None:
        groups = _groups_without_rows(faiss, index.embeddings)
    with tqdm(total=total, initial=groups.ntotal, desc="adding to FAISS", delay=1.0) as bar:
        for start in range(groups.ntotal, total, ADDED_AT_ONCE):
            groups.add(_in_memory(index.embeddings[start : start + ADDED_AT_ONCE]))
            bar.update(groups.ntotal - start)
    try:
        with storage.replaced(path) as file:
            faiss.write_index(groups, faiss.PyCallbackIOWriter(file.write))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"{path} cannot be written: {reason}", file=sys.stderr, flush=True)
    return groups


def _read_groups(faiss: ModuleType, path: Path, flags: int) -> Any:
    try:
        return faiss.read_index(str(path), flags) if path.exists() else None
    except RuntimeError:  # damaged: it is made anew
        return None


def _groups_without_rows(faiss: ModuleType, embeddings: np.ndarray) -> Any:
    total, width = embeddings.shape
    count = max(1, min(int(4 * math.sqrt(total)), total // ROWS_A_GROUP))
    groups = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, count, faiss.METRIC_INNER_PRODUCT)
    sampled = np.linspace(0, total - 1, min(total, ROWS_A_GROUP * count)).astype(np.int64)
    print(f"grouping {total} embeddings around {count} centres", file=sys.stderr, flush=True)
    groups.train(_in_memory(embeddings[sampled]))
    return groups


def _in_memory(embeddings: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(embeddings, np.float32)
