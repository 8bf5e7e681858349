import numpy as np
import pytest

from kamcl_jax.step import schedule


@pytest.mark.parametrize(("step", "weight"), [(0, 0), (109, 0), (110, 10), (500, 10)])
def test_alignment_begins_with_its_epoch(step, weight):
    assert schedule.alignment_weight(step, 10, 11, 10.0) == weight


def test_learning_rate_halves_from_epoch_index_nine_as_published():
    rate = schedule.step_decay(2e-4, 0.5, 10, steps_per_epoch=7)
    epochs = np.array([float(rate(7 * epoch + 3)) for epoch in range(30)])
    expected = np.repeat([2e-4, 1e-4, 5e-5, 2.5e-5], [9, 10, 10, 1])
    np.testing.assert_allclose(epochs, expected, rtol=1e-6)
