"""Searching on the command line: by sentence, by image and by a file of sentences."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from tiny_index import noise

from input_pipeline.errors import DataError
from kamcl_jax.search import command, contact_sheet, searching
from kamcl_jax.search.command import Line, SearchOptions
from kamcl_jax.search.contact_sheet import FoundImage, Query
from kamcl_jax.search.searching import SCORES_NOTE, Found


def test_a_sentence_prints_ranks_and_draws_them(tiny_index, copied_index, tmp_path, capsys):
    (images, folder), query = copied_index, "Two planes near a zeppelin."
    out = tmp_path / "found.png"
    (expected,) = searching.search(tiny_index, tiny_index.model.encode_texts([query]), 3)
    (images / expected[2].file).unlink()  # the picture shows it as gone
    command.by_sentence(folder, query, SearchOptions(3, out=out))
    printed = capsys.readouterr()
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


def test_a_file_of_queries_becomes_json_lines_or_a_table(tiny_index, tmp_path, capsys):
    queries, texts = tmp_path / "queries.txt", ["a pond", "= a plane", "the unheard-of"]
    queries.write_text("\ufeffa pond\n\n  = a plane \r\n . \nthe unheard-of\n", "utf-8", newline="")
    options = SearchOptions(2, out=tmp_path / "found.jsonl")
    command.by_file(tiny_index.folder, queries, options)
    printed = capsys.readouterr()
    assert printed.err.splitlines()[:2] == [
        f"{queries}: no word in lines 2, 4, left out",
        "line 5: The model does not know: unheard-of.",
    ]
    assert printed.out.splitlines() == [f"3 queries, 2 images each: {options.out}", SCORES_NOTE]
    records = [json.loads(line) for line in options.out.read_text("utf-8").splitlines()]
    found = searching.search(tiny_index, tiny_index.model.encode_texts(texts), 2)
    for record, number, text, expected in zip(records, (1, 3, 5), texts, found, strict=True):
        assert (record["line"], record["query"]) == (number, text)
        assert [image["file"] for image in record["found"]] == [image.file for image in expected]
        assert [image["rank"] for image in record["found"]] == [1, 2]

    command.by_file(tiny_index.folder, queries, SearchOptions(2, out=tmp_path / "found.csv"))
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    no_formula = [("1", "a pond"), ("3", "'= a plane"), ("5", "the unheard-of")]
    assert [(row["line"], row["query"]) for row in rows[::2]] == no_formula
    images = [image for record in records for image in record["found"]]
    assert [row["file"] for row in rows] == [image["file"] for image in images]


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


@pytest.mark.parametrize(
    ("search", "content", "out", "reason"),
    [
        ("sentence", "a pond", "found.jpg", r"--out=.*found\.jpg must end with \.png"),
        ("sentence", "a pond", "nowhere/a.png", r"There is no folder .*nowhere to write a\.png"),
        ("sentence", " . ", "found.png", r"The caption ' \. ' has no word in it"),
        ("file", "a pond", "found.png", r"must end with \.csv or \.jsonl"),
        ("file", "a pond", None, r"--queries needs --out=FILE\.csv or FILE\.jsonl"),
        ("file", " . ", "found.csv", r"The file .*query has no line with a word in it"),
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


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query("a sentence"), [FoundImage(noise(1), "$a_b$ ^ \\frac.png", 0.5)] * 7),
        (Query("港口 " * 400), [FoundImage(None, "gone" * 100, -0.5)]),
        (Query("a", noise(2, 300, 20), [("a $1", 0.25)] * 20), [FoundImage(noise(3), "\n", 1)]),
        (Query("none"), []),
    ],
)
def test_a_contact_sheet_is_drawn_of_anything(tmp_path, query, found, recwarn):
    contact_sheet.draw(tmp_path / "sheet.png", query, found)
    assert not recwarn.list
    with Image.open(tmp_path / "sheet.png") as sheet:
        width, height = sheet.size
    assert width > 1000
    rows = -(-len(found) // contact_sheet.COLUMNS)
    assert height > 200 * (rows + (query.image is not None))


def test_an_image_is_drawn_as_sharp_as_its_file(tmp_path):
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, np.arange(400) % 8 < 4] = 255
    image = FoundImage(Image.fromarray(stripes), "stripes.png", 1.0)
    contact_sheet.draw(tmp_path / "sheet.png", Query("stripes"), [image])
    with Image.open(tmp_path / "sheet.png") as sheet:
        row = np.asarray(sheet.convert("L"))[120, 40:200]
    assert row.std() > 60  # a model's small input would show them as grey
