"""Approximate search of an index through FAISS, for more images than exact search is quick for.

The embeddings are grouped around `num_lists` centres; a query is compared with those of the
nearest centres only. The groups lie in `faiss.index` beside the rows, and take as much of the disk
as the embeddings. FAISS is optional: `pip install faiss-cpu`.
"""

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from input_pipeline import storage
from input_pipeline.errors import DataError
from kamcl_jax.search.index import ImageIndex

NAME = "faiss.index"
ROWS_A_LIST = 40
"""At least, on average, and as many are looked at to place the centres; FAISS warns of fewer."""

SHARE_OF_LISTS = 1 / 32
"""That a query is compared with, unless told."""

ADDED_AT_ONCE = 2**16


def num_lists(num_rows: int) -> int:
    """Returns into how many groups as many embeddings are put: 4 sqrt(N), fewer if N is small."""
    return max(1, min(int(4 * math.sqrt(num_rows)), num_rows // ROWS_A_LIST))


def top_k(
    index: ImageIndex, queries: np.ndarray, k: int, *, share: float = SHARE_OF_LISTS
) -> tuple[np.ndarray, np.ndarray]:
    """Finds most of the k nearest images of each query.

    The groups are made when they are needed first. Rows that the index has got since then are
    added to them; they are made anew where there are more than twice as many rows. If they cannot
    be written, that is said on stderr, and the next search makes them again.

    Args:
      index: to search.
      queries: f32[Q, E], unit vectors.
      k: how many.
      share: of the groups that a query is compared with.

    Returns:
      Scores f32[Q, K], descending, and rows i64[Q, K], K = min(k, N); a row of -1 is none.

    Raises:
      ValueError: k is less than 1.
      DataError: FAISS is not installed.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    faiss = _faiss()
    if not len(index.embeddings):
        return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    groups = _up_to_date(faiss, index)
    groups.nprobe = math.ceil(share * groups.nlist)
    return groups.search(_in_memory(queries), min(k, len(index.embeddings)))


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise DataError("--faiss needs FAISS: pip install faiss-cpu.") from error
    return faiss


def _up_to_date(faiss: ModuleType, index: ImageIndex) -> Any:
    """Returns the groups of all rows, from the file if it has them, and else writes them there."""
    path, total = index.generation / NAME, len(index.embeddings)
    groups = _read(faiss, path, faiss.IO_FLAG_MMAP)
    if groups is not None and groups.ntotal == total:
        return groups
    # A generation's rows never change, so that those in the file are the first ones.
    if groups is not None and groups.ntotal <= total <= 2 * groups.ntotal:
        groups = _read(faiss, path, 0)  # mapped ones take no more rows
    else:
        groups = None
    if groups is None:
        groups = _trained(faiss, index.embeddings)
    with tqdm(total=total, initial=groups.ntotal, desc="adding to FAISS", delay=1.0) as bar:
        for start in range(groups.ntotal, total, ADDED_AT_ONCE):
            groups.add(_in_memory(index.embeddings[start : start + ADDED_AT_ONCE]))
            bar.update(groups.ntotal - start)
    _write(faiss, groups, path)
    return groups


def _read(faiss: ModuleType, path: Path, flags: int) -> Any:
    try:
        return faiss.read_index(str(path), flags) if path.exists() else None
    except RuntimeError:  # damaged: it is made anew
        return None


def _write(faiss: ModuleType, groups: Any, path: Path) -> None:
    try:
        with storage.replaced(path) as file:
            faiss.write_index(groups, faiss.PyCallbackIOWriter(file.write))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        print(f"{path} cannot be written: {reason}", file=sys.stderr, flush=True)


def _trained(faiss: ModuleType, embeddings: np.ndarray) -> Any:
    """Returns groups around centres, without rows."""
    total, width = embeddings.shape
    lists = num_lists(total)
    groups = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    sampled = np.linspace(0, total - 1, min(total, ROWS_A_LIST * lists)).astype(np.int64)
    print(f"grouping {total} embeddings around {lists} centres", file=sys.stderr, flush=True)
    groups.train(_in_memory(embeddings[sampled]))
    return groups


def _in_memory(embeddings: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(embeddings, np.float32)
