"""Captions of one's own: CSV, TSV, JSONL and JSON."""

import json
from pathlib import Path

import pytest
from refusals import refusal

from input_pipeline.caption_files import Entry, caption_table


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(name, text, **options):
        Path(name).write_bytes(text.encode())
        return caption_table.read(Path(name), tmp_path, **options)

    return read


TWO = [Entry("a.jpg", "train", ("x", "y, z")), Entry("b.jpg", "test", ("w",))]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_rows_of_one_name_are_captions_of_one_image(read, start, end):
    rows = ["filename,caption,split", "a.jpg,x,train", "b.jpg,w,test", '.\\a.jpg,"y, z",Train', ""]
    assert read("a.csv", start + end.join(rows)) == TWO
    tabs = [row.replace("y, z", "@").replace(",", "\t").replace("@", "y, z") for row in rows]
    assert read("a.TSV", start + end.join(tabs)) == TWO


@pytest.mark.parametrize("name_key", caption_table.NAME_KEYS)
@pytest.mark.parametrize("caption_key", caption_table.CAPTION_KEYS)
def test_columns_have_several_names_and_any_order(read, name_key, caption_key):
    expected = [Entry("a.jpg", "", ("x",))]
    assert read("a.csv", f"id, {caption_key.upper()} ,{name_key}\n7,x,a.jpg") == expected
    row = {caption_key: "x", name_key: "a.jpg", "id": 7}
    assert read("a.jsonl", json.dumps(row)) == expected
    assert read("a.json", json.dumps([row])) == expected


def test_numbered_columns_are_read_by_number_without_empty_cells(read):
    text = "filename,caption_10,caption_2,caption_1\na.jpg,ten,two,one\nb.jpg,, ,one\na.jpg,x,,\n"
    expected = [Entry("a.jpg", "", ("one", "two", "ten", "x")), Entry("b.jpg", "", ("one",))]
    assert read("a.csv", text, blank_captions=True) == expected
    assert read("a.csv", text.replace("caption_", "Caption")) == expected
    row = {"image": "a.jpg", "caption_2": "two", "caption_1": "one", "caption_3": None}
    assert read("a.jsonl", json.dumps(row)) == [Entry("a.jpg", "", ("one", "two"))]


def test_json_lines_may_list_their_captions(read):
    rows = [
        {"filename": "a.jpg", "captions": ["x"], "split": "train"},
        {"filename": "b.jpg", "caption": "w", "split": "test"},
        {"filename": "a.jpg", "captions": ["y, z"], "split": "train"},
    ]
    lines = "\n".join(map(json.dumps, rows))
    assert read("a.jsonl", lines + "\n\n \n") == TWO
    assert read("a.json", json.dumps(rows, indent=1)) == TWO
    assert read("a.jsonl", lines.replace("x", "x\u2028v"))[0].captions[0] == "x v"


def test_empty_rows_are_passed_over_and_quoted_line_ends_kept_in_the_row(read):
    text = 'filename,caption\n\na.jpg,"two\nlines"\n,\nb.jpg,\n'
    assert refusal(read, "a.csv", text) == "a.csv, line 6: a caption is empty."
    expected = [Entry("a.jpg", "", ("two lines",)), Entry("b.jpg", "", ("",))]
    assert read("a.csv", text, blank_captions=True) == expected


@pytest.mark.parametrize(
    ("content", "folder"),
    [
        ({"images": [{"filename": "a", "split": "val", "sentences": [{"raw": "x"}]}]}, ""),
        ({"ship": [{"filename": "a", "split": "val", "raw": "x"}]}, "ship"),
    ],
)
def test_json_is_told_apart_by_its_shape(read, content, folder):
    assert read("a.json", json.dumps(content)) == [Entry("a", "validation", ("x",), folder)]


NAME = ": it needs one of filename, file_name, image, filepath, path and has"
CAPTION = ": it needs one of captions, caption, text, title, raw and has"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("caption\nx", f"1{NAME} none."),
        ("path,image,caption\na,a,x", f"1{NAME} both 'image' and 'path'."),
        ("filename;caption\na;x", "1: it has one cell; cells are parted by commas."),
        (",\n,\n", f"1{NAME} none."),
        ("path\na", f"1{CAPTION} none."),
        ("path,raw,text\na,x,y", f"1{CAPTION} both 'text' and 'raw'."),
        ("path,raw,caption1\na,x,y", "1: it has both 'raw' and 'caption1'."),
        ("path,raw,Raw\na,x,y", "1: a column's name occurs twice."),
        ("path,raw\na,x,y\n", "2: it has 3 cells, the header 2."),
        ("path,raw\nb,z\n../a,x", "3: '../a' lies outside of the image folder."),
        ("path,raw,split\na,x,train\na,y,test", "3: 'a' has another split than in line 2."),
        ("path,caption_1,caption_2\na,x,y\nb,,", "3: 'b' has no caption."),
        ('path,raw\na,x\nb,"x\n', "3: it is no row of a table (unexpected end of data)."),
    ],
)
def test_the_line_of_a_wrong_cell_is_told(read, text, end):
    assert refusal(read, "a.csv", text) == f"a.csv, line {end}"


GOOD = '{"path": "b", "raw": "x"}\n'


@pytest.mark.parametrize(
    ("name", "text", "end"),
    [
        ("a.jsonl", f"{GOOD}\n{GOOD}", ", line 2: it is empty."),
        ("a.jsonl", '["a"]', ", line 1: it must be an object, not a list."),
        (
            "a.jsonl",
            "{",
            ", line 1, is not JSON: Expecting property name enclosed in double quotes",
        ),
        ("a.jsonl", '{"raw": "", "raw": ""}', ", line 1, has the key 'raw' twice in one object."),
        ("a.jsonl", GOOD + "{}", f", line 2{NAME} none."),
        ("a.jsonl", '{"path": "a", "raw": "", "captions": []}', f", line 1{CAPTION} both "),
        ("a.jsonl", '{"path": "a", "captions": "x"}', ", line 1: 'captions' must be a list, not "),
        ("a.jsonl", '{"path": "a", "captions": []}', ", line 1: 'a' has no caption."),
        (
            "a.jsonl",
            '{"path": "a", "captions": [1]}',
            ", line 1: a caption must be text, not a num",
        ),
        ("a.json", "3", " must be a list or an object, not a number."),
        ("a.json", '["b"]', ", entry [0]: it must be an object, not text."),
        ("a.txt", "path,raw\na,x", " must end in .csv, .tsv, .jsonl or .json."),
    ],
)
def test_the_place_of_a_wrong_object_is_told(read, name, text, end):
    assert refusal(read, name, text).startswith(f"{name}{end}")
