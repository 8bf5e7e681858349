"""A comparison of two runs: its report, its pictures, and what is left out and why."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stored_runs import STEP

from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.compare import command, figures, queries, report
from kamcl_jax.evaluate.compare import runs as compared_runs
from kamcl_jax.ranking import metrics


@dataclasses.dataclass(frozen=True)
class Compared:
    """The comparison of both runs.

    Attributes:
      out: its folder.
      text: its report.
      ranked: how each run ranks the queries.
    """

    out: Path
    text: str
    ranked: list


@pytest.fixture(scope="module")
def compared(stored_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "new" / "folder"
    rank_all, ranked = queries.rank_all, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "rank_all", lambda runs: ranked.extend(rank_all(runs)) or ranked)
        command.compare([stored_runs.one, stored_runs.two], out)
    return Compared(out, (out / "report.md").read_text(), ranked)


def results(folder):
    return finished_run.read(folder).results


def test_the_report_has_the_recalls_and_intervals_of_each_run(compared, stored_runs):
    text = compared.text
    for label, folder in (("one", stored_runs.one), ("two", stored_runs.two)):
        found = results(folder)
        low, high = found["intervals"]["test"]["mR"]
        expected = f"{found['test']['mR']:.2f} ({low:.1f} to {high:.1f})"
        assert re.search(rf"\| {label} .*\| +{re.escape(expected)} \|", text)
    assert re.search(r"\| `seed` \| 0 +\| 1 +\|", text)


def test_the_runs_are_scored_as_their_reports_say(compared, stored_runs):
    for of_run, folder in zip(compared.ranked, (stored_runs.one, stored_runs.two), strict=True):
        found = results(folder)["test"]
        for name, value in metrics.recalls(of_run.ranks).items():
            assert value == pytest.approx(found[name])


def test_the_report_has_the_difference_of_the_recalls(compared, stored_runs):
    text = compared.text
    one, two = results(stored_runs.one)["test"], results(stored_runs.two)["test"]
    row = re.search(r"\| two less one \|(.*)\|", text)[1].split("|")
    for cell, name in zip(row, report.METRICS, strict=True):
        gain, low, high = (float(number) for number in re.findall(r"[-+]?\d+\.\d+", cell))
        assert gain == pytest.approx(two[name] - one[name], abs=0.006)
        assert low <= gain + 0.06
        assert high >= gain - 0.06


def test_queries_are_listed_with_the_rank_in_each_run(compared):
    text = compared.text
    one, two = (of_run.ranks["t2i"].expected() for of_run in compared.ranked)
    factors = two / one
    caption = compared.ranked[0].examples.captions[int(np.argmax(factors))]
    ahead = text.split("one is ahead:")[1].split("one is behind:")[0]
    first_row = ahead.strip().splitlines()[2]
    cells = [cell.strip() for cell in first_row.strip("|").split("|")]
    assert cells == [caption, f"{one[factors.argmax()]:.10g}", f"{two[factors.argmax()]:.10g}"]
    counts = re.search(r"two against one \| text to image +\|(.*)\|", text)[1].split("|")
    expected = [np.sum(two < one), np.sum(two == one), np.sum(two > one)]
    assert [int(count) for count in counts] == expected


def test_every_picture_is_there_and_shows_something(compared):
    text = compared.text
    for name in ("recalls.png", "curves.png", "queries.png"):
        assert f"({name})" in text
        with Image.open(compared.out / name) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_data_that_are_gone_are_told_and_the_rest_is_there(stored_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(finished_run, "open_data", _gone)
    command.compare([stored_runs.one, stored_runs.two], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Queries are not compared: the data of one cannot be opened (no such folder)." in text
    assert (tmp_path / "curves.png").is_file()
    assert not (tmp_path / "queries.png").exists()
    assert "differ most" not in text


def test_data_that_may_not_be_read_are_told(stored_runs, monkeypatch):
    def forbidden(_):
        raise PermissionError(13, "Permission denied", "/data/images")

    monkeypatch.setattr(finished_run, "open_data", forbidden)
    runs = compared_runs.read([stored_runs.one, stored_runs.two])
    with pytest.raises(queries.NotComparableError, match=r"one cannot .*denied: '/data/images'"):
        queries.rank_all(runs)


def test_a_comparison_that_is_cut_short_leaves_the_one_before(
    compared, stored_runs, tmp_path, monkeypatch
):
    monkeypatch.setattr(finished_run, "open_data", _gone)
    out = shutil.copytree(compared.out, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as full:
        full.setattr(figures, "curves", _full)
        with pytest.raises(OSError, match="No space left"):
            command.compare([stored_runs.two, stored_runs.one], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    command.compare([stored_runs.two, stored_runs.one], out)
    assert {path.name for path in out.iterdir()} == before.keys() - {"queries.png"}
    assert (out / "report.md").read_bytes() != before["report.md"]


def _full(*_):
    raise OSError(28, "No space left on device")


def _gone(_):
    raise ConfigError("no such folder.")


def test_runs_of_other_data_sets_are_told_by_name(stored_runs):
    first, second = compared_runs.read([stored_runs.one, stored_runs.two])
    second.stored.config.data.name = "rsicd"
    with pytest.raises(queries.NotComparableError, match=r"\(one: synthetic, two: rsicd\)"):
        queries.rank_all([first, second])


def test_other_captions_of_the_same_data_set_are_noticed(stored_runs, monkeypatch):
    runs = compared_runs.read([stored_runs.one, stored_runs.two])
    real = finished_run.open_data

    def other(stored):
        data = real(stored)
        if stored.folder == stored_runs.two:
            captions = ["another one", *list(data.test.captions)[1:]]
            object.__setattr__(data.test, "captions", captions)
        return data

    monkeypatch.setattr(finished_run, "open_data", other)
    with pytest.raises(queries.NotComparableError, match="one and two were tested on different"):
        queries.rank_all(runs)


def test_an_outdated_report_and_a_run_without_curves_are_told(stored_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(finished_run, "open_data", _gone)
    copied = shutil.copytree(stored_runs.one, tmp_path / "copied")
    path = copied / finished_run.METRICS
    path.write_text(json.dumps({**json.loads(path.read_text()), "best_step": 15}))
    runs = compared_runs.read([copied, stored_runs.two])
    runs = [_without_history(of_run) for of_run in runs]
    text = report.document(runs, [], {}, "no reason")
    assert f"The report of copied is of step 15, but its best checkpoint is of step {STEP}" in text
    assert "curves.png" not in text


def _without_history(of_run):
    of_run.stored.history.train.clear()
    return of_run


def test_a_legend_names_every_run(stored_runs, tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(figures, "_legend", lambda _, axis: named.append(_labels(axis)))
    hidden = shutil.copytree(stored_runs.two, tmp_path / "_two")
    runs = compared_runs.read([stored_runs.one, hidden])
    figures.recall_bars(tmp_path / "recalls.png", runs)
    figures.curves(tmp_path / "curves.png", runs)
    assert named == [["one", "./_two"]] * 2


def _labels(axis):
    return axis.get_legend_handles_labels()[1]


def test_captions_and_names_cannot_break_a_table():
    text = report._text("a | b\n<script> *c* [d](e) `f` " + 200 * "x")
    assert "\n" not in text
    assert "\\|" in text
    assert "\\<script>" in text
    assert len(text) < report.LONGEST_TEXT + 20


def test_the_report_of_something_else_is_never_replaced(stored_runs, tmp_path):
    folders = [stored_runs.one, stored_runs.two]
    before = (stored_runs.one / "report" / "report.md").read_text()
    with pytest.raises(ConfigError, match=r"report.md is not of a comparison"):
        command.compare(folders, stored_runs.one / "report")
    assert (stored_runs.one / "report" / "report.md").read_text() == before
    (tmp_path / "curves.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"curves.png is not of a comparison"):
        command.compare(folders, tmp_path)
    assert (tmp_path / "curves.png").read_bytes() == b"mine"
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(ConfigError, match="cannot be a folder"):
            command.compare(folders, out)
