"""Plans a training on accelerators, without any of them: launches, memory, network, time, input.

python examples/accelerator_plan.py --config=configs/rsicd.py --accelerator=h100
python examples/accelerator_plan.py --config=configs/rsicd.py --devices=64 --accelerator=v5e \
    --config.batch_size=8192 --config.queue_length=1048576 --config.mesh.queue=sharded \
    --config.mesh.fsdp=8 --config.dtype=bfloat16 --images=10000000 --compiler=cpu

It compiles the real training step with the accelerator's own compiler, which needs no accelerator:
`make plan-gpu` installs that of NVIDIA's GPUs, `pip install "jax[tpu]"` that of TPUs. With
--compiler=cpu it compiles for simulated CPU devices, which tells memory and network, and no
launches. It prints Markdown, which docs/scaling.md and docs/performance.md explain.
"""

import dataclasses
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from kamcl_jax import errors
from kamcl_jax.benchmark import accelerators, hlo, launches
from kamcl_jax.benchmark.accelerators import ACCELERATORS, Accelerator
from kamcl_jax.benchmark.launches import Kernel
from kamcl_jax.config import build, checks, recipe
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.parallel import compilation
from kamcl_jax.parallel.compilation import GB, Collective, StepMemory
from kamcl_jax.parallel.mesh import Layout, make_mesh
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import make_train_step

MB, MS = 1e6, 1e-3
LONGEST = 12  # so many loops and kernels are printed

_CONFIG = config_flags.DEFINE_config_file("config", "configs/rsicd.py", "Config file.")
_DEVICES = flags.DEFINE_integer("devices", 1, "Devices of the mesh.")
_ACCELERATOR = flags.DEFINE_enum("accelerator", "h100", list(ACCELERATORS), "What they are.")
_COMPILER = flags.DEFINE_enum(
    "compiler", "own", ["own", "cpu"], "The accelerator's own compiler, or simulated CPU devices."
)
_WORDS = flags.DEFINE_integer("words", 1225, "Words of the vocabulary; RSICD's by default.")
_CONCEPTS = flags.DEFINE_integer("concepts", 512, "Concepts of the data.")
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 34, "Words of the longest caption.")
_IMAGES = flags.DEFINE_integer("images", 8735, "Training images.")
_CAPTIONS = flags.DEFINE_integer("captions_per_image", 5, "Captions of each.")

PARTS = {
    "GPO, weights": r"gpo\.weights/|gpo_gru",
    "GPO, ranks and sums": r"gpo/|/count_ahead",
    "ResNet": "/resnet/",
    "attention": "/attention/",
    "rest of the blocks": r"/block_\d",
    "words' GRU": "/skip_thoughts/",
    "rest of the image tower": "encode_images",
    "rest of the text tower": "encode_texts",
    "losses": r"jvp\(",
    "update, augmentation, copies": "",
}
"""The first pattern that is found in a kernel's place says to which part it belongs."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A compiled step and what it is made for.

    Attributes:
      layout: The layout of the devices.
      state: The shapes of the train state.
      batch: The shapes of a batch over all devices.
      memory: The memory that the step takes on each device.
      sent: What its collectives produce.
      overlapped: How many of its collectives have kernels between their start and their end.
      kernels: What each device launches in a step; loops over the words have all of them.
    """

    layout: Layout
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    memory: StepMemory
    sent: list[Collective]
    overlapped: int
    kernels: list[Kernel]


def plan(
    config: ml_collections.ConfigDict,
    devices: list[Any],
    words: int,
    concepts: int,
    tokens: int,
    options: dict[str, Any] | None = None,
) -> Plan:
    """Compiles a config's training step for devices that need not be there.

    Args:
      config: The config of the training.
      devices: The devices of the mesh: simulated ones, or `accelerators.absent_devices`.
      words: The size of the vocabulary.
      concepts: How many concepts the data have.
      tokens: The words of the longest caption. A loop whose trips depend on the data, which is one
        over the words of a batch, is taken to have as many.
      options: The compiler's, `accelerators.compiler_options`.
    """
    checks.check_config(config)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, devices)
    checks.check_division(config, mesh.size)
    state = build.abstract_state(config, words + 1, concepts)
    layout = build.make_layout(config, mesh, state)
    batch = build.abstract_batch(config, tokens, concepts)
    step = make_train_step(
        build.make_model(config, words + 1, concepts, mesh.devices.flat[0]),
        recipe.make_optimizer(config, steps_per_epoch=1),
        recipe.make_settings(config, steps_per_epoch=1),
        layout,
    )
    # Pallas asks for the kind of a GPU that is not there, not only while it is traced.
    compile_step = layout.traced(compilation.compile_step)
    compiled = compile_step(step, state, batch, layout, options)
    text = compiled.as_text()
    program = hlo.parse(text)
    return Plan(
        layout,
        state,
        batch,
        compilation.memory(compiled),
        compilation.collectives(text),
        launches.overlapped(program),
        launches.kernels(program, unknown_trips=tokens),
    )


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
        "parameters": ("params", "frozen", "batch_stats"),
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


def network_rows(
    sent: Iterable[Collective], devices: int
) -> list[tuple[str, str, int, int, float]]:
    """Returns kind, dtype, operations, arrays and bytes that each device sends, largest first."""
    groups: dict[tuple[str, str], list[Collective]] = {}
    for one in sent:
        groups.setdefault((one.kind, one.dtype), []).append(one)
    rows = [
        (
            *key,
            len({one.channel for one in some}),
            len(some),
            sum(one.sent(devices) for one in some),
        )
        for key, some in groups.items()
    ]
    return sorted(rows, key=lambda row: -row[4])


def launch_tables(some: list[Kernel], device: Accelerator) -> list[str]:
    """Returns what a step launches, with its parts, loops and kernels, the worst places first."""
    in_loops = [kernel for kernel in some if kernel.loops]
    waits = sum(trips(around) for around in {k.loops for k in in_loops} if not around[-1].known)
    uncounted = sorted({kernel.uncounted for kernel in some if kernel.uncounted})
    sentences = [
        f"launches a step: {launches.launches(some)}",
        f"of them in loops: {launches.launches(in_loops)}, which move "
        f"{launches.traffic(in_loops) / GB:.1f} GB",
    ]
    if waits and device.platform == "cuda":
        sentences.append(f"trips that wait until the host has read a condition: at most {waits}")
    if uncounted:
        sentences.append(f"arithmetic not counted: {', '.join(uncounted)}")
    parts: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in some:
        parts.setdefault(part_of(kernel.origin), []).append(kernel)
    loops: dict[tuple[launches.Loop, ...], list[Kernel]] = {}
    for kernel in in_loops:
        loops.setdefault(kernel.loops, []).append(kernel)
    longest = sorted(some, key=lambda kernel: -kernel.seconds(device))[:LONGEST]

    def worst_first(groups: dict[Any, list[Kernel]]) -> list[Any]:
        return sorted(groups.items(), key=lambda group: -launches.seconds(group[1], device))

    tables = [
        "\n".join(sentences),
        markdown_table(
            ["part", "pass", *_WORK],
            [[*part, *_work(some, device)] for part, some in worst_first(parts)],
            left=2,
        ),
        markdown_table(
            ["kernel", *_WORK],
            [[f"{kernel_place(k)} ({k.name})", *_work([k], device)] for k in longest],
        ),
    ]
    if loops:
        rows = [
            [
                short_place(around[-1].place),
                f"{'' if all(loop.known for loop in around) else 'at most '}{trips(around)}",
                str(launches.launches(some) // trips(around)),
                *_work(some, device),
            ]
            for around, some in worst_first(loops)[:LONGEST]
        ]
        tables.insert(2, markdown_table(["loop", "trips", "launches a trip", *_WORK], rows))
    return tables


def trips(around: tuple[launches.Loop, ...]) -> int:
    """Returns how often the innermost of these loops runs its body in a step."""
    return math.prod(loop.trips for loop in around)


_WORK = ["launches", "GFLOP", "GB", "ms"]


def _work(some: list[Kernel], device: Accelerator) -> list[str]:
    return [
        str(launches.launches(some)),
        f"{launches.products(some) / 1e9:.1f}",
        f"{launches.traffic(some) / GB:.2f}",
        f"{launches.seconds(some, device) / MS:.2f}",
    ]


def part_of(place: str) -> tuple[str, str]:
    """Returns the part of the step and the pass that a place in the traced program belongs to."""
    part = next(name for name, pattern in PARTS.items() if re.search(pattern, place))
    if "transpose(" in place:
        return part, "gradient"
    if "jvp(" in place:
        return part, "queries"
    return part, "keys" if ".encode_" in place else ""


def short_place(place: str) -> str:
    """Returns a place in the traced program without what every place has."""
    path = re.sub(r"^jit\(\w+\)/(.*\.encode_\w+/)?", "", place)
    path = re.sub(r"/(cond/branch_\d_fun|closed_call|body|pallas_call|jit\(\w+\))(?=/|$)", "", path)
    kind = part_of(place)[1]
    return f"{path or 'no place'}{f', {kind}' if kind else ''}"


def kernel_place(kernel: Kernel) -> str:
    """Returns where a kernel comes from; of one in a loop, that loop and what it does."""
    if not kernel.loops:
        return short_place(kernel.place)
    return f"{short_place(kernel.origin)}: {kernel.place.rpartition('/')[2]}"


def times(
    some: list[Kernel],
    sent: list[Collective],
    devices: int,
    dtype: str,
    device: Accelerator,
    own: bool = True,
) -> tuple[list[list[str]], float]:
    """Returns the table of what takes time in a step, and the seconds of all.

    The accelerator's own program has its predicted time: launches, kernels and network one after
    another. A program for simulated devices has a roofline: the largest of arithmetic, memory and
    network, with products at the rate of the config's dtype, which a CPU's program does not keep.
    """
    speed = device.network_across if devices > device.devices_per_host else device.network
    sends = sum(one.sent(devices) for one in sent)
    count, flops, moved = launches.launches(some), launches.products(some), launches.traffic(some)
    work = f"{flops / 1e12:.2f} TFLOP, {moved / GB:.1f} GB"
    network = (f"{sends / GB:.3f} GB sent", sends / speed)
    if own:
        kernels = launches.seconds(some, device) - count * device.launch
        rows = {
            f"launches, {device.launch / 1e-6:.1f} us each": (str(count), count * device.launch),
            "kernels, arithmetic or traffic": (work, kernels),
            "network": network,
        }
        total = sum(value for _, value in rows.values())
    else:
        rows = {
            "arithmetic": (f"{flops / 1e12:.2f} TFLOP", flops / device.flops[dtype]),
            "memory": (f"{moved / GB:.1f} GB", moved / device.memory_speed),
            "network": network,
        }
        total = max(value for _, value in rows.values())
    return [[name, what, f"{value / MS:.1f}"] for name, (what, value) in rows.items()], total


def describe(
    made: Plan,
    config: ml_collections.ConfigDict,
    name: str,
    images: int,
    captions: int,
    own: bool = True,
) -> str:
    """Returns the plan of so many images, with so many captions each, in Markdown.

    `name` is one of `ACCELERATORS`, and `own` says whether its compiler has made the program.
    """
    devices, device = made.layout.mesh.size, ACCELERATORS[name]
    hosts = -(-devices // device.devices_per_host)
    rows, step = times(made.kernels, made.sent, devices, config.dtype, device, own)
    predicted = f"predicted step: {step / MS:.1f} ms" if own else f"roofline: {step / MS:.1f} ms"
    return "\n\n".join(
        [
            f"{devices} {name} on {hosts} hosts, mesh {dict(made.layout.mesh.shape)}, queues "
            f"{config.mesh.queue}, batch {config.batch_size}, {config.dtype}, "
            f"{config.gradient_accumulation} parts; compiled for "
            f"{name if own else 'simulated CPU devices'}.",
            markdown_table(
                ["on each device", "GB"],
                [[part, f"{size / GB:.3f}"] for part, size in memory_rows(made)],
            ),
            *(launch_tables(made.kernels, device) if own else []),
            *(network_tables(made) if made.sent else ["collectives: none"]),
            markdown_table(["time of a step", "a device", "ms"], rows),
            predicted,
            markdown_table(["", ""], input_rows(made, config, images, captions, hosts, step)),
        ]
    )


def network_tables(made: Plan) -> list[str]:
    """Returns how many collectives a step has, how many are combined, and what they send."""
    rows = network_rows(made.sent, made.layout.mesh.size)
    return [
        f"collectives: {sum(row[2] for row in rows)}, which send {len(made.sent)} arrays; "
        f"{made.overlapped} have kernels between their start and their end",
        markdown_table(
            ["collective", "dtype", "operations", "arrays", "MB that a device sends"],
            [
                [kind, dtype, str(operations), str(arrays), f"{size / MB:.1f}"]
                for kind, dtype, operations, arrays, size in rows
            ],
            left=2,
        ),
    ]


def input_rows(
    made: Plan,
    config: ml_collections.ConfigDict,
    images: int,
    captions: int,
    hosts: int,
    step: float,
) -> list[tuple[str, str]]:
    """Returns what an epoch reads and keeps, if a step takes so many seconds."""
    devices = made.layout.mesh.size
    batch = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in made.batch.values())
    steps = images * captions // config.batch_size
    side, tokens = made.batch["image"].shape[1], made.batch["tokens"].shape[1]
    concepts = made.batch["word_concepts"].shape[1]
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(made.state))
    logits = config.batch_size * config.queue_length * 4 / devices
    if config.loss.negatives == "batch":
        logits = config.batch_size**2 * 4 / devices
    return [
        ("contrastive logits, each of two", f"{logits / MB:.1f} MB a device"),
        ("cosines of the batch", f"{config.batch_size**2 * 4 / devices / MB:.2f} MB a device"),
        ("batch", f"{batch / MB:.1f} MB, {batch / hosts / MB:.1f} MB for each of {hosts} hosts"),
        ("input of a host", f"{batch / hosts / step / GB:.2f} GB/s"),
        ("the same", f"{config.batch_size / hosts / step:.0f} images/s"),
        ("what a host feeds, measured by", f"`{feed_command(config, side, hosts, step)}`"),
        ("steps an epoch", f"{steps}"),
        ("time of an epoch", f"{steps * step / 60:.1f} min"),
        ("decoded images", f"{images * side**2 * 3 / GB:.1f} GB"),
        ("tokens, lengths, places", f"{images * captions * (tokens + 2) * 4 / GB:.2f} GB"),
        ("concepts of captions, labels", f"{images * concepts * (captions + 4) / GB:.2f} GB"),
        ("checkpoint", f"{whole / GB:.3f} GB, {whole / hosts / GB:.3f} GB a host if shared out"),
    ]


def feed_command(config: ml_collections.ConfigDict, side: int, hosts: int, step: float) -> str:
    """Returns the command that measures on a host whether it feeds steps of so many seconds."""
    return (
        f"python examples/host_feed.py --batch_size={config.batch_size // hosts} "
        f"--step_ms={step / MS:.1f} --side={side}"
    )


def main(argv: list[str]) -> None:
    """Compiles and prints."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    jax.config.update("jax_platforms", "cpu")
    name, own = _ACCELERATOR.value, _COMPILER.value == "own"
    sizes = (_WORDS.value, _CONCEPTS.value, _MAX_TOKENS.value)
    try:
        made = plan(
            _CONFIG.value,
            devices(name, own, _DEVICES.value),
            *sizes,
            accelerators.compiler_options(name) if own else None,
        )
    except errors.AcceleratorError as error:
        sys.exit(f"error: {error}; --compiler=cpu plans memory and network without it")
    except (errors.ConfigError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(describe(made, _CONFIG.value, name, _IMAGES.value, _CAPTIONS.value, own))


def devices(name: str, own: bool, count: int) -> list[Any]:
    """Returns absent accelerators or simulated devices, before anything asks JAX for one."""
    if own:
        return accelerators.absent_devices(name, count)
    jax.config.update("jax_num_cpu_devices", count)
    return jax.devices()


if __name__ == "__main__":
    app.run(main)
