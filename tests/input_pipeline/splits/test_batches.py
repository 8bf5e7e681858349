"""Batches are a pure function of seed and step, made ahead in order."""

import time

import numpy as np
import pytest

from input_pipeline.splits import batches


def test_an_epoch_shows_every_caption_once_in_an_order_of_its_own():
    epochs = [
        np.concatenate([batches.batch_captions(7, 4 * epoch + i, 20, 5) for i in range(4)])
        for epoch in range(2)
    ]
    for order in epochs:
        assert sorted(order) == list(range(20))
    assert not np.array_equal(*epochs)


def test_a_batch_depends_on_seed_and_step_alone():
    first = [batches.batch_captions(1, step, 23, 4) for step in range(12)]
    batches.caption_order.cache_clear()
    again = [batches.batch_captions(1, step, 23, 4) for step in reversed(range(12))][::-1]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], batches.batch_captions(2, 0, 23, 4))


def test_prefetching_keeps_the_order_and_passes_errors_on():
    def fetch(step):
        time.sleep(0.002 * (step % 3))
        if step == 7:
            raise OSError("disk")
        return step

    assert list(batches.prefetched(fetch, range(7))) == list(range(7))
    with pytest.raises(OSError, match="disk"):
        list(batches.prefetched(fetch, range(9)))
