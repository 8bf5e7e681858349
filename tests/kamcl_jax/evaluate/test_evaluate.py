"""Embedding and scoring a split, and what a report says of it beside the official scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from input_pipeline.language.texts import equal_text_ids
from input_pipeline.splits.examples import SelectedRows
from kamcl_jax.config.fields import FIELDS
from kamcl_jax.evaluate import evaluate, report
from kamcl_jax.inference import embed
from kamcl_jax.ranking import metrics
from kamcl_jax.ranking.ranks import TIES, rank_both_ways


def test_scoring_a_split_counts_ties_as_asked(one_device):
    def collapsed(variables, rows, *_):
        half = np.full((len(rows), 4), 0.5, np.float32)
        return embed.Encoded(half, half)

    captions = np.zeros((100, 3), np.int32)
    examples = SimpleNamespace(
        images=SelectedRows(np.zeros((30, 8, 8, 3), np.uint8), np.arange(20)),
        tokens=captions,
        lengths=captions[:, 0],
        word_concepts=captions,
        image_of_caption=np.repeat(np.arange(20), 5),
        image_concepts=np.eye(20, 4, dtype=np.float32) / 3,  # each in one of 20 images
    )
    encoders = embed.Encoders(collapsed, collapsed, one_device)
    expected, _ = evaluate.score_split(encoders, {}, examples, 8)
    argsort, _ = evaluate.score_split(encoders, {}, examples, 8, "argsort")
    chance = metrics.chance_metrics(examples.image_of_caption)
    assert {name: expected[name] for name in chance} == pytest.approx(chance, abs=1e-12)
    sides = ("concept_map", "concept_map_text")
    assert [expected[name] for name in sides] == pytest.approx([5, 5])
    assert [expected[f"{name}_chance"] for name in sides] == pytest.approx([5, 5])
    # All images see the captions in one order: those whose captions are the first five hit.
    first_five = np.argsort(np.ones(100))[::-1][:5]
    share = len(np.unique(examples.image_of_caption[first_five])) / 20
    assert argsort["i2t_r5"] == pytest.approx(100 * share)


def test_every_way_to_count_ties_can_be_configured_and_is_told_in_the_report():
    assert tuple(report.TIES) == TIES
    assert all(map(FIELDS["evaluation.ties"].rule.holds, TIES))


@pytest.mark.parametrize("ties", TIES)
def test_detailed_metrics_are_equal_texts_intervals_and_classes(ties):
    captions = ["a port", "ships", "a  port ", "a beach", "sand", "waves"]
    names = ["port_1.jpg", "port_2.jpg", "beach_1.jpg", "beach_2.jpg"]
    image_of_caption = np.array([0, 0, 1, 2, 2, 3], np.int32)
    split = SimpleNamespace(captions=captions, file_names=names, image_of_caption=image_of_caption)
    similarity = np.random.default_rng(0).integers(0, 4, (4, 6)).astype(np.float32)
    similarity[[0, 1], [2, 0]] = 9  # each port finds the other's caption, which says the same
    closer = evaluate.detailed_metrics(
        evaluate.rank_test_split(similarity, split, ties), split, ties
    )
    official = rank_both_ways(similarity, image_of_caption, ties)
    texts = equal_text_ids(captions)
    equal = rank_both_ways(similarity, image_of_caption, ties, texts)
    assert closer == {
        "test": metrics.retrieval_metrics(similarity, image_of_caption, ties),
        "test_equal_texts": metrics.retrieval_metrics(similarity, image_of_caption, ties, texts),
        "intervals": {
            "test": metrics.bootstrap_intervals(official, image_of_caption),
            "test_equal_texts": metrics.bootstrap_intervals(equal, image_of_caption),
        },
        "classes": metrics.recalls_of_classes(names, image_of_caption, official),
    }
    assert closer["intervals"]["test"] != closer["intervals"]["test_equal_texts"]
    assert [row["class"] for row in closer["classes"]] == ["beach", "port"]
