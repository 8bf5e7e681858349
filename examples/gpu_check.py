"""Measures everything worth knowing on a GPU that is there for ten minutes, and writes a report.

python examples/gpu_check.py --out=gpu --rsicd=rsicd --torch_checkout=KAMCL

docs/performance.md ("A GPU for ten minutes") says what it measures and how to pack what it needs.
`--rehearse` does all of it at toy sizes, on a CPU, too. Each part is a process with a time limit;
report.md, report.json and the pictures are written anew after each, so nothing is lost if the
machine goes. `--config.FIELD=value` changes our program, as for main.py.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from kamcl_jax.benchmark import against_original, subject
from kamcl_jax.benchmark.gpu_check import (
    device_profile,
    evaluation,
    figures,
    kernels,
    machine,
    precision,
    race,
    report,
    runner,
    step_times,
)
from kamcl_jax.benchmark.gpu_check.runner import Part
from kamcl_jax.benchmark.gpu_check.task import TOY, Sizes, Task, toy_config, with_data
from kamcl_jax.config import build
from kamcl_jax.errors import KamclError
from kamcl_jax.search.update_index import index_images
from kamcl_jax.torch_release.checkout import check_checkout

ROOT = Path(__file__).resolve().parents[1]

PARTS = {
    "machine": Part("The machine", 25),
    "data": Part("The data, decoded once", 45),
    "kernels": Part("Kernels and their plain twins", 30),
    "precision": Part("What each precision costs in accuracy", 80),
    "steps": Part("Training steps", 160),
    "profile": Part("What the GPU does", 35),
    "race": Part("The race", 140, takes_the_rest=True),
    "evaluation": Part("Evaluation and indexing", 40),
}
"""The parts in their order, with the seconds that each may take: 555 in all."""


def measure_data(task: Task) -> None:
    """Prepares and decodes the data, so that no later part waits for that."""
    if not subject.has_data(task.config):
        task.leave_out("data", "there are none: --rsicd names their folder")
        return

    def prepare() -> dict[str, float]:
        started = time.perf_counter()
        data = build.build(task.config).data
        return {
            "seconds": time.perf_counter() - started,
            "training images": len(data.train.images),
            "training captions": len(data.train.captions),
            "test images": len(data.test.images),
            "words": len(data.vocabulary),
            "concepts": len(data.concepts),
        }

    task.attempt("data", prepare)


MEASURE: dict[str, Callable[[Task], None]] = {
    "machine": machine.measure,
    "data": measure_data,
    "kernels": kernels.measure,
    "precision": precision.measure,
    "steps": step_times.measure,
    "profile": device_profile.measure,
    "race": race.measure,
    "evaluation": partial(evaluation.measure, index_images=index_images),
}

_CONFIG = config_flags.DEFINE_config_file("config", str(ROOT / "configs/rsicd.py"), "Ours.")
_OUT = flags.DEFINE_string("out", "runs/gpu_check", "Folder of the report.")
_WORK = flags.DEFINE_string("work", "", "Folder for what is large; '' stands for OUT/work.")
_RSICD = flags.DEFINE_string("rsicd", "", "Folder of RSICD as its publisher has it.")
_CHECKOUT = flags.DEFINE_string("torch_checkout", "", "A clone of the PyTorch original.")
_GOLDEN = flags.DEFINE_string(
    "golden", str(ROOT / "tests/golden/parity_seed11.npz"), "The original's float64 numbers."
)
_REHEARSE = flags.DEFINE_bool("rehearse", False, "Whether all sizes are those of a toy.")
_ONLY = flags.DEFINE_list("parts", list(PARTS), "The parts to run.")
_TOTAL = flags.DEFINE_float("total_seconds", 560, "What all parts may take.")
for _name, _part in PARTS.items():
    flags.DEFINE_float(f"{_name}_seconds", _part.seconds, f"{_part.title}: at most.")
_PART = flags.DEFINE_enum(
    "part", None, list(PARTS), "Runs one part here; for the parts' processes."
)
_PART_SECONDS = flags.DEFINE_float("part_seconds", 0, "What that part may take.")


def task_of(
    name: str,
    config: ml_collections.ConfigDict,
    work: Path,
    seconds: float,
    *,
    rsicd: Path | None = None,
    checkout: Path | None = None,
    golden: Path | None = None,
    rehearse: bool = False,
) -> Task:
    """Returns what a part works on, with so many seconds from now."""
    if rehearse:
        config = toy_config(work, with_original=checkout is not None)
    else:
        config = with_data(config, rsicd, work)
    return Task(
        config=config,
        sizes=TOY if rehearse else Sizes(),
        work=work,
        saved=work / "parts" / f"{name}.json",
        checkout=checkout,
        golden=golden or Path(_GOLDEN.default),
        ends=time.monotonic() + seconds,
    )


def run(
    out: Path, work: Path, parts: dict[str, Part], total: float, launch: Any, *, rehearse: bool
) -> dict[str, Any]:
    """Runs parts and writes the report into `out` after each; see `runner.run`."""
    out.mkdir(parents=True, exist_ok=True)
    # Old numbers are no results, and programs that are kept would hide what compiling takes.
    for old in ("parts", "compiled"):
        shutil.rmtree(work / old, ignore_errors=True)
    (work / "parts").mkdir(parents=True)
    batches = (TOY if rehearse else Sizes()).batches

    def write(found: dict[str, Any]) -> None:
        runner.write_json(out / "report.json", found)
        (out / "report.md").write_text(report.text(found, batches, rehearsal=rehearse))
        figures.draw(out, found, batches)

    return runner.run(parts, total, launch, partial(runner.read_results, work / "parts"), write)


def main(argv: list[str]) -> None:
    """Runs one part, if one is named, or all of them in processes."""
    if argv[1:]:
        raise app.UsageError(f"unknown argument {argv[1]}")
    out = Path(_OUT.value)
    work = Path(_WORK.value) if _WORK.value else out / "work"
    rsicd, checkout = (Path(f.value) if f.value else None for f in (_RSICD, _CHECKOUT))
    if _PART.value:
        task = task_of(
            _PART.value,
            _CONFIG.value,
            work,
            _PART_SECONDS.value,
            rsicd=rsicd,
            checkout=checkout,
            golden=Path(_GOLDEN.value),
            rehearse=_REHEARSE.value,
        )
        MEASURE[_PART.value](task)
        return
    try:
        _check(rsicd, checkout)
    except KamclError as error:
        sys.exit(f"error: {error}")
    values = flags.FLAGS.flag_values_dict()
    parts = {
        name: Part(part.title, values[f"{name}_seconds"], part.takes_the_rest)
        for name, part in PARTS.items()
        if name in _ONLY.value
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "log.txt").unlink(missing_ok=True)
    environment = {
        # PyTorch is to find memory, too.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # The parts after the first that compiles a step find it here.
        "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
        "PYTHONUNBUFFERED": "1",
    }
    if _REHEARSE.value:
        # A CPU compiles what runs a few times in two thirds of the time.
        options = (f"--{name}={value}".lower() for name, value in build.UNOPTIMISED.items())
        environment["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *options])
    command = [sys.executable, *sys.argv]
    launch = runner.in_process(command, environment, out / "log.txt")
    run(out, work, parts, _TOTAL.value, launch, rehearse=_REHEARSE.value)
    print(f"report: {out / 'report.md'}")


def _check(rsicd: Path | None, checkout: Path | None) -> None:
    """Refuses what no part could work with, while nothing has been waited for."""
    if rsicd is not None and not rsicd.is_dir():
        raise KamclError(f"--rsicd: there is no folder {rsicd}")
    if checkout is not None:
        check_checkout(checkout)
        if not _REHEARSE.value:
            against_original.check_sizes(_CONFIG.value)


if __name__ == "__main__":
    app.run(main)
