"""How runs rank the same queries: whether they can be compared, and where they differ most."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.splits.examples import Examples
from kamcl_jax.errors import ConfigError, NotComparableError
from kamcl_jax.evaluate import finished_run, report
from kamcl_jax.evaluate.compare.runs import ComparedRun
from kamcl_jax.evaluate.figures import Retrieved
from kamcl_jax.inference import embed
from kamcl_jax.ranking import ranks as ranking
from kamcl_jax.ranking.ranks import Ranks
from kamcl_jax.ranking.scores import Embeddings


@dataclasses.dataclass(frozen=True)
class RankedQueries:
    """How a run ranks the queries of the test split.

    Attributes:
      label: of the run.
      examples: the test split.
      ranks: as `ranking.both_ways` returns them.
      embeddings: of the test split.
      ties: as the run's config counts them.
    """

    label: str
    examples: Examples
    ranks: dict[str, Ranks]
    embeddings: Embeddings
    ties: str

    def retrieve(self, captions: Sequence[int]) -> list[Retrieved]:
        """Returns what some captions retrieve."""
        return report.retrieve(self.embeddings, self.examples, captions, self.ties)


def rank_all(runs: Sequence[ComparedRun]) -> list[RankedQueries]:
    """Ranks the queries of the test split with the best checkpoint of each run.

    Args:
      runs: two or more.

    Raises:
      NotComparableError: the runs were tested on different data, or data cannot be opened.
      CheckpointError: a checkpoint cannot be read.
    """
    splits = _same_test_splits(runs)
    return [_rank(run, examples) for run, examples in zip(runs, splits, strict=True)]


def _same_test_splits(runs: Sequence[ComparedRun]) -> list[Examples]:
    """Opens the test split of each run: the same images and captions, each in its run's tokens."""
    names = {run.label: run.stored.config.data.name for run in runs}
    if len(set(names.values())) > 1:
        listed = ", ".join(f"{label}: {name}" for label, name in names.items())
        raise NotComparableError(f"the runs are of different data sets ({listed})")
    splits: list[Examples] = []
    for run in runs:
        try:
            splits.append(finished_run.open_data(run.stored).test)
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
    model, settings = run.stored.model(), run.stored.config.evaluation
    embeddings = embed.embed(model.encoders, model.variables, examples, settings.batch_size)
    ranks = ranking.both_ways(embeddings, examples.image_of_caption, settings.ties)
    return RankedQueries(run.label, examples, ranks, embeddings, settings.ties)


def most_different(
    ranked: Sequence[RankedQueries], way: str, most: int
) -> tuple[list[int], list[int]]:
    """Returns the queries where the first run is farthest ahead of another one, or behind it.

    How far is told by the factor between the two expected ranks and not by their difference: from
    1 to 10 matters more than from 101 to 110.

    Args:
      ranked: by each run; none, if they cannot be compared.
      way: one of `ranking.WAYS`.
      most: how many to return of each.

    Returns:
      Queries where the first run is ahead, and where it is behind, the farthest first.
    """
    if not ranked:
        return [], []
    first, *others = (run.ranks[way].expected() for run in ranked)
    ahead, behind = np.max(others, axis=0) / first, first / np.min(others, axis=0)

    def largest(factors: np.ndarray) -> list[int]:
        order = np.argsort(-factors, kind="stable")[:most]
        return [int(query) for query in order if factors[query] > 1]

    return largest(ahead), largest(behind)


def farthest(ranked: Sequence[RankedQueries], way: str, query: int) -> RankedQueries:
    """Returns the run whose expected rank of a query is farthest from the first's, by factor."""
    first, *others = ranked

    def rank(run: RankedQueries) -> float:
        return run.ranks[way].expected()[query]

    return max(others, key=lambda run: abs(np.log(rank(run) / rank(first))))
