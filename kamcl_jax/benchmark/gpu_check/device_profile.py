"""Part (d): what the device does while our program trains, out of JAX's profile."""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from kamcl_jax.benchmark.gpu_check.step_times import DTYPES
from kamcl_jax.benchmark.gpu_check.task import Task, changed
from kamcl_jax.benchmark.gpu_check.training import Training

LONGEST = 20
"""So many kernels are told."""


class Kernel(NamedTuple):
    """One run of a kernel, or of a copy, in ns."""

    name: str
    start: float
    end: float


def measure(task: Task) -> None:
    """Profiles some steps in each dtype, with their input where there are data."""
    for dtype in DTYPES:
        config = changed(task.config, dtype=dtype)
        task.attempt(dtype, partial(profile, config, task.sizes.traced_steps, task.work / dtype))


def profile(config: Any, count: int, folder: Path) -> dict[str, Any]:
    """Traces so many steps into a folder and returns what `summary` says of them."""
    training = Training.of(config)
    if training.subject.data is None:
        take = training.take
    else:
        fetch = training.open_feed("device")
        steps = itertools.count()

        def take(count: int) -> None:
            training.take_with_input(fetch, list(itertools.islice(steps, count)))

    take(3)
    shutil.rmtree(folder, ignore_errors=True)
    with jax.profiler.trace(folder):
        take(count)
    (written,) = folder.rglob("*.xplane.pb")
    return summary(list(kernels(jax.profiler.ProfileData.from_file(str(written)))), count)


def kernels(data: Any) -> Iterator[Kernel]:
    """Yields what ran on the first GPU of a profile; without a GPU, what XLA ran on the CPU."""
    planes = {plane.name: plane for plane in data.planes}
    gpu = planes.get("/device:GPU:0")
    if gpu is not None:
        # The other lines sum up what these have.
        for line in gpu.lines:
            if line.name.startswith("Stream"):
                for event in line.events:
                    yield Kernel(event.name, event.start_ns, event.start_ns + event.duration_ns)
        return
    for line in planes["/host:CPU"].lines:
        for event in line.events:
            if "hlo_op" in dict(event.stats):
                yield Kernel(event.name, event.start_ns, event.start_ns + event.duration_ns)


def summary(ran: list[Kernel], steps: int) -> dict[str, Any]:
    """Returns the share of the time in which anything ran, and the kernels that took longest.

    The time goes from the first kernel's start to the last one's end.
    """
    spans = sorted((kernel.start, kernel.end) for kernel in ran)
    window = max(end for _, end in spans) - spans[0][0]
    taken: dict[str, float] = defaultdict(float)
    runs: dict[str, int] = defaultdict(int)
    for kernel in ran:
        taken[kernel.name] += kernel.end - kernel.start
        runs[kernel.name] += 1
    longest = sorted(taken, key=lambda name: -taken[name])[:LONGEST]
    return {
        "busy": covered(spans) / window,
        "launches_a_step": len(ran) / steps,
        "seconds_a_step": window / steps / 1e9,
        "longest": [
            {
                "name": name,
                "seconds_a_step": taken[name] / steps / 1e9,
                "runs_a_step": runs[name] / steps,
                "share": taken[name] / sum(taken.values()),
            }
            for name in longest
        ],
    }


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Returns how much of the time lies in any of the spans, which are in order of their starts."""
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
