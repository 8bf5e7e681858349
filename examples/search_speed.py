"""Measures how long the top 10 of 1,000 queries among 1,000,000 embeddings take.

python examples/search_speed.py --out=runs/search_speed

It draws unit vectors of 512 numbers, writes them as an index, and searches them exactly and through
FAISS. `--clusters=0` draws them all over the sphere, where nothing is near anything; otherwise they
lie around as many directions, as the images of a real collection do. It needs about twice as much
free disk as the embeddings take. FAISS is left out where it is not installed.
"""

import argparse
import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from input_pipeline.images.bands import BandChoice
from kamcl_jax.search import searching
from kamcl_jax.search.index import FileState, ImageIndex, IndexSettings, read_rows, row_writer
from kamcl_jax.search.searching import Found

AT_ONCE = 2**15
SHARES = (1 / 128, 1 / 32, 1 / 8)
SPREAD = 0.7
"""The length of the noise that is added to a direction of length 1."""


def main() -> None:
    """Measures, and prints what it measures as it goes."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        index, queries = _drawn(Path(folder), arguments)
        print(f"{len(index.files)} embeddings, {len(queries)} queries, on {jax.devices()[0]}")
        _report_peak("drawing them")
        exact = _measure_exact(index, queries, arguments.k)
        if importlib.util.find_spec("faiss"):
            _measure_faiss(index, queries, arguments.k, exact)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for what is drawn")
    parser.add_argument("--embeddings", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=0, help="0: all over the sphere")
    parser.add_argument("--k", type=int, default=10)
    return parser.parse_args()


def _drawn(folder: Path, arguments: argparse.Namespace) -> tuple[ImageIndex, np.ndarray]:
    """Returns an index of random embeddings, and queries that are drawn alike."""
    generator = np.random.default_rng(0)
    width = arguments.width
    centres = _unit(generator.standard_normal((arguments.clusters, width), np.float32))

    def draw(count: int) -> np.ndarray:
        noise = generator.standard_normal((count, width), np.float32)
        if not len(centres):
            return _unit(noise)
        return _unit(centres[generator.integers(0, len(centres), count)] + SPREAD * _unit(noise))

    settings = IndexSettings("drawn", "drawn", BandChoice(), widths=(width, 0))
    with row_writer(folder, settings.widths) as append:
        for start in range(0, arguments.embeddings, AT_ONCE):
            rows = range(start, min(start + AT_ONCE, arguments.embeddings))
            files = [FileState(f"{row:07}.png", 0, 0) for row in rows]
            append(files, draw(len(rows)), np.zeros((len(rows), 0)))
    rows = read_rows(folder, settings.widths)
    return ImageIndex(folder, folder, folder, settings, *rows), draw(arguments.queries)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _measure_exact(index: ImageIndex, queries: np.ndarray, k: int) -> list[list[Found]]:
    some = index.embeddings[:AT_ONCE]
    _, seconds = _timed(lambda: queries @ some.T)
    print(f"matrix product by itself: {2 * some.size * len(queries) / seconds / 1e9:.0f} GFLOP/s")
    for name in ("with compilation", "again"):
        found, seconds = _timed(lambda: searching.search(index, queries, k))
        rate = 2 * index.embeddings.size * len(queries) / seconds / 1e9
        print(f"exact, {name}: {seconds:.2f} s, {rate:.0f} GFLOP/s")
    for name in ("with compilation", "again"):
        _, seconds = _timed(lambda: searching.search(index, queries[:1], k))
        print(f"exact, a single query, {name}: {seconds:.2f} s")
    _report_peak("exact search")
    return found


def _measure_faiss(
    index: ImageIndex, queries: np.ndarray, k: int, exact: list[list[Found]]
) -> None:
    _, seconds = _timed(lambda: searching.faiss_top_k(index, queries[:1], k))
    print(f"FAISS, making its groups: {seconds:.0f} s")
    for share in SHARES:
        (_, rows), seconds = _timed(
            lambda share=share: searching.faiss_top_k(index, queries, k, share=share)
        )
        shared = [
            len({image.row for image in found} & set(some))
            for found, some in zip(exact, rows.tolist(), strict=True)
        ]
        recall = np.mean(shared) / k
        print(f"FAISS, {share:.4f} of the groups: {seconds:.2f} s, recall@{k} {recall:.3f}")
    _, seconds = _timed(lambda: searching.faiss_top_k(index, queries[:1], k))
    print(f"FAISS, a single query: {seconds:.2f} s")
    _report_peak("FAISS")


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _report_peak(after: str) -> None:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak of resident memory after {after}: {kilobytes / 2**20:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
