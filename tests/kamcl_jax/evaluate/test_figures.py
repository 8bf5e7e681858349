"""Pictures of a report."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from kamcl_jax.evaluate import figures
from kamcl_jax.ranking.metrics import NO_CLASS, RECALLS


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    return saved


def rows(count):
    scores = np.random.default_rng(0).permutation(count)
    return [
        {"class": f"class {i}", "images": 10, "mR": 100 * score / count}
        for i, score in enumerate(scores.tolist())
    ]


def test_class_bars_are_sorted_and_images_without_a_class_stand_out(drawn, tmp_path):
    some = [*rows(4), {"class": NO_CLASS, "images": 4, "mR": 70.0}]
    figures.class_bars(tmp_path, some, 50)
    (axis,) = drawn[0].axes
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == sorted(widths)
    grey = [bar.get_width() for bar in axis.patches if bar.get_facecolor()[0] > 0.6]
    assert grey == [70]
    # There is room for every name.
    for count in (31, 45):
        figures.class_bars(tmp_path, rows(count), 50)
    few, many = (figure.get_figheight() for figure in drawn[1:])
    assert (many - few) / 14 > 0.18  # inches; the letters are 8 points high


def test_a_further_loss_term_has_a_curve_of_its_own(drawn, tmp_path):
    names = ("loss", "triplet", "contrastive", "alignment", "mine")
    history = [{"step": step, **dict.fromkeys(names, -1.0 * step)} for step in (5, 10, 15)]
    for terms in ([], ["mine"]):
        figures.loss_curves(tmp_path, history, 5, 2, terms)
    plotted = [sum(bool(axis.lines) for axis in figure.axes) for figure in drawn]
    assert plotted == [4, 5]


@pytest.mark.parametrize("epochs", [1, 3, 40])
@pytest.mark.parametrize("recall", [0.5, 100.0])
def test_epochs_are_whole_and_labels_stay_inside_the_frame(epochs, recall, drawn, tmp_path):
    names = ("loss", "triplet", "contrastive", "alignment")
    losses = [{"step": step, **dict.fromkeys(names, 1.0)} for step in range(1, 2 * epochs + 1)]
    for border in (0.1, epochs - 0.1):
        figures.loss_curves(tmp_path, losses, 2, border)
    scores = dict.fromkeys((*RECALLS, "mR"), 0.0)
    validated = [{"epoch": float(epoch), **scores} for epoch in range(1, epochs + 1)]
    validated[-1]["mR"] = recall
    figures.recall_curves(tmp_path, validated, 0.5)
    for axis in (axis for figure in drawn for axis in figure.axes):
        axis.figure.draw_without_rendering()
        ticks = axis.get_xticks()
        np.testing.assert_array_equal(ticks, np.round(ticks))
        for text in axis.texts:
            assert _inside(text.get_window_extent(), axis)


def _inside(box, axis: Axes):
    frame = axis.get_window_extent()
    return frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1


def test_every_match_is_framed_and_texts_are_drawn_as_they_are(drawn, tmp_path):
    text = r"$\frac$"  # no formula that could be drawn
    found = figures.Retrieved(text, [0, 1, 2], [1.0, 1.0, 0.5], [True, False, True], 320 / 3)
    figures.contact_sheet(tmp_path, lambda image: Image.new("RGB", (9 + image, 9)), [found])
    named = [{**row, "class": text} for row in rows(2)]
    figures.class_bars(tmp_path, named, 50)
    for figure in drawn:
        figure.draw_without_rendering()
    caption, *images = drawn[0].axes
    assert [drawn_text.get_text() for drawn_text in caption.texts] == [text, "match at rank 106.7"]
    widths = [axis.spines["top"].get_linewidth() for axis in images if axis.images]
    assert widths == [5, 1, 5]
