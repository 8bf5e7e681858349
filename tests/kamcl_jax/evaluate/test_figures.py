"""Pictures of a report."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from kamcl_jax.evaluate import figures
from kamcl_jax.ranking import scene_classes


def rows(count):
    scores = np.random.default_rng(0).permutation(count)
    return [
        {"class": f"class {i}", "images": 10, "mR": 100 * score / count}
        for i, score in enumerate(scores.tolist())
    ]


def test_class_bars_are_sorted_by_score(tmp_path):
    figures.class_bars(tmp_path / "one.png", rows(31), 50)
    figures.class_bars(tmp_path / "other.png", rows(31)[::-1], 50)
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "other.png") as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_further_loss_term_has_a_curve_of_its_own(tmp_path):
    names = ("loss", "triplet", "contrastive", "alignment", "mine")
    history = [{"step": step, **dict.fromkeys(names, -1.0 * step)} for step in (5, 10, 15)]
    sizes = []
    for terms in ([], ["mine"]):
        figures.loss_curves(tmp_path / "losses.png", history, 5, 2, terms)
        with Image.open(tmp_path / "losses.png") as image:
            sizes.append(image.size)
    assert sizes[1] == (sizes[0][0], 1.5 * sizes[0][1])


def test_every_class_bar_has_room_for_its_name(tmp_path):
    for count in (31, 45):
        figures.class_bars(tmp_path / f"{count}.png", rows(count), 50)
    with Image.open(tmp_path / "31.png") as few, Image.open(tmp_path / "45.png") as many:
        assert (many.height - few.height) / 14 > 20  # pixels; the letters are 8 points high
        assert many.width == few.width


def test_images_without_a_class_stand_out(tmp_path):
    some = [*rows(3), {"class": scene_classes.NO_CLASS, "images": 4, "mR": 70.0}]
    figures.class_bars(tmp_path / "classes.png", some, 50)
    with Image.open(tmp_path / "classes.png") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    grey = np.array([int(figures.MISS[i : i + 2], 16) for i in (1, 3, 5)])
    assert np.count_nonzero((colours == grey).all(axis=1)) > 3000


def test_texts_are_drawn_as_they_are(tmp_path):
    text = r"$\frac$"  # no formula that could be drawn
    split = SimpleNamespace(
        captions=[text],
        image_of_caption=np.zeros(1, int),
        images=np.zeros((2, 8, 8, 3), np.uint8),
    )
    retrieved = figures.Retrieved(caption=0, images=[0, 1], scores=[1.0, 1.0], rank=1.5)
    figures.contact_sheet(tmp_path / "sheet.png", split, [retrieved])
    named = [{**row, "class": text} for row in rows(2)]
    figures.class_bars(tmp_path / "classes.png", named, 50)
    for name in ("sheet.png", "classes.png"):
        with Image.open(tmp_path / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
