"""Batches are a pure function of seed and step, made ahead in order."""

import time

import numpy as np
import pytest

from input_pipeline.splits import batches


def test_an_epoch_shows_every_caption_once_in_an_order_of_its_own():
    drawn = [batches.batch_captions(7, step, 23, 5) for step in range(8)]
    epochs = [np.concatenate(drawn[:4]), np.concatenate(drawn[4:])]
    for order in epochs:
        assert len(set(order.tolist())) == 20  # three do not fill a batch
    assert not np.array_equal(*epochs)
    # Nothing but the arguments matters.
    batches.caption_order.cache_clear()
    again = [batches.batch_captions(7, step, 23, 5) for step in reversed(range(8))]
    np.testing.assert_array_equal(drawn, again[::-1])
    assert not np.array_equal(drawn[0], batches.batch_captions(8, 0, 23, 5))


def test_prefetching_keeps_the_order_and_passes_errors_on():
    def fetch(step):
        time.sleep(0.002 * (step % 3))
        if step == 7:
            raise OSError("disk")
        return step

    assert list(batches.prefetched(fetch, range(7))) == list(range(7))
    with pytest.raises(OSError, match="disk"):
        list(batches.prefetched(fetch, range(9)))
