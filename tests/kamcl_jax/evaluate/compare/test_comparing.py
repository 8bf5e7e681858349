"""A comparison of two runs: its report, its pictures, and what is left out and why."""

import json
import re
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from stored_runs import STEP

from kamcl_jax.errors import ConfigError, NotComparableError
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.compare import command, report
from kamcl_jax.evaluate.compare.runs import rank_all, read_runs
from kamcl_jax.ranking import metrics


@pytest.fixture(scope="module")
def compared(stored_runs, tmp_path_factory):
    """The comparison of both runs: its folder, its report, what was printed, and the ranks."""
    out = tmp_path_factory.mktemp("compared") / "new" / "folder"
    ranked, printed = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "rank_all", lambda runs: ranked.extend(rank_all(runs)) or ranked)
        patch.setattr(command.hosts, "say", printed.append)
        command.compare([stored_runs.one, stored_runs.two], out)
    text = (out / "report.md").read_text()
    return SimpleNamespace(out=out, text=text, printed="\n".join(printed), ranked=ranked)


@pytest.mark.parametrize(
    ("protocol", "words"), [("test", ""), ("test_equal_texts", ", equal texts count")]
)
def test_recalls_and_paired_differences_are_in_the_report_and_the_terminal(
    protocol, words, compared, stored_runs
):
    recalls = []
    for label, folder in (("one", stored_runs.one), ("two", stored_runs.two)):
        results = finished_run.read(folder).results
        recalls.append(results[protocol])
        low, high = results["intervals"][protocol]["mR"]
        expected = f"{results[protocol]['mR']:.2f} ({low:.1f} to {high:.1f})"
        row = rf"\| {label}{words} +\|.*\| +{re.escape(expected)} \|"
        assert re.search(row, compared.text)
        assert re.search(row, compared.printed)
    one, two = recalls
    row = re.search(rf"\| two less one{words} +\|(.*)\|", compared.text)[1].split("|")
    for cell, name in zip(row, metrics.RECALLS_AND_MEAN, strict=True):
        gain, low, high = (float(number) for number in re.findall(r"[-+]?\d+\.\d+", cell))
        assert gain == pytest.approx(two[name] - one[name], abs=0.006)
        assert low <= gain + 0.06
        assert high >= gain - 0.06
    assert f"\ntwo less one{words}: mR {row[-1].strip()}\n" in compared.printed
    assert re.search(r"\| `seed` \| 0 +\| 1 +\|", compared.text)


def test_queries_are_listed_with_the_rank_in_each_run(compared):
    one, two = (of_run.expected_ranks("t2i") for of_run in compared.ranked)
    farthest = np.argmax(two / one)
    ahead = compared.text.split("one is ahead:")[1].split("one is behind:")[0]
    cells = [cell.strip() for cell in ahead.strip().splitlines()[2].strip("|").split("|")]
    caption = compared.ranked[0].examples.captions[farthest]
    assert cells == [caption, *(report.tables.rank(ranks[farthest]) for ranks in (one, two))]
    one, two = (of_run.ranks["test"]["t2i"].expected() for of_run in compared.ranked)
    counts = re.search(r"two against one \| text to image +\|(.*)\|", compared.text)[1].split("|")
    expected = [np.sum(two < one), np.sum(two == one), np.sum(two > one)]
    assert [int(count) for count in counts] == expected


def test_every_picture_is_there_and_shows_something(compared):
    for name in ("recalls.png", "curves.png", "queries.png"):
        assert f"({name})" in compared.text
        with Image.open(compared.out / name) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_a_comparison_that_is_cut_short_leaves_the_one_before_and_gone_data_are_told(
    compared, stored_runs, tmp_path, monkeypatch
):
    monkeypatch.setattr(finished_run, "open_data", Mock(side_effect=ConfigError("no such folder.")))
    out = shutil.copytree(compared.out, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as full:
        no_space = OSError(28, "No space left on device")
        full.setattr(report, "draw_curves", Mock(side_effect=no_space))
        with pytest.raises(OSError, match="No space left"):
            command.compare([stored_runs.two, stored_runs.one], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    command.compare([stored_runs.two, stored_runs.one], out)
    assert {path.name for path in out.iterdir()} == before.keys() - {"queries.png"}
    text = (out / "report.md").read_text()
    assert "Queries are not compared: the data of two cannot be opened (no such folder)." in text
    assert "differ most" not in text


def test_other_data_are_noticed(stored_runs, monkeypatch):
    runs = read_runs([stored_runs.one, stored_runs.two])
    real = finished_run.open_data

    def other(run):
        data = real(run)
        if run is runs[1].finished:
            captions = ["another one", *list(data.test.captions)[1:]]
            object.__setattr__(data.test, "captions", captions)
        return data

    monkeypatch.setattr(finished_run, "open_data", other)
    with pytest.raises(NotComparableError, match="one and two were tested on different"):
        rank_all(runs)
    runs[1].finished.config.data.name = "rsicd"
    with pytest.raises(NotComparableError, match=r"\(one: synthetic, two: rsicd\)"):
        rank_all(runs)


def test_an_outdated_report_and_a_run_without_curves_are_told(stored_runs, tmp_path):
    copied = shutil.copytree(stored_runs.one, tmp_path / "copied")
    path = copied / finished_run.METRICS
    path.write_text(json.dumps({**json.loads(path.read_text()), "best_step": 15}))
    runs = read_runs([copied, stored_runs.two])
    for run in runs:
        run.finished.history.train.clear()
    text = report.document(runs, [], {}, "no reason")
    assert f"The report of copied is of step 15, but its best checkpoint is of step {STEP}" in text
    assert "curves.png" not in text


def test_a_legend_names_every_run(stored_runs, tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(
        report, "_legend", lambda _, axis: named.append(axis.get_legend_handles_labels()[1])
    )
    hidden = shutil.copytree(stored_runs.two, tmp_path / "_two")
    runs = read_runs([stored_runs.one, hidden])
    report.draw_recalls(tmp_path / "recalls.png", runs)
    report.draw_curves(tmp_path / "curves.png", runs)
    assert named == [["one", "./_two"]] * 2


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
    with pytest.raises(ConfigError, match="cannot be a folder"):
        command.compare(folders, tmp_path / "file")
