"""Part (c): the training step and its input, beside the PyTorch original's."""

import gc
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax

from kamcl_jax.benchmark import step_parts
from kamcl_jax.benchmark.against_original import TimedOriginal, TimedOriginalInput
from kamcl_jax.benchmark.gpu_check.task import Sizes, Task, changed
from kamcl_jax.benchmark.gpu_check.training import Training
from kamcl_jax.benchmark.step_parts import WHOLE
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.benchmark.trials import Budget, Timing, alternate
from kamcl_jax.config import data
from kamcl_jax.torch_release.original import PRECISIONS

DTYPES = ("float32", "bfloat16")
RESIDENCIES = ("device", "host")
LOADER = "the original's loader"
HIGHEST = "ours, float32 at the highest precision"
WORKERS = 10  # of the original's loader, by its option files

MOST_STEPS = 200
"""A trial takes no more steps than this, however short they are."""


def ours(dtype: str, batch: int) -> str:
    """Returns the name of our step's time."""
    return f"ours, {dtype}, batch {batch}"


def theirs(precision: str, batch: int) -> str:
    """Returns the name of the original's step's time."""
    return f"original, {precision}, batch {batch}"


def with_input(dtype: str, residency: str) -> str:
    """Returns the name of our step's time with its input, at the first batch size."""
    return f"ours, {dtype}, with input from the {residency}"


def measure(task: Task) -> None:
    """Times all of it, the most wanted first."""
    first, *others = task.sizes.batches
    started = time.monotonic()
    trainings = _compile(task, first)
    compiling = time.monotonic() - started
    for dtype, training in trainings.items():
        task.attempt(ours(dtype, first), partial(_time_ours, training, first, task.sizes))
    _original(task, first, trainings)
    _input(task, trainings)
    _loader(task, trainings)
    for batch in others:
        trainings.clear()
        _free()
        if task.left() < compiling:
            task.leave_out(f"batch {batch}", "no time was left to compile its steps")
            continue
        trainings = _compile(task, batch)
        # The original goes first: JAX keeps what memory it has once taken.
        _original(task, batch, trainings)
        _free()
        for dtype, training in trainings.items():
            task.attempt(ours(dtype, batch), partial(_time_ours, training, batch, task.sizes))
    trainings.clear()
    _free()
    if task.sizes.highest:
        task.attempt(HIGHEST, partial(_time_highest, task, first))


def _compile(task: Task, batch: int) -> dict[str, Training]:
    """Compiles the steps of both dtypes, at once: it is the host that works."""
    with ThreadPoolExecutor(len(DTYPES)) as pool:
        running = {
            dtype: pool.submit(Training.of, changed(task.config, batch_size=batch, dtype=dtype))
            for dtype in DTYPES
        }
        made = {}
        for dtype, future in running.items():
            try:
                made[dtype] = future.result()
            except Exception as error:
                task.attempt(ours(dtype, batch), partial(_raise, error))
    return made


def _raise(error: Exception) -> None:
    raise error


def _time_ours(training: Training, batch: int, sizes: Sizes) -> dict[str, Any]:
    timing = _timing(training.take, sizes)
    return {
        **_row(timing, batch),
        "compile_seconds": training.steps.compile_seconds,
        "bytes": training.steps.memory.peak,
        "flops": (training.steps.cost + training.steps.loop_cost).flops,
    }


def _time_highest(task: Task, batch: int) -> dict[str, Any]:
    with jax.default_matmul_precision("highest"):
        training = Training.of(changed(task.config, batch_size=batch, dtype="float32"))
        return _time_ours(training, batch, task.sizes)


def _original(task: Task, batch: int, trainings: dict[str, Training]) -> None:
    """Times the original's step on the batch of one of our trainings, in each precision."""
    if task.checkout is None or not trainings:
        return
    training = next(iter(trainings.values()))
    timed = training.subject
    augment = step_parts.augmenter(timed.settings, training.steps.layout)
    images = jax.device_get(augment(training.steps.variants[WHOLE].batch))
    original = build_original(task, timed, f"original, the model for batch {batch}")
    if original is None:
        return
    take = original.steps(timed.batch, images)

    def one(precision: str) -> dict[str, Any]:
        import torch

        on_gpu = jax.default_backend() == "gpu"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with original.computing_in(precision):
            row = _row(_timing(take, task.sizes), batch)
        return {**row, "bytes": torch.cuda.max_memory_allocated() if on_gpu else None}

    for precision in PRECISIONS:
        task.attempt(theirs(precision, batch), partial(one, precision))


def build_original(task: Task, timed: Subject, name: str) -> TimedOriginal | None:
    """Returns the original's model; None where it is not asked for, or cannot be made."""
    if task.checkout is None:
        return None
    made: list[TimedOriginal] = []

    def build() -> dict[str, Any]:
        assert task.checkout is not None
        made.append(TimedOriginal(task.checkout, timed.num_tokens, timed.config.queue_length))
        return {"device": made[0].device, "stand_ins": list(made[0].stand_ins)}

    task.attempt(name, build)
    return made[0] if made else None


def _input(task: Task, trainings: dict[str, Training]) -> None:
    """Times our steps with their batches, from the device's memory and from the host."""
    for residency in RESIDENCIES:
        for dtype, training in trainings.items():
            name = with_input(dtype, residency)
            if training.subject.data is None:
                task.leave_out(name, "there are no data")
            else:
                task.attempt(name, partial(_time_input, training, residency, task.sizes))


def _time_input(training: Training, residency: str, sizes: Sizes) -> dict[str, float]:
    started = time.perf_counter()
    fetch = training.open_feed(residency)
    training.take_with_input(fetch, range(2))  # it compiles what looks the batches up
    opened = time.perf_counter()
    training.take_with_input(fetch, range(2, 2 + sizes.input_steps))
    seconds = (time.perf_counter() - opened) / sizes.input_steps
    return {
        "seconds": seconds,
        "images_per_second": training.subject.config.batch_size / seconds,
        "opening_seconds": opened - started,
    }


def _loader(task: Task, trainings: dict[str, Training]) -> None:
    """Times the original's own data loader on the same files, in one process."""
    checkout = task.checkout
    if checkout is None or not trainings:
        return
    timed = next(iter(trainings.values())).subject
    examples = timed.data
    if examples is None:
        task.leave_out(LOADER, "there are no data")
        return

    def read() -> dict[str, float]:
        prepared, batch = data.open_data(task.config), timed.config.batch_size
        with tempfile.TemporaryDirectory() as folder:
            loader = TimedOriginalInput(checkout, Path(folder), prepared, examples, batch)
            timing = alternate({LOADER: loader.read}, Budget(rounds=2, seconds=0, most_rounds=2))
            return {"images_per_second": loader.images / timing[LOADER].median}

    task.attempt(LOADER, read)


def _timing(take: Callable[[int], None], sizes: Sizes) -> Timing:
    """Returns seconds a step, of trials of many steps in a row: so the host runs ahead."""
    if sizes.trial_seconds:
        take(1)  # the first one is slow
    started = time.perf_counter()
    take(1)
    one = time.perf_counter() - started
    count = max(1, min(MOST_STEPS, round(sizes.trial_seconds / one)))
    budget = Budget(rounds=sizes.trials, seconds=0, most_rounds=sizes.trials)
    trial = alternate({"": lambda: take(count)}, budget)[""]
    return Timing(tuple(seconds / count for seconds in trial.seconds))


def _row(timing: Timing, batch: int) -> dict[str, float]:
    return {**timing.summary(), "images_per_second": batch / timing.median}


def _free() -> None:
    """Gives the memory of what nobody holds any more back, to both frameworks."""
    gc.collect()
    if jax.default_backend() == "gpu":
        try:
            import torch
        except ImportError:
            return
        torch.cuda.empty_cache()
