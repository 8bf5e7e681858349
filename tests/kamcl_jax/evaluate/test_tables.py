"""What a person reads of the results."""

import numpy as np
import pytest

from kamcl_jax.evaluate import tables
from kamcl_jax.ranking import metrics

RECALLS = dict(zip(metrics.RECALLS, (10.0, 20.0, 30.0, 40.0, 50.0, 60.0), strict=True))
SCORES = {**RECALLS, "mR": 35.0, "i2t_medr": 2.5, "i2t_meanr": 3.0, "t2i_medr": 4.0, "t2i_meanr": 5}
BOUNDS = {name: [value - 1.23, value + 4.56] for name, value in {**RECALLS, "mR": 35.0}.items()}


@pytest.fixture
def results():
    higher = {name: value + 7 for name, value in SCORES.items()}
    return {
        "test": SCORES,
        "test_equal_texts": higher,
        "val": None,
        "chance": {**RECALLS, "mR": 35.0},
        "intervals": {
            "test": BOUNDS,
            "test_equal_texts": {name: [low, 99.94] for name, (low, _) in BOUNDS.items()},
        },
    }


def test_columns_line_up():
    table = tables.markdown_table(("name", "mR"), [["a", "3.00"], ["longer", "12.50"]])
    assert table.splitlines() == [
        "| name   |    mR |",
        "|--------|-------|",
        "| a      |  3.00 |",
        "| longer | 12.50 |",
    ]
    assert tables.markdown_table(("a", "b"), [], left=2).splitlines() == ["| a | b |", "|---|---|"]


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_scores_have_two_rows_a_split_and_leave_out_what_is_missing(results):
    rows = cells(tables.scores(results))
    assert [row[0] for row in rows[2::2]] == ["test", "test, equal texts count", "test by chance"]
    assert rows[2][1:] == ["image to text", "10.00", "20.00", "30.00", "2.5", "3.0", "35.00"]
    assert rows[5][1:] == ["text to image", "47.00", "57.00", "67.00", "11.0", "12.0", "42.00"]
    assert rows[6][5:7] == ["-", "-"]
    assert "validation" in tables.scores({**results, "val": SCORES})


def test_intervals_stand_where_their_scores_do(results):
    rows = cells(tables.intervals(results))
    recalls = ["8.8 to 14.6", "18.8 to 24.6", "28.8 to 34.6", "33.8 to 39.6"]
    assert rows[2] == ["test", "image to text", *recalls]
    assert rows[5][:3] == ["test, equal texts count", "text to image", "38.8 to 99.9"]
    assert tables.summary(results).splitlines()[-2:] == [
        "test: mR 35.00 (95 % interval over images: 33.8 to 39.6)",
        "test, equal texts count: mR 42.00 (95 % interval over images: 33.8 to 99.9)",
    ]


OF_CONCEPTS = {
    "concept_map": 41.256,
    "concept_map_chance": 10.0,
    "concept_map_text": 62.5,
    "concept_map_text_chance": 11.0,
    "concepts_scored": 37,
}


def test_concepts_have_a_row_for_each_side_of_a_split_that_was_measured(results):
    assert tables.concepts(results) == ""
    measured = {**results, "test": {**SCORES, **OF_CONCEPTS}}
    assert tables.concepts({**measured, "val": SCORES}) == tables.concepts(measured)
    rows = cells(tables.concepts({**measured, "val": {**SCORES, **OF_CONCEPTS}}))
    assert rows[2] == ["test", "images", "41.26", "10.00", "37"]
    assert rows[5] == ["validation", "captions", "62.50", "11.00", "37"]
    assert tables.summary(measured).splitlines()[-1] == (
        "test: mean average precision of concepts 41.26 of images (by chance 10.00), 62.50 of "
        "captions"
    )


def test_classes_have_their_counts_and_recalls():
    row = {"class": "a|b", "images": 3, "captions": 15, **RECALLS, "mR": np.float64(35.04)}
    head, _, line = cells(tables.classes([row]).replace(r"\|", "/"))
    recalls = ["i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10"]
    assert head == ["scene class", "images", "captions", *recalls, "mR"]
    assert line == ["a/b", "3", "15", "10.0", "20.0", "30.0", "40.0", "50.0", "60.0", "35.0"]
