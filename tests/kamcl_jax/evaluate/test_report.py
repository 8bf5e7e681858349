"""What report.md says beside the table of scores."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_model import tiny_config

from kamcl_jax.evaluate import evaluate, finished_run, report
from kamcl_jax.evaluate.figures import Retrieved
from kamcl_jax.ranking import metrics
from kamcl_jax.ranking.scores import Embeddings
from kamcl_jax.runs.record import History

IMAGES_OF_CAPTIONS = np.array([0, 0, 1, 2, 3, 3], np.int32)
DISTINCT = ["a port", "ships", "quays", "a beach", "sand", "waves"]
SHARED = ["a port", "ships", "a port", "a beach", "a port", "waves"]
CLASSES = ["port_1.png", "port_2.png", "{beach}_1.png", "{beach}_2.png"]
NUMBERS = ["1.png", "2.png", "3.png", "4.png"]


OF_CONCEPTS = {
    f"concept_map{side}{chance}": 12.5 for side in ("", "_text") for chance in ("", "_chance")
} | {"concepts_scored": 30}


def experiment(captions, file_names):
    split = SimpleNamespace(
        captions=captions,
        file_names=file_names,
        images=np.zeros((4, 8, 8, 3), np.uint8),
        image_of_caption=IMAGES_OF_CAPTIONS,
    )
    splits = dict.fromkeys(("train", "validation", "test"), split)
    concepts = SimpleNamespace(words=["a"])
    data = SimpleNamespace(**splits, left_out={}, vocabulary=["a"], concepts=concepts)
    return SimpleNamespace(config=tiny_config(), data=data, steps_per_epoch=1)


@pytest.fixture
def written(monkeypatch):
    """Writes the report of made-up scores and returns its text."""
    blank = Image.new("RGB", (8, 8))
    monkeypatch.setattr(report, "stored_images", lambda *_: lambda _: blank)

    def write(folder, experiment, concepts=()):
        scores = np.random.default_rng(0).random((4, 6), np.float32)
        embeddings = Embeddings(images=np.eye(4, dtype=np.float32), captions=scores.T)
        test = experiment.data.test
        ranks = evaluate.rank_test_split(embeddings, test, "expected")
        results = {
            "val": None,
            "chance": metrics.chance_metrics(test.image_of_caption),
            "best_step": 1,
            "best_epoch": 1.0,
            "seconds": 0.0,
            "concepts": concepts,
            **evaluate.detailed_metrics(ranks, test, "expected"),
        }
        if concepts:
            results["test"] |= OF_CONCEPTS
        ranks_of_captions = ranks["test_equal_texts"]["t2i"]
        report.write(folder, experiment, History(), results, embeddings, ranks_of_captions)
        return (folder / "report.md").read_text()

    return write


def test_the_report_tells_shared_captions_and_scene_classes_where_there_are_any(written, tmp_path):
    text = written(tmp_path / "with", experiment(SHARED, CLASSES))
    told = "of the 6 test captions share their text with a caption of another"
    assert f"3 {told}" in " ".join(text.split())
    assert "\n| {beach}     |      2 |        3 |" in text
    assert "\n| port        |      2 |        3 |" in text
    assert "](classes.png)" in text
    assert (tmp_path / "with" / "classes.png").exists()
    text = written(tmp_path / "without", experiment(DISTINCT, NUMBERS))
    assert f"None {told}" in " ".join(text.split())
    assert "## Scene classes" not in text
    assert "## Concepts" not in text
    assert not (tmp_path / "without" / "classes.png").exists()


def concept_rows(count, images):
    return [
        {"concept": f"c{place}", "images": images, "average_precision": 99.0 - place}
        | {"base_rate": 5.0}
        for place in range(count)
    ]


@pytest.mark.parametrize(
    ("frequent", "listed"),
    [
        (0, []),
        (4, ["c0", "c1", "c2", "c3"]),
        (13, [f"c{place}" for place in range(13)]),
        (30, [f"c{place}" for place in (*range(10), *range(20, 30))]),
    ],
)
def test_the_concepts_known_best_and_worst_are_listed_once(frequent, listed, written, tmp_path):
    rows = concept_rows(frequent, report.FEWEST_IMAGES) + concept_rows(3, report.FEWEST_IMAGES - 1)
    text = written(tmp_path, experiment(DISTINCT, NUMBERS), rows)
    assert re.search(r"\| test +\| captions +\| +12.50 \| +12.50 \| +30 \|", text)
    shown = re.findall(r"^\| (c\d+) +\| +10 \| +([\d.]+) \| +5.0 \|$", text, re.M)
    assert shown == [(word, f"{99 - int(word[1:]):.1f}") for word in listed]


def test_all_images_with_a_caption_of_the_text_are_matches():
    examples = SimpleNamespace(
        captions=["a barn", "a port", "a  port"], image_of_caption=np.array([0, 2, 1], np.int32)
    )
    embeddings = Embeddings(
        images=np.array([[1, 0], [0, 1], [1, 0]], np.float32),
        captions=np.array([[0, 1], [1, 0], [3, 2]], np.float32),
    )
    ranks = evaluate.rank_test_split(embeddings, examples, "expected")["test_equal_texts"]["t2i"]
    assert report.retrieve(embeddings, examples, [0, 1, 2], ranks) == [
        Retrieved("a barn", [1, 0, 2], [1, 0, 0], [False, True, False], rank=2.5),
        Retrieved("a port", [0, 2, 1], [1, 1, 0], [False, True, True], rank=1.5),
        Retrieved("a  port", [0, 2, 1], [3, 3, 2], [False, True, True], rank=1.5),
    ]


def test_no_text_is_shown_twice():
    captions = [*20 * ["a barn"], "a port", *20 * ["a  port"], "ships"]
    shown = report.captions_to_show(captions, seed=0)
    assert shown == [0, 20, 41]
    many = [f"ship {number}" for number in range(100)]
    draws = [report.captions_to_show(many, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == report.QUERIES_SHOWN


def test_pictures_are_of_the_stored_images_not_of_what_the_model_sees(stored_runs):
    run = finished_run.read(stored_runs.one)
    test = finished_run.open_data(run).test
    picture = report.stored_images(run.config, test)
    assert test.images.shape[1:3] == (64, 64)
    for row in (0, 3):
        assert picture(row).size == (48, 48)
        enlarged = np.asarray(picture(row).resize((64, 64)), np.float32)
        assert np.abs(enlarged - test.images[row]).mean() < 4
