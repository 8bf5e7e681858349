"""Which images are set aside, and whose labels the release would give to the others."""

import numpy as np
import pytest

from input_pipeline.splitting import release_label_rows, shuffled_rows, split_rows


def test_the_split_of_a_seed_stays_what_it_was():
    train, validation = split_rows(10, 0.3, seed=1)
    assert train.tolist() == [0, 1, 2, 4, 5, 7, 8]
    assert validation.tolist() == [3, 6, 9]


def test_parts_are_shuffled_before_they_are_sorted():
    shuffled, ascending = shuffled_rows(50, 0.2, seed=2), split_rows(50, 0.2, seed=2)
    for one, other in zip(shuffled, ascending, strict=True):
        assert one.tolist() != other.tolist()
        assert sorted(one) == other.tolist()


def test_label_rows_are_positions_in_the_shuffled_training_part():
    train = split_rows(50, 0.2, seed=3)[0].tolist()
    shuffled = shuffled_rows(50, 0.2, seed=3)[0].tolist()
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
