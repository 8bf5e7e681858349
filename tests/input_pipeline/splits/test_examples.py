"""Rows and texts are read from the disk as if they were in memory."""

import re
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.splits.examples import SelectedRows, StoredTexts


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_selected_rows_are_an_array_of_their_own_whoever_reads_them(threads):
    array = np.arange(60).reshape(10, 3, 2)
    rows = np.array([7, 1, 4, 9])
    selected, plain = SelectedRows(array, rows, threads), array[rows]
    assert (selected.shape, selected.dtype, len(selected)) == (plain.shape, plain.dtype, 4)
    for index in (0, -1, slice(1, 3), np.array([3, 0, 0]), [2], [], slice(None, None, -1)):
        np.testing.assert_array_equal(selected[index], plain[index], strict=True)
    np.testing.assert_array_equal(np.asarray(selected), plain)
    with pytest.raises(IndexError):
        selected[4]


@pytest.mark.parametrize("texts", [["a plane .", "", "größe 飛", " x"], [], ["", ""]])
def test_texts_come_back(tmp_path, texts):
    StoredTexts.write(tmp_path / "captions.txt", texts)
    stored = StoredTexts(tmp_path / "captions.txt")
    assert list(stored) == texts
    assert stored[-1:] == texts[-1:]
    with pytest.raises(IndexError):
        stored[len(texts)]


def resident_file_bytes():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssFile:\s+(\d+)", status)[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own figures")
def test_what_was_read_does_not_stay_in_memory(tmp_path):
    rows, row_bytes = 2000, 20_000
    np.save(tmp_path / "a.npy", np.ones((rows, row_bytes), np.uint8))
    selected = SelectedRows(np.load(tmp_path / "a.npy", mmap_mode="r"), np.arange(rows))
    before = resident_file_bytes()
    for start in range(0, rows, 50):
        assert selected[np.arange(start, start + 50)].all()
    assert resident_file_bytes() - before < 100 * row_bytes
