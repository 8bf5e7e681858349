"""The runs to compare: read, named in short, and how their configs differ."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kamcl_jax.config import fields
from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.finished_run import StoredRun

MOST_RUNS = 8
"""More colours are not told apart at a glance."""

LONGEST_LABEL = 24
ABSENT = "-"


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A run with a report.

    Attributes:
      label: that no other run of the comparison has.
      stored: the run.
      results: the contents of its `report/metrics.json`.
    """

    label: str
    stored: StoredRun
    results: dict[str, Any]


def read(folders: Sequence[Path]) -> list[ComparedRun]:
    """Reads the runs, in order.

    Raises:
      ConfigError: there are too few or too many, one is named twice, or one has no checkpoint or no
        whole report.
      CheckpointError: a checkpoint cannot be read.
    """
    if not 2 <= len(folders) <= MOST_RUNS:
        raise ConfigError(
            f"--mode=compare takes 2 to {MOST_RUNS} folders of runs, not {len(folders)}: "
            "python main.py --mode=compare RUN_A RUN_B"
        )
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise ConfigError(f"--mode=compare names the run {folders[place]} twice")
    runs = []
    for folder, label in zip(folders, labels(resolved), strict=True):
        stored = finished_run.read(folder)
        if stored.results is None:
            raise ConfigError(
                f"{folder} has no report ({finished_run.METRICS}): "
                f"--mode=evaluate --workdir={folder} writes it"
            )
        runs.append(ComparedRun(label, stored, stored.results))
    return runs


def labels(folders: Sequence[Path]) -> list[str]:
    """Returns short names of folders, all different.

    A folder has its own name, with as many of the folders above it as tell it from the others; the
    middle of a long one is left out.

    Args:
      folders: absolute and all different.
    """
    names = []
    for folder in folders:
        others = [other.parts for other in folders if other != folder]
        # Counted from the end: the parts that no other folder has so, too.
        depth = next(
            depth
            for depth in range(1, len(folder.parts) + 1)
            if all(parts[-depth:] != folder.parts[-depth:] for parts in others)
        )
        name = "/".join(folder.parts[-depth:])
        names.append(f"./{name}" if name.startswith("_") else name)  # else legends leave it out
    shortened = [_shortened(name) for name in names]
    return [
        short if shortened.count(short) == 1 else f"{place}: {short}"
        for place, short in enumerate(shortened, start=1)
    ]


def _shortened(name: str) -> str:
    if len(name) <= LONGEST_LABEL:
        return name
    half = (LONGEST_LABEL - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def differing_fields(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Returns the fields of the config that differ -> what each run has, as Python writes it.

    What depends on the machine and not on the run, the mesh, is left out.
    """
    configs = [fields.flatten(run.stored.config) for run in runs]
    names = sorted(set().union(*configs))
    values = {
        name: [repr(config[name]) if name in config else ABSENT for config in configs]
        for name in names
        if not name.startswith("mesh.")
    }
    return {name: of_runs for name, of_runs in values.items() if len(set(of_runs)) > 1}
