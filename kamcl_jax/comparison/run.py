"""`--mode=compare`: two or more runs beside each other, as Markdown and pictures."""

from collections.abc import Sequence
from pathlib import Path

from input_pipeline import storage
from kamcl_jax import hosts, ranking
from kamcl_jax.comparison import figures, queries, report
from kamcl_jax.comparison import runs as compared_runs
from kamcl_jax.comparison.figures import Retrieval
from kamcl_jax.comparison.queries import NotComparableError, RankedQueries
from kamcl_jax.config_check import ConfigError

QUERIES_LISTED, QUERIES_SHOWN = 8, 3
"""Where the first run is ahead, and as many where it is behind."""


def compare(folders: Sequence[Path], out: Path) -> None:
    """Writes a comparison of runs.

    Args:
      folders: of the runs, 2 to 8; the others are compared with the first.
      out: folder to write to; what a comparison has written there before is replaced.

    Raises:
      ConfigError: the runs cannot be compared, or the folder holds something else.
      CheckpointError: a checkpoint cannot be read.
    """
    _check_folder(out)
    runs = compared_runs.read(folders)
    _make_folder(out)
    ranked, why_not = [], ""
    try:
        ranked = queries.rank_all(runs)
    except NotComparableError as error:
        why_not = str(error)
        hosts.warn(f"queries are not compared: {error}")
    chosen = {way: queries.most_different(ranked, way, QUERIES_LISTED) for way in ranking.WAYS}
    text = report.document(runs, ranked, chosen, why_not)
    for name in report.FILES:
        (out / name).unlink(missing_ok=True)
    figures.recall_bars(out / report.RECALLS, runs)
    if report.CURVES_TEXT in text:
        figures.curves(out / report.CURVES, runs)
    if any(chosen["t2i"]):
        figures.query_sheet(out / report.SHEET, ranked[0].examples, _shown(ranked, *chosen["t2i"]))
    storage.write_text(out / report.REPORT, text)
    hosts.say(report.recalls(runs))
    hosts.say(f"report: {out / report.REPORT}")


def _check_folder(out: Path) -> None:
    """Refuses to replace the report of something else, as that of a run."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out={out} cannot be a folder: it is a file")
    written = out / report.REPORT
    if written.is_file() and not written.read_text("utf-8", "replace").startswith(report.TITLE):
        raise ConfigError(f"{written} is not of a comparison; choose another --out")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be a folder: {error.strerror}") from error


def _shown(
    ranked: Sequence[RankedQueries], ahead: Sequence[int], behind: Sequence[int]
) -> list[list[Retrieval]]:
    """Returns what captions retrieve in the first run and in the one that differs most from it."""
    return [
        [
            Retrieval(run.label, *run.retrieve([caption]))
            for run in (ranked[0], queries.farthest(ranked, "t2i", caption))
        ]
        for caption in (*ahead[:QUERIES_SHOWN], *behind[:QUERIES_SHOWN])
    ]
