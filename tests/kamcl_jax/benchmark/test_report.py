import pytest

from kamcl_jax.benchmark import report
from kamcl_jax.benchmark.trials import Timing


def test_a_ratio_is_of_medians_with_the_quartiles_of_the_rounds():
    original = Timing((8.0, 10.0, 12.0))
    ours = [Timing((1.0, 2.0, 4.0)), Timing((1.0, 2.0, 2.0))]
    row = report.ratio("a", original, ours)
    assert (row["original_seconds"], row["our_seconds"]) == (10, 4)
    assert row["ratio"] == 2.5
    assert row["median_of_rounds"] == 2.5  # of 4, 2.5 and 2
    assert (row["quartile_low"], row["quartile_high"]) == (2.25, 3.25)
    # Work of another size is scaled: the original reads 10 images in 5 s, we 40 in 2 s.
    row = report.ratio("an image", Timing((5.0,)), [Timing((2.0,))], scale=4, units=40)
    found = [row[name] for name in ("original_seconds", "our_seconds", "ratio")]
    assert found == pytest.approx([0.5, 0.05, 10])
