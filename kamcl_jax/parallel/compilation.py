"""Compiled programs: keeping them for later runs, and what one takes of memory and network."""

import dataclasses
import hashlib
import math
import os
import platform
import re
from pathlib import Path
from typing import Any

import jax

from kamcl_jax.parallel import hosts
from kamcl_jax.parallel.mesh import Layout

GB = 1e9


def keep_programs() -> None:
    """Keeps what is compiled from now on in the user's cache folder, where later runs find it.

    JAX's own variables go first: JAX_COMPILATION_CACHE_DIR names another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false keeps nothing. A folder that cannot be made is a note, not
    an error. A damaged program is compiled anew, with JAX's warning.
    """
    config: Any = jax.config
    if not config.jax_enable_compilation_cache or config.jax_compilation_cache_dir:
        return
    try:
        folder = program_folder()
        # Programs are run as they are found: nobody else may put one there.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder
        hosts.warn(
            f"compiled programs are not kept: {error} "
            "(JAX_COMPILATION_CACHE_DIR names another folder)"
        )
        return
    config.update("jax_compilation_cache_dir", str(folder))


def program_folder() -> Path:
    """Returns the user's folder for programs that were compiled on this kind of processor.

    JAX's key does not tell processors apart, but a CPU's program is machine code: machines that
    share a home folder must not run each other's.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    described = "\n".join([platform.machine(), platform.processor(), *sorted(processor)])
    name = f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "kamcl_jax" / "compiled" / name


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """The bytes that a compiled step takes on each device, by XLA's own plan."""

    arguments: int  # the state and a batch
    results: int  # the state after the step, and the metrics
    reused: int  # the results that take the place of arguments (the donated state)
    temporary: int  # activations, gradients and whatever else lives within the step

    @property
    def peak(self) -> int:
        """All bytes that are there at once."""
        return self.arguments + self.results - self.reused + self.temporary


def compile_step(
    step: Any,
    abstract_state: Any,
    abstract_batch: Any,
    layout: Layout,
    options: dict[str, Any] | None = None,
) -> Any:
    """Compiles what `make_train_step` returns for the shapes that it will see.

    `options` are the compiler's own, which `jax.stages.Lowered.compile` takes.
    """
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.batch), abstract_batch
    )
    return step.lower(abstract_state, batch).compile(options)


def memory(compiled: Any) -> StepMemory:
    """Returns the memory that an executable takes on each device."""
    stats = compiled.memory_analysis()
    return StepMemory(
        arguments=stats.argument_size_in_bytes,
        results=stats.output_size_in_bytes,
        reused=stats.alias_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
    )


def describe_memory(taken: StepMemory, layout: Layout, table_bytes: int = 0) -> str:
    """Returns the sentence on memory that a training starts with.

    `table_bytes` are of the training data that lie on each device beside the step.
    """
    devices, peak = layout.mesh.size, taken.peak + table_bytes
    of_tables = f"{table_bytes / GB:.2f} for the training data, " if table_bytes else ""
    sentence = (
        f"a step takes {peak / GB:.2f} GB on "
        f"{'one device' if devices == 1 else f'each of {devices} devices'}: "
        f"{taken.arguments / GB:.2f} for state and batch, {of_tables}"
        f"{taken.temporary / GB:.2f} within the step"
    )
    available = available_memory()
    if available is None:
        return sentence
    short = "" if peak <= available else "; it will not fit"
    return f"{sentence}; the device has {available / GB:.2f} GB{short}"


def available_memory() -> int | None:
    """Returns how many bytes of an accelerator JAX may use; None where it does not say (a CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


@dataclasses.dataclass(frozen=True)
class Collective:
    """One array that a compiled program sends between devices."""

    kind: str  # one of `COLLECTIVES`
    dtype: str  # as XLA writes it, like "f32"
    shape: tuple[int, ...]  # of the result on each device
    channel: int | None = None  # the operation that sends it, and may send several arrays
    group: int | None = None  # so many devices send to each other; None: all of them

    @property
    def size(self) -> int:
        """The bytes of the result on each device."""
        bits = int(re.sub(r"\D", "", self.dtype) or 8)  # "pred" has no number
        return math.prod(self.shape) * bits // 8

    def sent(self, devices: int) -> float:
        """Returns how many bytes each of a ring of devices sends, of all or of its group."""
        devices = self.group or devices
        if self.kind == "reduce-scatter":  # its result is a share
            return (devices - 1) * self.size
        if self.kind == "collective-permute":
            return self.size
        # An all-reduce is a reduce-scatter and an all-gather.
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * self.size * (devices - 1) / devices


COLLECTIVES = {"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"}
"""What XLA calls the operations that send arrays between devices."""

_COLLECTIVE = re.compile(
    r"= (?P<results>\(.*?\)|\S+) "
    rf"(?P<kind>{'|'.join(sorted(COLLECTIVES))})(-start)?\("
    r"(.*?channel_id=(?P<channel>\d+)"
    r"(, replica_groups=(?P<groups>(mesh\[[^]]*\] )?(\{\{?[^}]*\}|\[[\d,]*\])))?)?"
)
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")


def collectives(program: str) -> list[Collective]:
    """Returns every array that the collectives of a program produce, `compiled.as_text()`."""
    found, seen = [], set()
    for match in _COLLECTIVE.finditer(program):
        channel = int(match["channel"]) if match["channel"] else None
        # A TPU's program writes one that overlaps with computation several times.
        if channel is not None and channel in seen:
            continue
        seen.add(channel)
        for dtype, lengths in _ARRAY.findall(match["results"]):
            shape = tuple(int(length) for length in lengths.split(",") if length)
            group = _group_size(match["groups"] or "")
            found.append(Collective(match["kind"], dtype, shape, channel, group))
    return found


def _group_size(groups: str) -> int | None:
    """Returns how many devices are in each group; the groups are named in one of three ways."""
    mesh, _, axes = groups.rpartition("] ")
    if mesh:  # mesh['a'=8,'b'=2] {'b'}, some of the axes of a mesh
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", axes))
    if groups.startswith("["):  # [4,2]<=[8], the number of groups and their size
        return int(re.findall(r"\d+", groups)[-1])
    return len(re.findall(r"\d+", groups)) or None  # {{0,1},{2,3}}, of which this is the first one
