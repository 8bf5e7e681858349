"""Which images are set aside, and whose labels the release would give to the others."""

import numpy as np
import pytest

from input_pipeline.errors import DataError
from input_pipeline.splits.splitting import release_label_rows, shuffled_rows


def test_the_split_of_a_seed_stays_what_it_was():
    train, validation = shuffled_rows(10, 0.3, seed=1)
    assert train.tolist() == [8, 4, 7, 0, 1, 2, 5]
    assert validation.tolist() == [9, 6, 3]
    parts = shuffled_rows(9828, 0.2, seed=0)
    assert list(map(len, parts)) == [7862, 1966]  # the release's sizes for RSICD


def test_label_rows_are_positions_in_the_shuffled_training_part():
    shuffled = shuffled_rows(50, 0.2, seed=3)[0]
    positions = [shuffled.tolist().index(row) for row in sorted(shuffled)]
    assert release_label_rows(shuffled).tolist() == positions


def test_folds_are_drawn_independently_of_each_other_and_of_other_seeds():
    count = 1000
    drawn = [shuffled_rows(count, 0.2, seed, fold)[1] for seed in range(3) for fold in range(10)]
    assert len({rows.tobytes() for rows in drawn}) == 30
    times = np.bincount(np.concatenate(drawn), minlength=count)
    # Each image is set aside in 30 draws with probability 0.2: binomial.
    assert times.mean() == pytest.approx(6)
    assert times.var() == pytest.approx(30 * 0.2 * 0.8, rel=0.2)


@pytest.mark.parametrize(("count", "fraction"), [(10, 0.0), (10, 1.0), (1, 0.2)])
def test_a_split_without_images_is_refused(count, fraction):
    with pytest.raises(DataError, match="validation_fraction"):
        shuffled_rows(count, fraction)
