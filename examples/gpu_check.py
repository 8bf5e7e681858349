"""Measures everything worth knowing on a GPU that is there for ten minutes, and writes a report.

python examples/gpu_check.py --out=gpu --rsicd=rsicd --torch_checkout=KAMCL

docs/performance.md ("A GPU for ten minutes") says what it measures and how to pack what it needs.
`--rehearse` does all of it at toy sizes, on a CPU, too. Each part is a process with a time limit;
report.md, report.json and the pictures are written anew after each, so nothing is lost if the
machine goes. `--config.FIELD=value` changes our program, as for main.py.
"""

import dataclasses
import os
import shutil
import sys
import time
import traceback
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
from kamcl_jax.benchmark.gpu_check.runner import Launch, Part
from kamcl_jax.benchmark.gpu_check.task import TOY, Sizes, Task, toy_config, with_data
from kamcl_jax.config import build
from kamcl_jax.errors import KamclError
from kamcl_jax.search.update_index import index_images
from kamcl_jax.torch_release.checkout import check_checkout

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden/parity_seed11.npz"

PARTS = {
    "machine": Part("The machine", 20),
    "data": Part("The data, decoded once", 40),
    "kernels": Part("Kernels and their plain twins", 30),
    "precision": Part("What each precision costs in accuracy", 80),
    "steps": Part("Training steps", 190),
    "profile": Part("What the GPU does", 45),
    "race": Part("The race", 110, takes_the_rest=True),
    "evaluation": Part("Evaluation and indexing", 40),
}
"""The parts in their order, with the seconds that each may take: 555 in all."""

REHEARSAL_PATIENCE = 3
"""A rehearsal may take so many times as long: the machine may be slow, and a GPU does not wait."""


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


@dataclasses.dataclass(frozen=True)
class Check:
    """What is checked, and with what.

    Attributes:
      config: The config of our program.
      work: The folder for what is large.
      rsicd: The folder of RSICD's images and captions, if it is there.
      checkout: The clone of the PyTorch original, if it is to run.
      golden: The golden file.
      rehearse: Whether everything is a toy.
    """

    config: ml_collections.ConfigDict
    work: Path
    rsicd: Path | None = None
    checkout: Path | None = None
    golden: Path = GOLDEN
    rehearse: bool = False

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        return TOY if self.rehearse else Sizes()

    def task(self, name: str, seconds: float) -> Task:
        """Returns what a part works on, with so many seconds from now."""
        if self.rehearse:
            config = toy_config(self.work, with_original=self.checkout is not None)
        else:
            config = with_data(self.config, self.rsicd, self.work)
        return Task(
            config=config,
            sizes=self.sizes,
            work=self.work,
            saved=self.work / "parts" / f"{name}.json",
            checkout=self.checkout,
            golden=self.golden,
            ends=time.monotonic() + seconds,
        )

    def check_files(self) -> None:
        """Refuses what no part could work with, while nothing has been waited for."""
        if self.rsicd is not None and not self.rsicd.is_dir():
            raise KamclError(f"--rsicd: there is no folder {self.rsicd}")
        if not self.golden.is_file():
            raise KamclError(f"--golden: there is no file {self.golden}")
        if self.checkout is not None:
            check_checkout(self.checkout)
            if not self.rehearse:
                against_original.check_sizes(self.config)


def run(
    check: Check, out: Path, parts: dict[str, Part], total: float, launch: Launch
) -> dict[str, Any]:
    """Runs parts and writes the report into `out` after each; see `runner.run`."""
    out.mkdir(parents=True, exist_ok=True)
    # Old numbers are no results, and programs that are kept would hide what compiling takes.
    for old in ("parts", "compiled"):
        shutil.rmtree(check.work / old, ignore_errors=True)
    (check.work / "parts").mkdir(parents=True)
    batches = check.sizes.batches

    def write(found: dict[str, Any]) -> None:
        runner.write_json(out / "report.json", found)
        try:
            text = report.text(found, batches, rehearsal=check.rehearse)
            (out / "report.md").write_text(text)
            figures.draw(out, found, batches)
        except Exception:  # a table can be made again from the numbers; the GPU cannot be had again
            traceback.print_exc()

    read = partial(runner.read_results, check.work / "parts")
    return runner.run(parts, total, launch, read, write)


def define_flags() -> None:
    """Defines the flags; not on import, as other scripts have some of the same names."""
    config_flags.DEFINE_config_file("config", str(ROOT / "configs/rsicd.py"), "Our program's.")
    flags.DEFINE_string("out", "runs/gpu_check", "Folder of the report.")
    flags.DEFINE_string("work", "", "Folder for what is large; '' stands for OUT/work.")
    flags.DEFINE_string("rsicd", "", "Folder of RSICD as its publisher has it.")
    flags.DEFINE_string("torch_checkout", "", "A clone of the PyTorch original.")
    flags.DEFINE_string("golden", str(GOLDEN), "The original's float64 numbers.")
    flags.DEFINE_bool("rehearse", False, "Whether all sizes are those of a toy.")
    flags.DEFINE_list("parts", list(PARTS), "The parts to run.")
    flags.DEFINE_float("total_seconds", 560, "What all parts may take.")
    for name, part in PARTS.items():
        flags.DEFINE_float(f"{name}_seconds", part.seconds, f"{part.title}: what it may take.")
    flags.DEFINE_enum("part", None, list(PARTS), "Runs one part, for the parts' processes.")
    flags.DEFINE_float("part_seconds", 0, "What that one may take.")


def main(argv: list[str]) -> None:
    """Runs one part, if one is named, or all of them in processes."""
    given = flags.FLAGS
    if argv[1:]:
        raise app.UsageError(f"unknown argument {argv[1]}")
    out = Path(given.out)
    check = Check(
        config=given.config,
        work=Path(given.work) if given.work else out / "work",
        rsicd=Path(given.rsicd) if given.rsicd else None,
        checkout=Path(given.torch_checkout) if given.torch_checkout else None,
        golden=Path(given.golden),
        rehearse=given.rehearse,
    )
    if given.part:
        MEASURE[given.part](check.task(given.part, given.part_seconds))
        return
    if unknown := set(given.parts) - PARTS.keys():
        raise app.UsageError(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    try:
        check.check_files()
    except KamclError as error:
        sys.exit(f"error: {error}")
    patience = REHEARSAL_PATIENCE if check.rehearse else 1
    parts = {
        name: dataclasses.replace(part, seconds=patience * given[f"{name}_seconds"].value)
        for name, part in PARTS.items()
        if name in given.parts
    }
    log = out / "log.txt"
    out.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    launch = runner.in_process([sys.executable, *sys.argv], environment(check), log)
    run(check, out, parts, patience * given.total_seconds, launch)
    print(f"report: {out / 'report.md'}")


def environment(check: Check) -> dict[str, str]:
    """Returns what the parts' processes find in their environment."""
    found = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch is to find memory, too
        # A part finds here what an earlier one has compiled.
        "JAX_COMPILATION_CACHE_DIR": str((check.work / "compiled").absolute()),
        "JAX_TRACEBACK_FILTERING": "off",  # a failure is told whole, its reason in the last line
        "PYTHONUNBUFFERED": "1",
    }
    if check.rehearse:
        # A CPU compiles what runs a few times in two thirds of the time.
        options = [f"--{name}={value}".lower() for name, value in build.UNOPTIMISED.items()]
        found["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *options])
        # PyTorch's threads do not wait in circles for cores that JAX's hold.
        found["OMP_WAIT_POLICY"] = "PASSIVE"
    return found


if __name__ == "__main__":
    define_flags()
    app.run(main)
