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
    assert concept_metrics.concept_metrics(scores, labels) == {
        "concept_map": pytest.approx((best + worst) / 2),
        "concept_map_chance": pytest.approx(20),
        "concepts_scored": 2,
    }
    assert concept_metrics.concept_metrics(scores[:, 2:], labels[:, 2:]) == {}
    assert concept_metrics.concept_metrics(scores[:, :0], labels[:, :0]) == {}


def test_a_prediction_that_is_the_same_for_all_rows_scores_exactly_chance():
    labels = GENERATOR.random((50, 20)) < GENERATOR.random(20)
    constant = np.broadcast_to(GENERATOR.random(20, np.float32), labels.shape)
    found = concept_metrics.concept_metrics(constant, labels)
    assert found["concept_map"] == pytest.approx(found["concept_map_chance"], abs=1e-12)
