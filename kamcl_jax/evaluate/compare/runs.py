"""The runs to compare: read, named in short, how their configs differ, and how they rank."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.language.texts import equal_text_ids
from input_pipeline.splits.examples import Examples
from kamcl_jax.config import fields
from kamcl_jax.errors import ConfigError, NotComparableError
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.evaluate import rank_test_split
from kamcl_jax.evaluate.finished_run import FinishedRun
from kamcl_jax.inference import embed
from kamcl_jax.ranking.ranks import Ranks
from kamcl_jax.ranking.scores import Embeddings

MOST_RUNS = 8  # more colours are not told apart at a glance

LONGEST_LABEL = 24
ABSENT = "-"


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A run with a report."""

    label: str  # a short name that no other run of the comparison has
    finished: FinishedRun
    results: dict[str, Any]  # the contents of its `report/metrics.json`


@dataclasses.dataclass(frozen=True)
class RankedQueries:
    """How a run ranks the queries of the test split."""

    label: str  # the run's
    examples: Examples
    ranks: dict[str, dict[str, Ranks]]  # what `rank_test_split` returns
    embeddings: Embeddings

    def expected_ranks(self, way: str) -> np.ndarray:
        """Returns f64[Q], the expected ranks of one way, where equal texts count."""
        return self.ranks["test_equal_texts"][way].expected()


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Reads the runs, in order."""
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
        finished = finished_run.read(folder)
        if finished.results is None:
            raise ConfigError(
                f"{folder} has no report ({finished_run.METRICS}): "
                f"--mode=evaluate --workdir={folder} writes it"
            )
        runs.append(ComparedRun(label, finished, finished.results))
    return runs


def labels(folders: Sequence[Path]) -> list[str]:
    """Returns short names of absolute folders, all different.

    A folder has its own name, with as many of the folders above it as tell it from the others; the
    middle of a long one is left out.
    """
    names = []
    for folder in folders:
        others = [other.parts for other in folders if other != folder]
        # The fewest last parts that no other folder ends with.
        depth = next(
            depth
            for depth in range(1, len(folder.parts) + 1)
            if all(parts[-depth:] != folder.parts[-depth:] for parts in others)
        )
        name = "/".join(folder.parts[-depth:])
        names.append(f"./{name}" if name.startswith("_") else name)  # else legends leave it out
    half = (LONGEST_LABEL - 1) // 2
    shortened = [
        name if len(name) <= LONGEST_LABEL else f"{name[:half]}…{name[-half:]}" for name in names
    ]
    return [
        short if shortened.count(short) == 1 else f"{place}: {short}"
        for place, short in enumerate(shortened, start=1)
    ]


def differing_fields(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Returns the fields of the config that differ -> what each run has, as Python writes it.

    What depends on the machine and not on the run, the mesh, is left out.
    """
    configs = [fields.flatten(run.finished.config) for run in runs]
    values = {
        name: [repr(config[name]) if name in config else ABSENT for config in configs]
        for name in sorted(set().union(*configs))
        if not name.startswith("mesh.")
    }
    return {name: of_runs for name, of_runs in values.items() if len(set(of_runs)) > 1}


def rank_all(runs: Sequence[ComparedRun]) -> list[RankedQueries]:
    """Ranks the queries of the test split with the best checkpoint of each run, if it can."""
    splits = _same_test_splits(runs)
    return [_rank(run, examples) for run, examples in zip(runs, splits, strict=True)]


def _same_test_splits(runs: Sequence[ComparedRun]) -> list[Examples]:
    """Opens the test split of each run: the same images and captions, each in its run's tokens."""
    names = {run.label: run.finished.config.data.name for run in runs}
    if len(set(names.values())) > 1:
        listed = ", ".join(f"{label}: {name}" for label, name in names.items())
        raise NotComparableError(f"the runs are of different data sets ({listed})")
    splits: list[Examples] = []
    for run in runs:
        try:
            splits.append(finished_run.open_data(run.finished).test)
        except (ConfigError, DataError, OSError) as error:
            reason = str(error).rstrip(".")
            raise NotComparableError(
                f"the data of {run.label} cannot be opened ({reason})"
            ) from error
        if not _same(splits[0], splits[-1]):
            raise NotComparableError(
                f"{runs[0].label} and {run.label} were tested on different images or captions"
            )
    return splits


def _same(one: Examples, other: Examples) -> bool:
    return (
        np.array_equal(one.image_of_caption, other.image_of_caption)
        and list(one.captions) == list(other.captions)
        and list(one.file_names) == list(other.file_names)
    )


def _rank(run: ComparedRun, examples: Examples) -> RankedQueries:
    model, settings = run.finished.model(), run.finished.config.evaluation
    embeddings = embed.embed(model.encoders, model.variables, examples, settings.batch_size)
    ranks = rank_test_split(embeddings, examples, settings.ties)
    return RankedQueries(run.label, examples, ranks, embeddings)


def most_different(
    ranked: Sequence[RankedQueries], way: str, most: int
) -> tuple[list[int], list[int]]:
    """Returns the queries where the first run is farthest ahead of another one, or behind it.

    How far is told by the factor between the two expected ranks and not by their difference: from
    1 to 10 matters more than from 101 to 110. Each list has up to `most` queries of one way, `i2t`
    or `t2i`, the farthest first, and of captions of one text only one.
    """
    if not ranked:
        return [], []
    first, *others = (run.expected_ranks(way) for run in ranked)
    ahead, behind = np.max(others, axis=0) / first, first / np.min(others, axis=0)
    texts = np.arange(len(first))
    if way == "t2i":
        texts = equal_text_ids(ranked[0].examples.captions)

    def largest(factors: np.ndarray) -> list[int]:
        order = np.argsort(-factors, kind="stable")
        _, first_of_text = np.unique(texts[order], return_index=True)
        different = order[np.sort(first_of_text)]
        return different[factors[different] > 1][:most].tolist()

    return largest(ahead), largest(behind)


def farthest(ranked: Sequence[RankedQueries], way: str, query: int) -> RankedQueries:
    """Returns the run whose expected rank of a query is farthest from the first's, by factor."""
    first, *others = ranked

    def factor(run: RankedQueries) -> float:
        return abs(np.log(run.expected_ranks(way)[query] / first.expected_ranks(way)[query]))

    return max(others, key=factor)
