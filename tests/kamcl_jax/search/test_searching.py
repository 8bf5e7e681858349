"""Searching an index: exact and through FAISS, by sentence, image and file."""

import contextlib
import csv
import dataclasses
import errno
import json
import os

import numpy as np
import pytest
from PIL import Image
from tiny_index import IMAGES, changed, noise

from input_pipeline.errors import DataError
from kamcl_jax.search import command, contact_sheet, faiss_index, index_rows, query_files, searching
from kamcl_jax.search import index as image_index
from kamcl_jax.search.command import Wishes
from kamcl_jax.search.contact_sheet import Query, Shown
from kamcl_jax.search.index_rows import FileState
from kamcl_jax.search.query_files import Line
from kamcl_jax.search.searching import Found


def unit_vectors(count, width=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def random_index(tiny_index, tmp_path):
    """Returns an index of random embeddings, that is, one without images."""

    def make(count):
        of_rows = tiny_index.settings.rows
        of_rows = dataclasses.replace(of_rows, embedding_width=16, num_concepts=1)
        with index_rows.RowWriter(tmp_path, *of_rows.widths) as writer:
            have = len(index_rows.read(tmp_path, *of_rows.widths).files)
            files = [FileState(f"{row}.png", 0, 0) for row in range(have, count)]
            vectors = unit_vectors(count)[have:]
            writer.append(files, vectors, np.zeros((len(files), 1)))
        rows = index_rows.read(tmp_path, *of_rows.widths)
        settings = dataclasses.replace(tiny_index.settings, rows=of_rows)
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


def test_more_than_there_are_is_all_of_them(tiny_index):
    (found,) = searching.search(tiny_index, tiny_index.embeddings[:1], 100)
    assert sorted(image.row for image in found) == list(range(IMAGES))
    assert found[0].row == 0


def test_an_index_without_rows_finds_nothing(random_index):
    assert searching.search(random_index(0), unit_vectors(2), 3) == [[], []]


class TestFaiss:
    @pytest.fixture(autouse=True)
    def _faiss(self):
        pytest.importorskip("faiss")

    def test_all_groups_together_are_an_exact_search(self, random_index):
        index, queries = random_index(900), unit_vectors(7, seed=1)
        _, rows = faiss_index.top_k(index, queries, 10, share=1)
        exact = searching.search(index, queries, 10)
        assert rows.tolist() == [[image.row for image in found] for found in exact]

    def test_it_finds_what_is_near_and_says_its_cosine(self, random_index):
        index = random_index(900)
        found = searching.search(index, index.embeddings[:50], 3, approximate=True)
        assert [images[0].row for images in found] == list(range(50))
        np.testing.assert_allclose([images[0].score for images in found], 1, atol=1e-5)

    def test_the_groups_are_made_once_and_grow_with_the_index(self, random_index, capsys):
        path = random_index(400).generation / faiss_index.NAME
        for count, grouped in [(400, True), (400, False), (600, False), (1300, True)]:
            index = random_index(count)
            before = path.stat().st_mtime_ns if path.exists() else None
            last = index.embeddings[-1:]
            ((found, *_),) = searching.search(index, last, 3, approximate=True)
            assert found.row == count - 1
            assert ("grouping" in capsys.readouterr().err) == grouped
            assert (path.stat().st_mtime_ns == before) == (not grouped and count == 400)

    def test_a_damaged_file_is_made_anew(self, random_index):
        index = random_index(100)
        (index.generation / faiss_index.NAME).write_bytes(b"damaged")
        ((found, *_),) = searching.search(index, index.embeddings[3:4], 2, approximate=True)
        assert found.row == 3

    def test_an_index_without_rows_finds_nothing(self, random_index):
        index = random_index(0)
        assert searching.search(index, unit_vectors(2), 3, approximate=True) == [[], []]
        with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
            faiss_index.top_k(index, unit_vectors(2), 0)

    def test_a_search_goes_on_if_its_groups_cannot_be_kept(self, random_index, monkeypatch, capsys):
        index = random_index(100)

        def full(handle):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            ((found, *_),) = searching.search(index, index.embeddings[3:4], 2, approximate=True)
        assert found.row == 3
        path = index.generation / faiss_index.NAME
        assert f"{path} cannot be written: No space left on device" in capsys.readouterr().err
        gone = dataclasses.replace(index, generation=index.generation / "gone")
        ((found, *_),) = searching.search(gone, index.embeddings[4:5], 2, approximate=True)
        assert found.row == 4


def test_without_faiss_a_sentence_says_how_to_get_it(tiny_index, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(DataError, match="--faiss needs FAISS: pip install faiss-cpu"):
        searching.search(tiny_index, tiny_index.embeddings[:1], 1, approximate=True)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_sentence_prints_ranks_and_draws_them(tiny_index, tmp_path, capsys):
    wishes = Wishes(3, out=tmp_path / "found.png")
    command.by_sentence(tiny_index.folder, "Two planes near a zeppelin.", wishes)
    printed = capsys.readouterr()
    (expected,) = searching.search(
        tiny_index, tiny_index.model.encode_texts(["Two planes near a zeppelin."]), 3
    )
    assert printed.out.splitlines() == [
        *(f"{n:>4}  {image.score:.4f}  {image.file}" for n, image in enumerate(expected, 1)),
        f"picture: {tmp_path / 'found.png'}",
    ]
    assert printed.err == "the model does not know: two, planes, near, zeppelin\n"
    assert pixels(tmp_path / "found.png").std() > 20


def test_a_sentence_that_is_cut_is_told_so(tiny_model, capsys):
    command.tell_unread_words(changed(tiny_model, {"data.max_tokens": 2}), "a quay, a zoo")
    assert capsys.readouterr().err.splitlines() == [
        "the model reads the first 2 words",
        "the model does not know: quay",
    ]


def test_an_image_finds_itself_and_captions(tiny_index, tmp_path, capsys):
    captions = tmp_path / "captions.txt"
    captions.write_text("a pond\n\na plane\n . \na barn by the river\n")
    wishes = Wishes(2, out=tmp_path / "found.png")
    command.by_image(tiny_index.folder, tiny_index.path_of(5), captions, wishes)
    printed = capsys.readouterr()
    scores = (
        tiny_index.embeddings[5]
        @ tiny_index.model.encode_texts(["a pond", "a plane", "a barn by the river"]).T
    )
    best = ["a pond", "a plane", "a barn by the river"][scores.argmax()]
    lines = printed.out.splitlines()
    assert lines[0] == f"   1  {scores.max():.4f}  {best}"
    assert lines[2] == ""
    assert lines[3] == f"   1  1.0000  {tiny_index.files[5]}"
    assert printed.err == f"{captions}: no word in lines 2, 4, left out\n"


QUERIES = "\ufeffa pond\n\n  = a plane \r\n . \nthe unheard-of\n"


def test_a_file_of_queries_becomes_json_lines(tiny_index, tmp_path, capsys):
    (tmp_path / "queries.txt").write_text(QUERIES, "utf-8", newline="")
    wishes = Wishes(2, out=tmp_path / "found.jsonl")
    command.by_file(tiny_index.folder, tmp_path / "queries.txt", wishes)
    records = [json.loads(line) for line in wishes.out.read_text("utf-8").splitlines()]
    assert [(record["line"], record["query"]) for record in records] == [
        (1, "a pond"),
        (3, "= a plane"),
        (5, "the unheard-of"),
    ]
    texts = tiny_index.model.encode_texts(["a pond", "= a plane", "the unheard-of"])
    for record, expected in zip(records, searching.search(tiny_index, texts, 2), strict=True):
        assert [image["file"] for image in record["found"]] == [image.file for image in expected]
        assert [image["rank"] for image in record["found"]] == [1, 2]
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"{tmp_path / 'queries.txt'}: no word in lines 2, 4, left out",
        "line 5: the model does not know: unheard-of",
    ]


def test_a_file_of_queries_becomes_a_table(tiny_index, tmp_path):
    (tmp_path / "queries.txt").write_text(QUERIES, "utf-8")
    wishes = Wishes(2, out=tmp_path / "found.csv")
    command.by_file(tiny_index.folder, tmp_path / "queries.txt", wishes)
    with wishes.out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["line"], row["query"], row["rank"]) for row in rows] == [
        (line, query, rank)
        for line, query in [("1", "a pond"), ("3", "'= a plane"), ("5", "the unheard-of")]
        for rank in "12"
    ]
    assert {row["file"] for row in rows} <= set(tiny_index.files)


@pytest.mark.parametrize(
    "name", ['a "b", c.png', "two\nlines.png", "港.png", "\udcff.png", "=1.png"]
)
def test_names_of_all_kinds_can_be_read_back(tmp_path, name):
    found = [Found(0, name, 0.5)]
    for suffix in (".csv", ".jsonl"):
        with query_files.written(tmp_path / f"found{suffix}") as write:
            write(Line(1, "a"), found)
    (record,) = (tmp_path / "found.jsonl").read_text("utf-8").splitlines()
    assert json.loads(record)["found"][0]["file"] == name
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        (_, (*_, cell)) = csv.reader(file)
    assert cell == {"=1.png": "./=1.png", "\udcff.png": "\\udcff.png"}.get(name, name)


def test_what_was_written_before_stays_if_writing_fails(tmp_path):
    path = tmp_path / "found.csv"
    path.write_text("before")
    with contextlib.suppress(RuntimeError), query_files.written(path) as write:
        write(Line(1, "a"), [Found(0, "a.png", 0.5)])
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query("a sentence"), [Shown(noise(1), "$a_b$ ^ \\frac.png", 0.5)] * 7),
        (Query("港口 " * 400), [Shown(None, "gone" * 100, -0.5)]),
        (
            Query("a.png", noise(2, 300, 20), [("a caption $1", 0.25)] * 20),
            [Shown(noise(3), "\n", 1)],
        ),
        (Query("none"), []),
    ],
)
def test_a_contact_sheet_is_drawn_of_anything(tmp_path, query, found, recwarn):
    contact_sheet.draw(tmp_path / "sheet.png", query, found)
    height, width, _ = pixels(tmp_path / "sheet.png").shape
    assert width > 1000
    rows = -(-len(found) // contact_sheet.COLUMNS)
    assert height > 200 * (rows + (query.image is not None))
    assert not recwarn.list


def test_a_sheet_shows_an_image_that_is_gone_as_such(tiny_index, tmp_path, capsys):
    gone = dataclasses.replace(tiny_index, images_root=tmp_path)
    images = [Found(row, gone.files[row], 0.0) for row in range(3)]
    command._show(gone, Query("a"), images, tmp_path / "sheet.png")
    assert "picture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("search", "out", "reason"),
    [
        ("sentence", "found.jpg", r"--out=.*found\.jpg must end with \.png"),
        ("sentence", "nowhere/found.png", r"There is no folder .*nowhere to write found\.png into"),
        ("file", "found.png", r"must end with \.csv or \.jsonl"),
        ("file", None, r"--queries needs --out=FILE\.csv or FILE\.jsonl"),
        ("blank file", "found.csv", r"The file .*queries\.txt has no line with a word in it"),
        ("no file", "found.csv", r"The file .*queries\.txt can't be read: No such file"),
        ("no word", "found.png", r"The caption ' \. ' has no word in it"),
        ("damaged image", "found.png", r"The image .*image\.png cannot be read: it is empty"),
        ("no image", "found.png", r"The image .*image\.png cannot be read: missing"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tiny_index, tmp_path, search, out, reason):
    wishes = Wishes(2, out=tmp_path / out if out else None)
    queries, image = tmp_path / "queries.txt", tmp_path / "image.png"
    if search != "no file":
        queries.write_text(" . \n" if search == "blank file" else "a pond\n")
    if search != "no image":
        image.write_bytes(b"")
    run = {
        "file": lambda: command.by_file(tiny_index.folder, queries, wishes),
        "image": lambda: command.by_image(tiny_index.folder, image, None, wishes),
        "word": lambda: command.by_sentence(tiny_index.folder, " . ", wishes),
        "sentence": lambda: command.by_sentence(tiny_index.folder, "a pond", wishes),
    }[search.split()[-1]]
    with pytest.raises(DataError, match=reason):
        run()
