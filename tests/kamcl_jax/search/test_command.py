"""Searching on the command line: by sentence, by image and by a file of sentences."""

import csv
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline.errors import DataError
from kamcl_jax.search import command, searching
from kamcl_jax.search.command import Line, SearchOptions
from kamcl_jax.search.contact_sheet import Query
from kamcl_jax.search.searching import SCORES_NOTE, Found


def test_a_sentence_prints_ranks_and_draws_them(tiny_index, tmp_path, capsys):
    query, out = "Two planes near a zeppelin.", tmp_path / "found.png"
    command.by_sentence(tiny_index.folder, query, SearchOptions(3, out=out))
    printed = capsys.readouterr()
    (expected,) = searching.search(tiny_index, tiny_index.model.encode_texts([query]), 3)
    assert printed.out.splitlines() == [
        *(f"{n:>4}  {image.score:.4f}  {image.file}" for n, image in enumerate(expected, 1)),
        SCORES_NOTE,
        f"picture: {out}",
    ]
    assert printed.err.splitlines() == searching.query_notes(tiny_index.model, query)
    assert len(printed.err.splitlines()) == 2
    assert np.asarray(Image.open(out).convert("RGB")).std() > 20


def test_an_image_finds_itself_and_each_caption_once(tiny_index, tmp_path, capsys):
    file, captions = tmp_path / "captions.txt", ["a pond", "a plane", "a barn by the river"]
    file.write_text("a pond\n\na plane\n . \na barn by the river\na pond\n")
    options = SearchOptions(3, out=tmp_path / "found.png")
    command.by_image(tiny_index.folder, tiny_index.path_of(5), file, options)
    printed = capsys.readouterr()
    scores = tiny_index.embeddings[5] @ tiny_index.model.encode_texts(captions).T
    lines = printed.out.splitlines()
    assert lines[0] == f"   1  {scores.max():.4f}  {captions[scores.argmax()]}"
    assert sorted(line[14:] for line in lines[:3]) == sorted(captions)
    assert lines[3] == ""
    assert lines[4] == f"   1  1.0000  {tiny_index.files[5]}"
    assert printed.err == f"{file}: no word in lines 2, 4, left out\n"


QUERIES = "\ufeffa pond\n\n  = a plane \r\n . \nthe unheard-of\n"


@pytest.fixture
def queries(tmp_path):
    (tmp_path / "queries.txt").write_text(QUERIES, "utf-8", newline="")
    return tmp_path / "queries.txt"


def test_a_file_of_queries_becomes_json_lines(tiny_index, queries, tmp_path, capsys):
    options = SearchOptions(2, out=tmp_path / "found.jsonl")
    command.by_file(tiny_index.folder, queries, options)
    records = [json.loads(line) for line in options.out.read_text("utf-8").splitlines()]
    texts = ["a pond", "= a plane", "the unheard-of"]
    assert [record["query"] for record in records] == texts
    assert [record["line"] for record in records] == [1, 3, 5]
    embeddings = tiny_index.model.encode_texts(texts)
    for record, expected in zip(records, searching.search(tiny_index, embeddings, 2), strict=True):
        assert [image["file"] for image in record["found"]] == [image.file for image in expected]
        assert [image["rank"] for image in record["found"]] == [1, 2]
    printed = capsys.readouterr()
    assert printed.err.splitlines()[:2] == [
        f"{queries}: no word in lines 2, 4, left out",
        "line 5: The model does not know: unheard-of.",
    ]
    assert printed.out.splitlines() == [f"3 queries, 2 images each: {options.out}", SCORES_NOTE]


def test_a_file_of_queries_becomes_a_table(tiny_index, queries, tmp_path):
    options = SearchOptions(2, out=tmp_path / "found.csv")
    command.by_file(tiny_index.folder, queries, options)
    with options.out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [("1", "a pond"), ("3", "'= a plane"), ("5", "the unheard-of")]
    assert [(row["line"], row["query"]) for row in rows[::2]] == texts
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert {row["file"] for row in rows} <= set(tiny_index.files)


@pytest.mark.parametrize("name", ['a "b", c.png', "two\nlines.png", "\udcff.png", "=1.png"])
def test_names_of_all_kinds_can_be_read_back(tmp_path, name):
    for suffix in (".csv", ".jsonl"):
        with command.results_file(tmp_path / f"found{suffix}") as write:
            write(Line(1, "a"), [Found(0, name, 0.5)])
    (record,) = (tmp_path / "found.jsonl").read_text("utf-8").splitlines()
    assert json.loads(record)["found"][0]["file"] == name
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        (_, (*_, cell)) = csv.reader(file)
    assert cell == {"=1.png": "./=1.png", "\udcff.png": "\\udcff.png"}.get(name, name)


def test_a_sheet_shows_an_image_that_is_gone_as_such(tiny_index, tmp_path, capsys):
    gone = dataclasses.replace(tiny_index, images_root=tmp_path)
    images = [Found(row, gone.files[row], 0.0) for row in range(3)]
    command._show(gone, Query("a"), images, tmp_path / "sheet.png")
    assert "picture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("search", "content", "out", "reason"),
    [
        ("sentence", "a pond", "found.jpg", r"--out=.*found\.jpg must end with \.png"),
        ("sentence", "a pond", "nowhere/a.png", r"There is no folder .*nowhere to write a\.png"),
        ("sentence", " . ", "found.png", r"The caption ' \. ' has no word in it"),
        ("file", "a pond", "found.png", r"must end with \.csv or \.jsonl"),
        ("file", "a pond", None, r"--queries needs --out=FILE\.csv or FILE\.jsonl"),
        ("file", " . ", "found.csv", r"The file .*query has no line with a word in it"),
        ("file", None, "found.csv", r"The file .*query can't be read: No such file"),
        ("image", "", "found.png", r"The image .*query cannot be read: it is empty"),
        ("image", None, "found.png", r"The image .*query cannot be read: missing"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tiny_index, tmp_path, search, content, out, reason):
    folder, file = tiny_index.folder, tmp_path / "query"
    options = SearchOptions(2, out=tmp_path / out if out else None)
    if content is not None:
        file.write_text(content)
    run = {
        "sentence": lambda: command.by_sentence(folder, content, options),
        "image": lambda: command.by_image(folder, file, None, options),
        "file": lambda: command.by_file(folder, file, options),
    }[search]
    with pytest.raises(DataError, match=reason):
        run()


def test_starting_a_search_imports_nothing_that_only_pictures_need():
    source = "import sys, kamcl_jax.search.command; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert not {"matplotlib", "flask"} & set(ended.stdout.split()), ended.stderr
