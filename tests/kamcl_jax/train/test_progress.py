"""The bar, the sentence that something takes long, and the means of a logging interval."""

import time

import pytest
import tqdm

from kamcl_jax.train import progress


@pytest.mark.parametrize("columns", [80, 110])
def test_the_bar_and_its_figures_fit_a_terminal(columns, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tqdm.std, "_screen_shape_wrapper", lambda: lambda _: (columns, 30))
    with progress.Progress(tmp_path, 11_000, 120_000) as bar:
        bar.step()
        monkeypatch.setattr(progress.time, "perf_counter", lambda: bar._since + 0.5)
        bar.train(11_001, {"loss": 123.456, "triplet": 7.0}, batch_size=64)
        bar.step()
    last = capsys.readouterr().err.split("\r")[-1].rstrip("\n")
    assert len(last) <= columns
    assert "loss 123.46" in last
    assert ", 128 images/s]" in last
    assert len(last.split("|")[1]) >= 8  # of the bar itself


def test_a_validation_is_told_in_one_line_with_or_without_concepts(tmp_path, capsys):
    scores = {"i2t_r1": 33.3, "mR": 58.89, "i2t_medr": 2.0}
    with progress.Progress(tmp_path, 0, 10) as bar:
        bar.validation(5, 1.0, scores)
        bar.validation(5, 1.0, {**scores, "concept_map": 41.25, "concept_map_chance": 9.0})
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert [line.strip() for line in lines] == [
        "epoch 1: validation mR 58.89  (i2t_r1 33.3)",
        "epoch 1: validation mR 58.89, concept mAP 41.2  (i2t_r1 33.3)",
    ]


def test_only_what_takes_long_is_told(capsys):
    with progress.told_if_slow("so far", 600):
        pass
    with progress.told_if_slow("compiling", 0.01):
        time.sleep(0.2)
    assert capsys.readouterr().out == "compiling\n"


def test_means_are_over_finite_steps_and_counts_are_the_last_ones():
    rows = [
        {"loss": 1.0, "norm": 2.0, "skipped": 0.0},
        {"loss": 5.0, "norm": float("inf"), "skipped": 1.0},
        {"loss": 3.0, "norm": 4.0, "skipped": 1.0},
    ]
    assert progress.means(rows) == {"loss": 2.0, "norm": 3.0, "skipped": 1.0}
    assert progress.means([{"loss": float("nan")}]) is None
    assert progress.means([]) is None
