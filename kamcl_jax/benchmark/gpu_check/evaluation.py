"""Part (f): how fast images and captions are embedded, ranked and indexed."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import ml_collections

from kamcl_jax.benchmark import command, report, step_parts, subject, trials
from kamcl_jax.benchmark.against_original import TimedOriginal
from kamcl_jax.benchmark.gpu_check.step_times import DTYPES, build_original
from kamcl_jax.benchmark.gpu_check.task import Task, changed
from kamcl_jax.benchmark.input_and_retrieval import first_captions
from kamcl_jax.benchmark.report import ORIGINAL
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.benchmark.trials import Budget
from kamcl_jax.config import build, data
from kamcl_jax.inference.model import TrainedModel, Words, assemble

BUDGET = Budget(rounds=2, seconds=0, most_rounds=3)

IndexImages = Callable[[TrainedModel, Path, Path], object]
"""(model, images, index) -> whatever; it makes an index of a folder of images."""


def measure(task: Task, index_images: IndexImages) -> None:
    """Times ours in each dtype, and the original, all with random weights."""
    timed = subject.make(task.config)
    if timed.data is None:
        task.leave_out("encoding", "there are no data")
        task.leave_out("indexing", "there are no data")
    else:
        for dtype in DTYPES:
            task.attempt(f"encoding, {dtype}", partial(encode, changed(task.config, dtype=dtype)))
        task.attempt("indexing", partial(index, task, timed, index_images))
    original = build_original(task, timed, "original, the model")
    if original is not None and timed.data is not None:
        task.attempt(f"encoding, {ORIGINAL}", partial(encode_original, timed, original))
    task.attempt("ranking", partial(rank, timed, original))


def encode(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the rates of our encoders."""
    timed = subject.make(config)
    state, layout = step_parts.first_state(timed)
    variables = build.retrieving_variables(timed.config, state)
    sample, timings = command.time_encoding(timed, variables, layout, None, BUDGET)
    assert sample is not None  # there are data
    return report.encoding_results(sample, timings)


def encode_original(timed: Subject, original: TimedOriginal) -> dict[str, Any]:
    """Returns the rate of the original's encoders, which take an image with each caption."""
    assert timed.data is not None
    size = timed.config.evaluation.batch_size
    sample = first_captions(timed.data.test, size if jax.default_backend() == "cpu" else 1000, size)
    timing = trials.alternate({ORIGINAL: original.encode(sample)}, BUDGET)[ORIGINAL]
    return {**timing.summary(), "pairs_per_second": sample.captions / timing.median}


def rank(timed: Subject, original: TimedOriginal | None) -> dict[str, Any]:
    """Returns how long it takes to rank as many scores as RSICD's test split has."""
    timings = command.time_ranking(timed, original, BUDGET)
    return {name: timing.summary() for name, timing in timings.items()}


def index(task: Task, timed: Subject, index_images: IndexImages) -> dict[str, Any]:
    """Returns how fast image files become an index: read, decoded, embedded and written."""
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
    model = assemble(0, config, words, build.retrieving_variables(config, state))
    size = config.evaluation.batch_size
    model.encode_images(timed.data.test.images[[0] * size])  # compiled before the clock starts
    started = time.perf_counter()
    index_images(model, images, folder)
    seconds = time.perf_counter() - started
    return {"images": count, "seconds": seconds, "images_per_second": count / seconds}
