"""Plans a training on many devices, without any of them: memory, network, step time, input.

python examples/scaling_plan.py --config=configs/rsicd.py --devices=64 --accelerator=v5e \
    --config.batch_size=8192 --config.queue_length=1048576 --config.mesh.queue=sharded \
    --config.mesh.fsdp=8 --config.dtype=bfloat16 --images=10000000

It compiles the real training step for simulated CPU devices and prints Markdown, which
docs/scaling.md explains. With the package `libtpu`, `--topology=v5e:8x8` uses the TPU's compiler.
"""

import dataclasses
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import ml_collections
from absl import app, flags
from jax.experimental import topologies
from ml_collections import config_flags

from kamcl_jax import errors
from kamcl_jax.config import build, checks
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.models.gpo import COUNT_UP_TO
from kamcl_jax.models.resnet import stage_channels
from kamcl_jax.parallel import compilation
from kamcl_jax.parallel.compilation import GB, Collective, StepMemory
from kamcl_jax.parallel.mesh import Layout, make_mesh
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import make_train_step

MB, ENCODES = 1e6, 2  # of the queries and of the keys


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """What a data sheet says about a device; speeds are bytes a second."""

    flops: dict[str, float]  # dense products and sums a second, by `config.dtype`
    memory: float  # bytes
    memory_speed: float
    network: float  # that a device sends to others of its host
    network_across: float  # that it sends to other hosts
    devices_per_host: int


ACCELERATORS = {
    # https://cloud.google.com/tpu/docs/v5e: 197 TFLOPs (JAX multiplies float32 in bfloat16 there
    # unless told otherwise), 16 GB, 819 GBps, 400 GBps both ways, 8 chips a host.
    "v5e": Accelerator({"bfloat16": 197e12, "float32": 197e12}, 16e9, 819e9, 200e9, 200e9, 8),
    # NVIDIA H100 SXM and DGX H100 data sheets, without sparsity: 989 (TF32: 495) teraFLOPS, 80 GB,
    # 3.35 TB/s, NVLink 900 GB/s both ways, a ConnectX-7 of 400 Gb/s a GPU, 8 GPUs a host.
    "h100": Accelerator({"bfloat16": 989e12, "float32": 495e12}, 80e9, 3350e9, 450e9, 50e9, 8),
}

_CONFIG = config_flags.DEFINE_config_file("config", "configs/rsicd.py", "Config file.")
_DEVICES = flags.DEFINE_integer("devices", 1, "Devices to simulate; of a topology, to use.")
_TOPOLOGY = flags.DEFINE_string("topology", "", "TPU slice to compile for (v5e:8x8); needs libtpu.")
_ACCELERATOR = flags.DEFINE_enum("accelerator", "v5e", list(ACCELERATORS), "For the roofline.")
_WORDS = flags.DEFINE_integer("words", 1225, "Words of the vocabulary; RSICD's by default.")
_CONCEPTS = flags.DEFINE_integer("concepts", 512, "Concepts of the data.")
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 34, "Words of the longest caption.")
_IMAGES = flags.DEFINE_integer("images", 8735, "Training images.")
_CAPTIONS = flags.DEFINE_integer("captions_per_image", 5, "Captions of each.")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A compiled step and what it is made for.

    Attributes:
      layout: The layout of the devices.
      state: The shapes of the train state.
      batch: The shapes of a batch over all devices.
      memory: The memory that the step takes on each device.
      sent: What its collectives produce.
      flops: The operations on each device, with all trips of the loops.
      traffic: The bytes that each device reads and writes by XLA's count, with all trips.
    """

    layout: Layout
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    memory: StepMemory
    sent: list[Collective]
    flops: float
    traffic: float


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of the step, of which XLA's cost analysis counts one trip."""

    name: str
    trips: int  # at most
    flops: float  # of a trip on each device, in matrix products
    traffic: float  # bytes that a trip reads and writes on each device


def plan(
    config: ml_collections.ConfigDict, devices: list[Any], words: int, concepts: int, tokens: int
) -> Plan:
    """Compiles a config's training step for devices that need not be there.

    Args:
      config: The config of the training.
      devices: The devices of the mesh: simulated ones, or those of a topology.
      words: The size of the vocabulary.
      concepts: How many concepts the data have.
      tokens: The words of the longest caption.
    """
    checks.check_config(config)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, devices)
    checks.check_division(config, mesh.size)
    state = build.abstract_state(config, words + 1, concepts)
    layout = build.make_layout(config, mesh, state)
    batch = build.abstract_batch(config, tokens, concepts)
    step = make_train_step(
        build.make_model(config, words + 1, concepts),
        build.make_optimizer(config, steps_per_epoch=1),
        build.make_settings(config, steps_per_epoch=1),
        layout,
    )
    compiled = compilation.compile_step(step, state, batch, layout)
    costs, repeated = compiled.cost_analysis(), loops(config, mesh.size, tokens)
    return Plan(
        layout,
        state,
        batch,
        compilation.memory(compiled),
        compilation.collectives(compiled.as_text()),
        costs["flops"] + sum((loop.trips - 1) * loop.flops for loop in repeated),
        costs["bytes accessed"] + sum((loop.trips - 1) * loop.traffic for loop in repeated),
    )


def loops(config: ml_collections.ConfigDict, devices: int, tokens: int) -> list[Loop]:
    """Returns the loops that matter: over the words of the GRU, and over the ranks of the GPO."""
    rows = config.batch_size // (devices * config.gradient_accumulation)
    entry = 2 if config.dtype == "bfloat16" else 4
    hidden, image = config.text_encoder.hidden_width, config.image_encoder
    channels = stage_channels(image.depth, image.width)
    passes = ENCODES + 1  # one is backward; the kernel's gradient is one product after the loop
    # The kernel is read, and so are inputs, gates and states of the rows.
    moved = (3 * hidden**2 + 9 * rows * hidden) * entry
    gru = Loop("GRU", tokens, passes * 6 * rows * hidden**2, passes * moved)
    pooled = {
        "low-level features": (channels[0] + channels[1], (config.image_size // 4) ** 2),
        "final features": ((config.image_size // 32) ** 2, channels[3]),
        "words": (2 * tokens, config.embedding_size),
    }
    counted = [
        # All values and counts are read, and the counts, which take a byte each, are written.
        Loop(f"ranks of {name}", items, 0, ENCODES * rows * items * width * (entry + 2))
        for name, (items, width) in pooled.items()
        if items <= COUNT_UP_TO
    ]
    return [gru, *counted]


def bytes_per_device(shapes: Any, places: Any) -> int:
    """Returns what a tree of shapes takes on each device, by one sharding for each or for all."""
    leaves = jax.tree.leaves(shapes)
    shardings = jax.tree.leaves(places)
    if len(shardings) == 1:
        shardings *= len(leaves)
    return sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(leaves, shardings, strict=True)
    )


def memory_rows(made: Plan) -> list[tuple[str, int]]:
    """Returns the name and the bytes of what lies on each device; the last row is the sum."""
    state, places = made.state, made.layout.state
    parts = {
        "parameters": ("params", "batch_stats"),
        "Adam's moments": ("opt_state",),
        "key parameters": ("key_params", "key_batch_stats"),
        "queues": ("image_queue", "text_queue"),
    }
    rows = [
        (name, sum(bytes_per_device(getattr(state, f), getattr(places, f)) for f in fields))
        for name, fields in parts.items()
    ]
    rows.append(("batch", bytes_per_device(made.batch, made.layout.batch)))
    rows.append(("within the step", made.memory.temporary))
    return [*rows, ("all", sum(size for _, size in rows))]


def network_rows(sent: Iterable[Collective], devices: int) -> list[tuple[str, str, int, float]]:
    """Returns kind, dtype, operations and bytes that each device sends, the largest first.

    It counts a ring of all devices: a little too much where the ring is a group of `fsdp` devices.
    """
    groups: dict[tuple[str, str], list[Collective]] = {}
    for one in sent:
        groups.setdefault((one.kind, one.dtype), []).append(one)
    rows = [
        (*key, len({one.channel for one in some}), sum(one.sent(devices) for one in some))
        for key, some in groups.items()
    ]
    return sorted(rows, key=lambda row: -row[3])


def describe(
    made: Plan, config: ml_collections.ConfigDict, device: Accelerator, images: int, captions: int
) -> str:
    """Returns the plan of so many images, with so many captions each, in Markdown."""
    devices = made.layout.mesh.size
    hosts = -(-devices // device.devices_per_host)
    network = network_rows(made.sent, devices)
    speed = device.network_across if hosts > 1 else device.network
    seconds = {
        "compute": made.flops / device.flops[config.dtype],
        "memory": made.traffic / device.memory_speed,
        "network": sum(row[3] for row in network) / speed,
    }
    amounts = {
        "compute": f"{made.flops / 1e12:.2f} TFLOP",
        "memory": f"{made.traffic / GB:.1f} GB",
        "network": f"{sum(row[3] for row in network) / GB:.3f} GB",
    }
    step = max(seconds.values())
    batch = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in made.batch.values())
    steps = images * captions // config.batch_size
    side, tokens = made.batch["image"].shape[1], made.batch["tokens"].shape[1]
    concepts = made.batch["word_concepts"].shape[1]
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(made.state))
    logits = config.batch_size * config.queue_length * 4 / devices
    if config.loss.negatives == "batch":
        logits = config.batch_size**2 * 4 / devices
    facts = [
        ("contrastive logits, each of two", f"{logits / MB:.1f} MB a device"),
        ("cosines of the batch", f"{config.batch_size**2 * 4 / devices / MB:.2f} MB a device"),
        ("batch", f"{batch / MB:.1f} MB, {batch / hosts / MB:.1f} MB for each of {hosts} hosts"),
        ("input of a host at the roofline", f"{batch / hosts / step / GB:.2f} GB/s"),
        ("the same", f"{config.batch_size / hosts / step:.0f} images/s"),
        ("steps an epoch", f"{steps}"),
        ("time of an epoch at the roofline", f"{steps * step / 3600:.2f} h"),
        ("decoded images", f"{images * side**2 * 3 / GB:.1f} GB"),
        ("tokens, lengths, places", f"{images * captions * (tokens + 2) * 4 / GB:.2f} GB"),
        ("concepts of captions, labels", f"{images * concepts * (captions + 4) / GB:.2f} GB"),
        ("checkpoint", f"{whole / GB:.3f} GB, {whole / hosts / GB:.3f} GB a host if shared out"),
    ]
    parts = config.gradient_accumulation
    return "\n\n".join(
        [
            f"{devices} devices on {hosts} hosts, mesh {dict(made.layout.mesh.shape)}, queues "
            f"{config.mesh.queue}, batch {config.batch_size}, {config.dtype}, {parts} parts.",
            markdown_table(
                ["on each device", "GB"],
                [[name, f"{size / GB:.3f}"] for name, size in memory_rows(made)],
            ),
            markdown_table(
                ["collective", "dtype", "operations", "MB that a device sends"],
                [[kind, dtype, str(n), f"{size / MB:.1f}"] for kind, dtype, n, size in network],
                left=2,
            ),
            markdown_table(
                ["roofline", "a device and step", "ms"],
                [[name, amounts[name], f"{1e3 * value:.1f}"] for name, value in seconds.items()],
            )
            if parts == 1
            else "No roofline: XLA counts one part of the batch (config.gradient_accumulation).",
            markdown_table(
                ["", ""], facts if parts == 1 else [f for f in facts if "roof" not in f[0]]
            ),
        ]
    )


def main(argv: list[str]) -> None:
    """Compiles and prints."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    jax.config.update("jax_platforms", "cpu")
    try:
        devices = _devices()
        made = plan(_CONFIG.value, devices, _WORDS.value, _CONCEPTS.value, _MAX_TOKENS.value)
    except (errors.ConfigError, ValueError) as error:
        sys.exit(f"error: {error}")
    device = ACCELERATORS[_ACCELERATOR.value]
    print(describe(made, _CONFIG.value, device, _IMAGES.value, _CAPTIONS.value))


def _devices() -> list[Any]:
    """Returns simulated devices or a TPU topology's; called before anything asks JAX for one."""
    if not _TOPOLOGY.value:
        jax.config.update("jax_num_cpu_devices", _DEVICES.value)
        return jax.devices()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU to ask
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=_TOPOLOGY.value)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--topology={_TOPOLOGY.value} cannot be: {reason}") from None
    return list(topology.devices)[: _DEVICES.value]


if __name__ == "__main__":
    app.run(main)
