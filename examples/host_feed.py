"""Measures how many images a second this host feeds, against what a step eats; no data, no GPU.

python examples/host_feed.py --batch_size=100 --step_ms=14.8
python examples/host_feed.py --batch_size=800 --step_ms=16.1 --threads=1,4,16

It writes noise of the size of RSICD's training images (2 GB) into a temporary folder, maps it into
memory and reads batches as a training with `config.data.residency="host"` does. For each number of
reading threads (`config.data.read_threads`) it prints the images a second; how many these are for
each second of a core, which other work on the machine hardly changes; and what a step takes in a
loop with batches made ahead, sent to the devices that JAX finds, and a step that only waits.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from input_pipeline.splits import batches
from input_pipeline.splits.examples import Examples, SelectedRows
from kamcl_jax.benchmark import trials
from kamcl_jax.benchmark.input_and_retrieval import BatchReader
from kamcl_jax.benchmark.trials import Action
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.mesh import Layout

CAPTIONS, TOKENS, CONCEPTS = 5, 34, 512  # captions of an image, words of one, concepts: RSICD's
STEPS = 30  # of a trial of the loop

HEAD = [
    *("reading threads", "images/s", "of what the step eats", "images/s of a core"),
    "ms a step in the loop",
]


def write_noise(path: Path, images: int, side: int) -> None:
    """Writes u8[images, side, side, 3], of which the operating system then keeps a copy."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (images, side, side, 3))
    generator = np.random.default_rng(0)
    for row in array:
        row[:] = np.frombuffer(generator.bytes(row.size), np.uint8).reshape(row.shape)
    array.flush()  # otherwise it would be written while we measure


def noise_examples(path: Path, threads: int) -> Examples:
    """Returns a split whose images are those of the file, read by so many threads."""
    images = np.load(path, mmap_mode="r")
    captions = CAPTIONS * len(images)
    return Examples(
        images=SelectedRows(images, np.arange(len(images)), threads),
        image_ids=np.arange(len(images)),
        file_names=[""] * len(images),
        captions=[""] * captions,
        image_of_caption=np.arange(captions, dtype=np.int32) // CAPTIONS,
        tokens=np.ones((captions, TOKENS), np.int32),
        lengths=np.full(captions, TOKENS, np.int32),
        word_concepts=np.zeros((captions, CONCEPTS), np.uint8),
        image_concepts=np.zeros((len(images), CONCEPTS), np.float32),
    )


def paced(examples: Examples, layout: Layout, batch_size: int, step_seconds: float) -> None:
    """Trains without training: every step takes a batch on the devices, and waits so long."""

    def fetch(step: int) -> batches.Batch:
        captions = batches.batch_captions(0, step, len(examples.captions), batch_size)
        return mesh.put_batch(layout, batches.make_batch(examples, captions))

    for batch in batches.prefetched(fetch, range(STEPS)):
        jax.block_until_ready(batch)
        time.sleep(step_seconds)


def measure(
    splits: dict[int, Examples], batch_size: int, step_ms: float, seconds: float
) -> list[list[str]]:
    """Returns a row for each number of threads, with the columns of `HEAD`.

    `splits` has the same examples for each number of threads, which take turns for `seconds`.
    """
    layout = mesh.replicated(mesh.make_mesh())
    readers = {n: BatchReader(examples, 0, batch_size) for n, examples in splits.items()}
    reading: dict[str, Action] = {f"{n}": reader.read for n, reader in readers.items()}
    looping: dict[str, Action] = {
        f"{n}": partial(paced, examples, layout, batch_size, step_ms / 1e3)
        for n, examples in splits.items()
    }
    budget = trials.Budget(rounds=3, seconds=seconds, most_rounds=10**6)
    read = trials.alternate(reading, budget)
    worked = trials.alternate(reading, budget, time.process_time)
    looped = trials.alternate(looping, budget)
    eaten = batch_size / step_ms * 1e3
    rows = []
    for n, reader in readers.items():
        rate = reader.images / read[f"{n}"].median
        of_core = reader.images / worked[f"{n}"].median
        step = looped[f"{n}"].median / STEPS * 1e3
        rows.append([f"{n}", f"{rate:.0f}", f"{rate / eaten:.2f}", f"{of_core:.0f}", f"{step:.1f}"])
    return rows


def describe(batch_size: int, step_ms: float, rows: list[list[str]]) -> str:
    """Returns what was measured, in Markdown."""
    devices = jax.devices()
    return (
        f"A step of {step_ms} ms at batch {batch_size} eats {batch_size / step_ms * 1e3:.0f} "
        f"images/s; this host, with {len(devices)} x {devices[0].device_kind}, feeds:\n\n"
        f"{markdown_table(HEAD, rows)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=100, help="images of a host's batch")
    parser.add_argument("--step_ms", type=float, default=14.8, help="what the step takes")
    parser.add_argument("--threads", default="1,2,4,8,16", help="numbers of reading threads")
    parser.add_argument("--images", type=int, default=8735, help="images of the file")
    parser.add_argument("--side", type=int, default=278, help="their side in pixels")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    chosen = parser.parse_args(arguments)
    threads = [int(number) for number in chosen.threads.split(",")]
    numbers = (chosen.batch_size, chosen.images, chosen.side, *threads)
    if min(numbers) < 1 or chosen.step_ms <= 0 or chosen.batch_size > CAPTIONS * chosen.images:
        parser.error("all numbers must be positive, and a batch no larger than all captions")
    if chosen.batch_size % jax.device_count():
        parser.error(f"--batch_size must be a multiple of the {jax.device_count()} devices")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        write_noise(path, chosen.images, chosen.side)
        splits = {n: noise_examples(path, n) for n in threads}
        rows = measure(splits, chosen.batch_size, chosen.step_ms, chosen.seconds)
    print(describe(chosen.batch_size, chosen.step_ms, rows))


if __name__ == "__main__":
    main()
