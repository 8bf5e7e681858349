"""Searching an index, exactly and through FAISS, and what is said of a query."""

import dataclasses
import errno
import os
import sys

import numpy as np
import pytest
from tiny_index import IMAGES, changed

from input_pipeline.errors import DataError
from kamcl_jax.search import index as image_index
from kamcl_jax.search import searching
from kamcl_jax.search.index import FileState


def unit_vectors(count, width=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def random_index(tiny_index, tmp_path):
    """Returns a function that makes an index of random embeddings, or lets it grow."""
    settings = dataclasses.replace(tiny_index.settings, widths=(16, 1))

    def make(count):
        with image_index.row_writer(tmp_path, settings.widths) as append:
            have = len(image_index.read_rows(tmp_path, settings.widths).states)
            states = [FileState(f"{row}.png", 0, 0) for row in range(have, count)]
            append(states, unit_vectors(count)[have:], np.zeros((len(states), 1)))
        rows = image_index.read_rows(tmp_path, settings.widths)
        return image_index.ImageIndex(tmp_path, tmp_path, tmp_path, settings, *rows)

    return make


def test_a_search_is_a_sort_of_all_scores(tiny_index):
    queries = tiny_index.model.encode_texts(["a plane", "the pond beside a road"])
    scores = queries @ tiny_index.embeddings.T
    for found, row in zip(searching.search(tiny_index, queries, 5), scores, strict=True):
        order = np.argsort(-row, kind="stable")[:5]
        assert [image.row for image in found] == order.tolist()
        assert [image.file for image in found] == [tiny_index.files[row] for row in order]
        np.testing.assert_allclose([image.score for image in found], row[order], atol=1e-6)


def test_more_than_there_are_is_all_of_them(tiny_index, random_index):
    (found,) = searching.search(tiny_index, tiny_index.embeddings[:1], 100)
    assert sorted(image.row for image in found) == list(range(IMAGES))
    assert found[0].row == 0
    assert searching.search(random_index(0), unit_vectors(2), 3) == [[], []]


class TestFaiss:
    @pytest.fixture(autouse=True)
    def _faiss(self):
        pytest.importorskip("faiss")

    def test_it_finds_what_is_near_and_all_groups_are_an_exact_search(self, random_index):
        assert searching.search(random_index(0), unit_vectors(2), 3, approximate=True) == [[], []]
        index, queries = random_index(900), unit_vectors(7, seed=1)
        _, rows = searching.faiss_top_k(index, queries, 10, share=1)
        exact = searching.search(index, queries, 10)
        assert rows.tolist() == [[image.row for image in found] for found in exact]
        found = searching.search(index, index.embeddings[:50], 3, approximate=True)
        assert [images[0].row for images in found] == list(range(50))
        np.testing.assert_allclose([images[0].score for images in found], 1, atol=1e-5)

    def test_the_groups_are_made_once_and_grow_with_the_index(self, random_index, capsys):
        path = random_index(400).generation / searching.FAISS_FILE
        for count, grouped in [(400, True), (400, False), (600, False), (1300, True)]:
            index = random_index(count)
            before = path.stat().st_mtime_ns if path.exists() else None
            last = index.embeddings[-1:]
            ((found, *_),) = searching.search(index, last, 3, approximate=True)
            assert found.row == count - 1
            assert ("grouping" in capsys.readouterr().err) == grouped
            assert (path.stat().st_mtime_ns == before) == (not grouped and count == 400)

    def test_a_search_goes_on_if_its_groups_are_damaged_or_cannot_be_kept(
        self, random_index, monkeypatch, capsys
    ):
        def full(handle):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        index = random_index(100)
        path = index.generation / searching.FAISS_FILE
        path.write_bytes(b"damaged")
        monkeypatch.setattr(os, "fsync", full)
        ((found, *_),) = searching.search(index, index.embeddings[3:4], 2, approximate=True)
        assert found.row == 3
        assert f"{path} cannot be written: No space left on device" in capsys.readouterr().err


def test_without_faiss_a_sentence_says_how_to_get_it(tiny_index, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DataError, match="--faiss needs FAISS: pip install faiss-cpu"):
        searching.search(tiny_index, tiny_index.embeddings[:1], 1, approximate=True)


MEANS_NOTHING = "It knows no word of this query, so the order of the images means nothing."


ONLY_TWO = "The model reads only the first 2 words."


@pytest.mark.parametrize(
    ("query", "max_tokens", "notes"),
    [
        ("a plane over the pond", 0, []),
        ("Two planes near a pond.", 0, ["The model does not know: two, planes, near."]),
        ("xyzzy, a zoo", 0, ["The model does not know: xyzzy, zoo.", MEANS_NOTHING]),
        ("of the", 0, [MEANS_NOTHING]),
        ("a plane, a zoo", 2, [ONLY_TWO]),
        ("a zoo, a plane", 2, [ONLY_TWO, "The model does not know: zoo.", MEANS_NOTHING]),
    ],
)
def test_what_the_model_does_not_read_or_know_of_a_query_is_told(
    tiny_model, query, max_tokens, notes
):
    model = changed(tiny_model, {"data.max_tokens": max_tokens})
    assert searching.query_notes(model, query) == notes
