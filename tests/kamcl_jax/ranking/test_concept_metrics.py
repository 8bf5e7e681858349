"""Mean average precision of concepts against a plain loop over thresholds."""

import numpy as np
import pytest

from kamcl_jax.ranking import concept_metrics

GENERATOR = np.random.default_rng(0)


def plain_average_precision(scores, labels):
    """The area under the steps of precision over recall, a threshold at a time, in percent."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = labels[scores >= threshold]
        area += (taken.sum() / labels.sum() - recall) * taken.mean()
        recall = taken.sum() / labels.sum()
    return 100 * area


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
@pytest.mark.parametrize("block_cells", [1, 100, 2**20])
def test_average_precision_equals_a_loop_over_thresholds(levels, block_cells, monkeypatch):
    monkeypatch.setattr(concept_metrics, "_BLOCK_CELLS", block_cells)
    scores = (GENERATOR.integers(0, levels, (40, 9)) / levels).astype(np.float32)
    labels = GENERATOR.random((40, 9)) < np.linspace(0.05, 0.9, 9)
    labels[0], labels[1] = True, False
    found = concept_metrics.average_precision(scores, labels)
    expected = [plain_average_precision(*pair) for pair in zip(scores.T, labels.T, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_order_of_tied_rows_does_not_matter():
    scores = GENERATOR.integers(0, 3, (30, 4)).astype(np.float32)
    labels = GENERATOR.random((30, 4)) < 0.4
    order = GENERATOR.permutation(30)
    np.testing.assert_allclose(
        concept_metrics.average_precision(scores[order], labels[order]),
        concept_metrics.average_precision(scores, labels),
    )


def test_the_best_the_worst_and_what_cannot_be_told_apart():
    labels = np.zeros((10, 4), bool)
    labels[:2, :2], labels[:, 2] = True, True  # the third is everywhere, the fourth nowhere
    scores = np.repeat(np.linspace(1, 0, 10, dtype=np.float32)[:, None], 4, axis=1)
    scores[:, 1] *= -1
    best, worst, *others = concept_metrics.average_precision(scores, labels)
    assert best == 100
    assert worst == pytest.approx(100 * (1 / 9 + 2 / 10) / 2)
    assert np.isnan(others).all()
    captions = np.arange(10)
    assert concept_metrics.concept_metrics(scores, 1 - scores, labels, captions) == {
        "concept_map": pytest.approx((best + worst) / 2),
        "concept_map_chance": pytest.approx(20),
        "concept_map_text": pytest.approx((best + worst) / 2),  # the other way around
        "concept_map_text_chance": pytest.approx(20),
        "concepts_scored": 2,
    }
    for none in (slice(2, 4), slice(0)):
        cut = scores[:, none]
        assert concept_metrics.concept_metrics(cut, cut, labels[:, none], captions) == {}
    # The last columns are padding.
    assert concept_metrics.known_concepts(["ship", "port"], scores, labels) == [
        {"concept": word, "images": 2, "average_precision": precision, "base_rate": 20.0}
        for word, precision in (("ship", best), ("port", worst))
    ]


def test_a_prediction_that_is_the_same_for_all_scores_exactly_chance():
    labels = GENERATOR.random((50, 20)) < GENERATOR.random(20)
    image_of_caption = np.repeat(np.arange(50), 1 + np.arange(50) % 3)
    constant = GENERATOR.random(20, np.float32)
    found = concept_metrics.concept_metrics(
        np.tile(constant, (50, 1)),
        np.tile(constant, (len(image_of_caption), 1)),
        labels,
        image_of_caption,
    )
    scored = labels.any(axis=0) & ~labels.all(axis=0)
    for name, of_side in (("", labels), ("_text", labels[image_of_caption])):
        chance = 100 * of_side[:, scored].mean()
        assert found[f"concept_map{name}"] == pytest.approx(chance, abs=1e-9)
        assert found[f"concept_map{name}_chance"] == pytest.approx(chance, abs=1e-9)


def test_a_caption_is_scored_by_the_concepts_of_its_image():
    labels = GENERATOR.random((12, 6)) < 0.5
    image_of_caption = GENERATOR.permutation(np.repeat(np.arange(12), 2))
    known = labels[image_of_caption].astype(np.float32)
    found = concept_metrics.concept_metrics(1 - labels, known, labels, image_of_caption)
    assert found["concept_map_text"] == 100
    assert found["concept_map"] < 100
