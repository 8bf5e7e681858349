"""Part (f): how fast images and captions are embedded, ranked and indexed."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import ml_collections

from kamcl_jax.benchmark import command, report, step_parts, subject
from kamcl_jax.benchmark.against_original import TimedOriginal
from kamcl_jax.benchmark.gpu_check.step_times import DTYPES
from kamcl_jax.benchmark.gpu_check.task import Task, changed
from kamcl_jax.benchmark.report import ORIGINAL
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.benchmark.trials import Budget
from kamcl_jax.config import data
from kamcl_jax.inference.model import TrainedModel, Words, assemble

BUDGET = Budget(rounds=2, seconds=0, most_rounds=3)

IndexImages = Callable[[TrainedModel, Path, Path], object]
"""(model, images, index) -> whatever; it makes an index of a folder of images."""


def measure(task: Task, index_images: IndexImages) -> None:
    """Times ours in each dtype and the original, with random weights."""
    for dtype in DTYPES:
        config = changed(task.config, dtype=dtype)
        task.attempt(f"encoding, {dtype}", partial(encode, task, config, dtype == DTYPES[0]))
    task.attempt("ranking", partial(rank, task))
    if subject.has_data(task.config):
        task.attempt("indexing", partial(index, task, index_images))
    else:
        task.leave_out("indexing", "there are no data")


def encode(task: Task, config: ml_collections.ConfigDict, with_original: bool) -> dict[str, Any]:
    """Returns the rates of the encoders, and of the original's where it is asked for."""
    timed = subject.make(config)
    state, layout = step_parts.first_state(timed)
    theirs = _original(task, timed) if with_original else None
    sample, timings = command.time_encoding(timed, state.variables, layout, theirs, BUDGET)
    if sample is None:
        raise ValueError("there are no data")
    found = report.encoding_results(sample, timings)
    if ORIGINAL in timings:
        pairs = timings[ORIGINAL].median
        found["original_pairs_per_second"] = sample.captions / pairs
    return found


def rank(task: Task) -> dict[str, Any]:
    """Returns how long it takes to rank as many scores as RSICD's test split has."""
    timed = subject.make(task.config)
    timings = command.time_ranking(timed, _original(task, timed), BUDGET)
    return {name: timing.summary() for name, timing in timings.items()}


def _original(task: Task, timed: Subject) -> TimedOriginal | None:
    if task.checkout is None:
        return None
    return TimedOriginal(task.checkout, timed.num_tokens, timed.config.queue_length)


def index(task: Task, index_images: IndexImages) -> dict[str, Any]:
    """Returns how fast image files become an index: read, decoded, embedded and written."""
    timed = subject.make(task.config)
    assert timed.data is not None
    images, folder = task.work / "indexed_images", task.work / "index"
    for old in (images, folder):
        shutil.rmtree(old, ignore_errors=True)
    images.mkdir()
    count = 0
    prepared = data.open_data(task.config)
    for number in islice(range(prepared.num_images), task.sizes.indexed):
        file = prepared.encoded_image(number)
        (images / f"{number}{Path(file.file_name).suffix}").write_bytes(file.encoded)
        count += 1
    known, concepts = timed.data.vocabulary.words, timed.data.concepts.words
    words = Words(list(known), list(concepts), timed.num_concepts)
    state, _ = step_parts.first_state(timed)
    config = ml_collections.ConfigDict(timed.config.to_dict())
    model = assemble(0, config, words, state.variables)
    size = config.evaluation.batch_size
    model.encode_images(timed.data.test.images[[0] * size])  # compiled before the clock starts
    started = time.perf_counter()
    index_images(model, images, folder)
    seconds = time.perf_counter() - started
    return {"images": count, "seconds": seconds, "images_per_second": count / seconds}
