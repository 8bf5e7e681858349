"""Measures how the training step and the evaluation grow with every size that may grow.

python examples/growth.py --out=runs/growth

It varies one size at a time of a narrow KAMCL (a ResNet-18 of width 16, a GRU of 256, embeddings
of 128, float32) on noise, and writes growth.md, growth.png and growth.json, which takes about six
minutes on two cores. `--axes` chooses what to vary; `--largest` adds the evaluation of 100k images
and 500k captions, which takes twelve minutes more.
"""

import argparse
import dataclasses
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import ml_collections
import numpy as np

from configs import base
from examples import growth_report
from examples.growth_report import EVALUATION, Axis, Point
from kamcl_jax.benchmark import trials
from kamcl_jax.benchmark.roofline import compiled_cost, uncounted_loop_cost
from kamcl_jax.benchmark.subject import HostBatch, device_words, noise_batch
from kamcl_jax.config import build, recipe
from kamcl_jax.parallel import compilation, mesh
from kamcl_jax.ranking.ranks import rank_both_ways
from kamcl_jax.ranking.scores import Embeddings
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import make_train_step

VOCABULARY = 1226  # words of RSICD
EVALUATED_WIDTH = 512  # of the published embeddings
TRIALS = 3
SHORT = 3.0
"""The trials of a step go on for at least these seconds: short steps are disturbed easily."""

LONG = 20.0
"""From these seconds on a ranking is not repeated: there its compilation does not matter."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a training step; an axis of growth is one of the fields."""

    batch: int = 16  # pairs on each device
    image: int = 128  # pixels of a side
    queue: int = 2**13  # keys of a modality
    words: int = 16  # of the longest caption
    devices: int = 1  # that share the batch


def narrow_config() -> ml_collections.ConfigDict:
    """Returns the published training with smaller widths, so that a sweep takes minutes."""
    config = base.get_config()
    config.embedding_size = 128
    config.num_concepts = 128
    config.image_encoder.width = 16
    config.text_encoder.word_width = 128
    config.text_encoder.hidden_width = 256
    return config


def config_of(sizes: Sizes) -> ml_collections.ConfigDict:
    """Returns the narrow training of these sizes."""
    config = narrow_config()
    config.batch_size = sizes.batch * sizes.devices
    config.image_size = sizes.image
    config.queue_length = sizes.queue
    return config


def noise_state(config: ml_collections.ConfigDict) -> TrainState:
    """Returns a train state of positive noise: an initialisation takes long to compile."""
    generator = np.random.default_rng(0)

    def fill(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if np.issubdtype(leaf.dtype, np.floating):
            return (0.02 * generator.random(leaf.shape, np.float32)).astype(leaf.dtype)
        return np.zeros(leaf.shape, leaf.dtype)

    state = build.abstract_state(config, VOCABULARY, config.num_concepts)
    return jax.tree.map(fill, state)


def noise(config: ml_collections.ConfigDict, words: int) -> HostBatch:
    """Returns a training batch of noise; captions have `words` words, or down to half as many."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(-(-words // 2), words + 1, config.batch_size, dtype=np.int32)
    lengths[0] = words
    return noise_batch(config, lengths, words, VOCABULARY, generator)


@functools.cache
def measure_step(sizes: Sizes) -> Point:
    """Compiles and times a training step; what was measured once is remembered.

    Returns:
      `seconds`: the median of three trials or more, after one that is not counted. `flops` of
      each device: XLA's count, with all rounds of the loops. `memory` of each device, in bytes.
    """
    config = config_of(sizes)
    layout = mesh.replicated(mesh.make_mesh(data=sizes.devices))
    step = make_train_step(
        build.make_model(config, VOCABULARY, config.num_concepts),
        recipe.make_optimizer(config, steps_per_epoch=1),
        recipe.make_settings(config, steps_per_epoch=1),
        layout,
    )
    shapes = build.abstract_batch(config, sizes.words, config.num_concepts)
    state = jax.device_put(noise_state(config), layout.state)
    batch = mesh.put_batch(layout, noise(config, sizes.words))
    loops = uncounted_loop_cost(step.trace(state, batch).jaxpr, sizes.words)
    abstract = build.abstract_state(config, VOCABULARY, config.num_concepts)
    compiled = compilation.compile_step(step, abstract, shapes, layout)

    def take() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, batch))

    return {
        "seconds": trials.alternate({"step": take}, trials.Budget(TRIALS, SHORT))["step"].median,
        "flops": (compiled_cost(compiled) + loops / sizes.devices).flops,
        "memory": compilation.memory(compiled).peak,
    }


def measure_ranking(images: int) -> Point:
    """Times ranking both ways from random embeddings of so many images with five captions each.

    Returns:
      `seconds`, the bytes of this process's memory at its `peak` and `before` the ranking, and the
      bytes that the whole `matrix` of scores would take.
    """
    generator = np.random.default_rng(0)
    image_of_caption = np.arange(5 * images) // 5
    embeddings = Embeddings(
        _unit_vectors(generator, images), _unit_vectors(generator, len(image_of_caption))
    )
    jax.block_until_ready(jax.numpy.zeros(1))  # the backend is there
    before = _peak_memory()
    seconds = []
    while len(seconds) <= TRIALS and (not seconds or seconds[0] < LONG):
        seconds.append(_seconds(lambda: rank_both_ways(embeddings, image_of_caption)))
    return {
        "seconds": statistics.median(seconds[1:] or seconds),
        "peak": _peak_memory(),
        "before": before,
        "matrix": 4.0 * images * len(image_of_caption),
    }


def _unit_vectors(generator: np.random.Generator, count: int) -> np.ndarray:
    """Returns f32[count, EVALUATED_WIDTH]."""
    vectors = generator.standard_normal((count, EVALUATED_WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _peak_memory() -> float:
    """Returns the most bytes that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


AXES = {
    "batch": Axis("Batch", "pairs a step", (8, 16, 64, 256)),
    "image": Axis("Image size", "pixels of a side", (64, 128, 256, 512)),
    "queue": Axis("Queue", "keys a modality", (2**10, 2**13, 2**16, 2**20)),
    "words": Axis("Caption length", "words of the longest caption", (8, 16, 32, 128)),
    "devices": Axis("Devices", "simulated devices", (1, 2, 4, 8), alone=True),
    EVALUATION: Axis(
        "Evaluation",
        "test images (5 captions each)",
        (1000, 10_000, 30_000),
        largest=(100_000,),
        alone=True,
        detail=f": ranking both ways from embeddings of {EVALUATED_WIDTH}",
    ),
}
"""The axes by name: a field of `Sizes`, or the evaluation."""


def measure(axis: str, size: int) -> Point:
    """Measures one size of an axis of `AXES` in this process; other sizes have their default."""
    if axis == EVALUATION:
        return {"size": size, **measure_ranking(size)}
    point = measure_step(dataclasses.replace(Sizes(), **{axis: size}))
    if axis == "devices":
        # Simulated devices take turns on the cores: only their work means something.
        point["work"] = point["seconds"] * (os.cpu_count() or 1) / size
    return {"size": size, **point}


def measure_alone(axis: str, size: int) -> Point:
    """Does as `measure` in a process of its own, which simulates devices if the axis has some."""
    environment = dict(os.environ)
    if axis == "devices":
        simulated = f"--xla_force_host_platform_device_count={size}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {simulated}".strip()
        environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, str(Path(__file__).resolve()), f"--measure={axis}:{size}"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def sweep(names: Sequence[str], out: Path, *, largest: bool = False) -> str:
    """Measures axes, writes the report after each, and returns the text of growth.md.

    Axes that the folder's growth.json has from before stay in the report.

    Args:
      names: Which of `AXES` to measure.
      out: The folder for growth.md, growth.png and growth.json.
      largest: Whether to add the largest sizes.
    """
    out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, list[Point]] = {}
    if (out / "growth.json").exists():
        measured = json.loads((out / "growth.json").read_text())
    text = ""
    for name in names:
        axis, measured[name] = AXES[name], []
        for size in axis.sizes + (axis.largest if largest else ()):
            point = (measure_alone if axis.alone else measure)(name, size)
            measured[name].append(point)
            print(f"{name} {size}: {point['seconds']:.3f} s", file=sys.stderr, flush=True)
        text = write(out, measured)
    return text


def write(out: Path, measured: Mapping[str, Sequence[Point]]) -> str:
    """Writes the points of each axis to growth.json, growth.md and growth.png; returns the text."""
    (out / "growth.json").write_text(json.dumps(measured, indent=1) + "\n")
    text = growth_report.report(measured, AXES, _introduction())
    (out / "growth.md").write_text(text)
    growth_report.draw(out / "growth.png", measured, AXES)
    return text


def _introduction() -> str:
    """Returns the sentences on what all tables share."""
    sizes, config = Sizes(), narrow_config()
    return (
        f"Measured on {device_words()}; medians of {TRIALS} trials or more, after one that is not "
        f"counted (a ranking of more than {LONG:.0f} s: one trial). "
        f"Training steps of a ResNet-{config.image_encoder.depth} of width "
        f"{config.image_encoder.width}, a GRU of {config.text_encoder.hidden_width} and "
        f"embeddings of {config.embedding_size} in {config.dtype}, on noise. Unless the table "
        f"says otherwise: {sizes.batch} pairs on each device, {sizes.image} pixels, {sizes.queue} "
        f"keys a modality, {sizes.words} words, one device. Memory is what XLA plans for state, "
        "batch and step."
    )


def chosen(names: str) -> list[str]:
    """Returns the axes of a list with commas."""
    found = names.split(",")
    for name in found:
        if name not in AXES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(AXES)}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, writes, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/growth"), help="folder")
    parser.add_argument("--axes", type=chosen, default=list(AXES), help=",".join(AXES))
    parser.add_argument("--largest", action="store_true", help="also 100k images x 500k captions")
    parser.add_argument("--measure", metavar="AXIS:SIZE", help="one point only, printed as JSON")
    flags = parser.parse_args(arguments)
    compilation.keep_programs()
    if flags.measure:
        axis, _, size = flags.measure.partition(":")
        if axis not in AXES or not size.isdecimal() or int(size) < 1:
            parser.error(f"--measure={flags.measure} is not AXIS:SIZE, as batch:8")
        print(json.dumps(measure(axis, int(size))))
        return
    print(sweep(flags.axes, flags.out, largest=flags.largest))


if __name__ == "__main__":
    main()
