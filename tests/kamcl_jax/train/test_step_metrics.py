import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.train import step_metrics
from kamcl_jax.train.step_metrics import StepMetrics

NAN = float("nan")


def test_an_interval_begun_by_an_earlier_process_is_gone_on_with():
    metrics = StepMetrics([{"loss": 1.0}])
    metrics.add({"loss": jnp.float32(0.1)})
    new = {"loss": float(np.float32(0.1))}
    assert metrics.fetch() == [new]
    assert metrics.rows == [{"loss": 1.0}, new]
    metrics.add({"loss": jnp.float32(4)})
    assert metrics.fetch() == [{"loss": 4.0}]
    assert len(metrics.rows) == 3
    metrics.clear()
    assert metrics.rows == metrics.fetch() == []


def test_means_are_over_finite_steps_and_counts_are_the_last_ones():
    rows = [
        {"loss": 1.0, "norm": 2.0, "skipped": 0.0},
        {"loss": 5.0, "norm": float("inf"), "skipped": 1.0},
        {"loss": 3.0, "norm": 4.0, "skipped": 1.0},
    ]
    assert step_metrics.means(rows) == {"loss": 2.0, "norm": 3.0, "skipped": 1.0}
    assert step_metrics.means([{"loss": NAN}]) is None
    assert step_metrics.means([]) is None


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([{"loss": 1.0}, {"loss": 2.0}], None),
        ([{"loss": 1.0}, {"loss": NAN, "triplet": NAN, "norm": 1.0}], (1, ["loss", "triplet"])),
        ([{"loss": -float("inf")}, {"loss": NAN}], (0, ["loss"])),
    ],
)
def test_the_first_row_that_is_not_finite_is_found(rows, found):
    assert step_metrics.first_not_finite(rows) == found
