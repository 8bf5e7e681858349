"""`--mode=compare`: two or more runs beside each other, as Markdown and pictures."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from input_pipeline import storage
from kamcl_jax.errors import ConfigError, NotComparableError
from kamcl_jax.evaluate.compare import report
from kamcl_jax.evaluate.compare.runs import (
    RankedQueries,
    farthest,
    most_different,
    rank_all,
    read_runs,
)
from kamcl_jax.evaluate.figures import Retrieved
from kamcl_jax.evaluate.report import retrieve, stored_images
from kamcl_jax.parallel import hosts
from kamcl_jax.ranking.ranks import WAYS
from kamcl_jax.runs.folder import check_out_folder, make_out_folder

QUERIES_LISTED, QUERIES_SHOWN = 8, 3
"""Where the first run is ahead, and as many where it is behind."""


def compare(folders: Sequence[Path], out: Path) -> None:
    """Compares 2 to 8 runs with the first; what a comparison wrote there before is replaced."""
    _check_folder(out)
    runs = read_runs(folders)
    make_out_folder(out)
    ranked, why_not = [], ""
    try:
        ranked = rank_all(runs)
    except NotComparableError as error:
        why_not = str(error)
        hosts.warn(f"queries are not compared: {error}")
    chosen = {way: most_different(ranked, way, QUERIES_LISTED) for way in WAYS}
    text = report.document(runs, ranked, chosen, why_not)
    # Inside, to be on the same disk: a comparison that is cut short leaves the one before.
    with tempfile.TemporaryDirectory(prefix=".comparison.", dir=out) as unfinished:
        folder = Path(unfinished)
        report.draw_recalls(folder / report.RECALLS, runs)
        if report.CURVES_TEXT in text:
            report.draw_curves(folder / report.CURVES, runs)
        if any(chosen["t2i"]):
            picture = stored_images(runs[0].finished.config, ranked[0].examples)
            report.draw_queries(folder / report.SHEET, picture, _shown(ranked, *chosen["t2i"]))
        storage.write_text(folder / report.REPORT, text)
        _replace(out, folder)
    hosts.say(report.recall_table(runs))
    if ranked:
        hosts.say(report.difference_lines(ranked))
    hosts.say(f"report: {out / report.REPORT}")


def _check_folder(out: Path) -> None:
    """Refuses to replace files of the same names that are of something else, as those of a run."""
    check_out_folder(out)
    found = [name for name in report.FILES if (out / name).exists()]
    if found and not _is_ours(out / report.REPORT):
        raise ConfigError(f"{out / found[0]} is not of a comparison; choose another --out")


def _is_ours(written: Path) -> bool:
    return written.is_file() and written.read_text("utf-8", "replace").startswith(report.TITLE)


def _replace(out: Path, folder: Path) -> None:
    """Moves a comparison's files to where those of another one are."""
    drawn = [name for name in reversed(report.FILES) if (folder / name).exists()]
    for name in drawn:  # the report last: it names the others
        os.replace(folder / name, out / name)
    for name in set(report.FILES).difference(drawn):
        (out / name).unlink(missing_ok=True)


def _shown(
    ranked: Sequence[RankedQueries], ahead: Sequence[int], behind: Sequence[int]
) -> list[list[tuple[str, Retrieved]]]:
    """Returns what captions retrieve in the first run and in the one that differs most from it."""
    return [
        [
            (run.label, _retrieved(run, caption))
            for run in (ranked[0], farthest(ranked, "t2i", caption))
        ]
        for caption in dict.fromkeys((*ahead[:QUERIES_SHOWN], *behind[:QUERIES_SHOWN]))
    ]


def _retrieved(run: RankedQueries, caption: int) -> Retrieved:
    ranks = run.ranks["test_equal_texts"]["t2i"]
    (found,) = retrieve(run.embeddings, run.examples, [caption], ranks)
    return found
