"""Which images are set aside, and whose labels the release would give to the others."""

import numpy as np
import pytest

from input_pipeline.errors import DataError
from input_pipeline.splits.splitting import release_label_rows, shuffled_rows, split_rows


def test_the_split_of_a_seed_stays_what_it_was():
    train, validation = split_rows(10, 0.3, seed=1)
    assert train.tolist() == [0, 1, 2, 4, 5, 7, 8]
    assert validation.tolist() == [3, 6, 9]


def test_label_rows_are_positions_in_the_shuffled_training_part():
    train = split_rows(50, 0.2, seed=3)[0].tolist()
    shuffled = shuffled_rows(50, 0.2, seed=3)[0].tolist()
    assert train == sorted(shuffled) != shuffled
    assert release_label_rows(50, 0.2, seed=3).tolist() == [shuffled.index(row) for row in train]
    assert sorted(release_label_rows(50, 0.2, seed=3)) == list(range(40))


def test_as_few_images_keep_their_labels_as_a_random_permutation_leaves_in_place():
    own = [
        np.count_nonzero(release_label_rows(1000, 0.2, seed) == split_rows(1000, 0.2, seed)[0])
        for seed in range(400)
    ]
    # Each of 800 positions holds its own image with probability 1 / 1000: Poisson of mean 0.8.
    assert np.mean(own) == pytest.approx(0.8, abs=4 * np.sqrt(0.8 / 400))
    assert np.var(own) == pytest.approx(0.8, abs=0.3)
    assert max(own) < 8


def test_split_is_a_pure_function():
    train, validation = split_rows(9828, 0.2, seed=0)
    assert (len(train), len(validation)) == (7862, 1966)  # the release's sizes for RSICD
    assert sorted([*train, *validation]) == list(range(9828))
    for rows, again in zip((train, validation), split_rows(9828, 0.2, seed=0), strict=True):
        np.testing.assert_array_equal(rows, again)
    assert len(split_rows(10, 0.3, seed=0)[0]) == 7


def test_folds_are_drawn_independently_of_each_other_and_of_other_seeds():
    count = 1000
    drawn = [split_rows(count, 0.2, seed, fold)[1] for seed in range(3) for fold in range(10)]
    assert len({rows.tobytes() for rows in drawn}) == 30
    assert split_rows(count, 0.2, 2, 0)[1].tolist() == split_rows(count, 0.2, 2)[1].tolist()
    times = np.bincount(np.concatenate(drawn), minlength=count)
    # Each image is set aside in 30 draws with probability 0.2: binomial.
    assert times.mean() == pytest.approx(6)
    assert times.var() == pytest.approx(30 * 0.2 * 0.8, rel=0.2)


@pytest.mark.parametrize(("count", "fraction"), [(10, 0.0), (10, 1.0), (1, 0.2)])
def test_a_split_without_images_is_refused(count, fraction):
    with pytest.raises(DataError, match="validation_fraction"):
        split_rows(count, fraction)
