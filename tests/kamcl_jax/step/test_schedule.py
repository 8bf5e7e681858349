import numpy as np
import optax
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


def test_the_alignment_grows_over_its_ramp():
    weights = [
        float(schedule.alignment_weight(step, 10, 1, 8.0, ramp_epochs=0.5)) for step in range(20)
    ]
    np.testing.assert_allclose(weights, [0] * 10 + [1.6, 3.2, 4.8, 6.4] + [8] * 6, rtol=1e-6)


def test_a_rate_warms_up_and_then_falls_along_a_cosine():
    rate = schedule.warmed_up(optax.cosine_decay_schedule(2.0, 8), 4)
    expected = [0.5, 1, 1.5, 2, *(1 + np.cos(np.pi * np.arange(9) / 8)), 0]
    np.testing.assert_allclose([float(rate(step)) for step in range(14)], expected, atol=1e-6)


def test_after_a_warm_up_steps_decay_with_their_epochs():
    rate = schedule.warmed_up(schedule.step_decay(2.0, 0.5, 2, 5, taken=3), 3)
    expected = [2 / 3, 4 / 3, 2, 2, 2, *[1] * 10, 0.5]
    np.testing.assert_allclose([float(rate(step)) for step in range(16)], expected, rtol=1e-6)
    plain = schedule.step_decay(2.0, 0.5, 2, 5)
    assert schedule.warmed_up(plain, 0) is plain
