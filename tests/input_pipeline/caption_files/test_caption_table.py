"""Captions of one's own: CSV, TSV, JSONL and JSON."""

import json
from pathlib import Path

import pytest
from refusals import refusal

from input_pipeline.caption_files import Entry, caption_table, karpathy_json, nwpu_json


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


@pytest.mark.parametrize("name_key", ["filename", "file_name", "image", "filepath", "path"])
@pytest.mark.parametrize("caption_key", ["caption", "text", "title", "raw"])
def test_columns_have_several_names_and_any_order(read, name_key, caption_key):
    expected = [Entry("a.jpg", "", ("x",))]
    assert read("a.csv", f"id, {caption_key.upper()} ,{name_key}\n7,x,a.jpg") == expected
    row = {caption_key: "x", name_key: "a.jpg", "id": 7}
    assert read("a.jsonl", json.dumps(row)) == expected
    assert read("a.json", json.dumps([row])) == expected


def test_numbered_columns_are_read_by_number_without_empty_cells(read):
    text = "filename,caption_10,caption_2,caption_1\na.jpg,ten,two,one\nb.jpg,, ,one\na.jpg,x,,\n"
    expected = [Entry("a.jpg", "", ("one", "two", "ten", "x")), Entry("b.jpg", "", ("one",))]
    assert read("a.csv", text) == expected
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
    lines = [json.dumps(row) for row in rows]
    assert read("a.jsonl", "\r\n".join(lines)) == TWO
    assert read("a.jsonl", "\n".join(lines) + "\n\n \n") == TWO
    assert read("a.json", json.dumps(rows, indent=1)) == TWO
    assert read("a.jsonl", "\n".join(lines).replace("x", "x\u2028v"))[0].captions[0] == "x v"


def test_blank_captions_are_refused_unless_asked_for(read):
    text = "filename,caption\na.jpg,x\na.jpg,\nb.jpg,\n"
    assert refusal(read, "a.csv", text) == "a.csv: 2 captions are empty: line 3, line 4."
    expected = [Entry("a.jpg", "", ("x", "")), Entry("b.jpg", "", ("",))]
    assert read("a.csv", text, blank_captions=True) == expected


def test_absolute_paths_in_the_image_folder_name_the_same_images(read, tmp_path):
    text = f"filename,caption\na.jpg,x\n{tmp_path}/images/a.jpg,y\n"
    images = tmp_path / "images"
    assert read("a.csv", text, image_folder=images) == [Entry("a.jpg", "", ("x", "y"))]
    sentence = refusal(read, "a.csv", text, image_folder=tmp_path / "others")
    assert f"line 3: '{images}/a.jpg' lies outside of the image folder" in sentence


def test_empty_rows_are_passed_over_and_quoted_line_ends_kept_in_the_row(read):
    text = 'filename,caption\n\na.jpg,"two\nlines"\n,\nb.jpg,x\n'
    assert read("a.csv", text) == [Entry("a.jpg", "", ("two lines",)), Entry("b.jpg", "", ("x",))]
    assert refusal(read, "a.csv", text + "c.jpg,\n") == "a.csv, line 7: a caption is empty."
    assert refusal(read, "a.csv", text.replace("a.jpg,", "/a,")).startswith(
        "a.csv, line 3: '/a' lies"
    )


def test_json_is_told_apart_by_its_shape(read, tmp_path):
    sentences = [{"raw": "x"}]
    karpathy = {"images": [{"filename": "a.jpg", "split": "val", "sentences": sentences}]}
    nwpu = {"ship": [{"filename": "a.jpg", "split": "val", "raw": "x"}]}
    for content, reader in ((karpathy, karpathy_json), (nwpu, nwpu_json)):
        entries = read("a.json", json.dumps(content))
        assert entries == reader.read(Path("a.json"), tmp_path)
        assert entries[0].split == "validation"
    assert entries[0].folder == "ship"


NEEDS_NAME = "it needs one of filename, file_name, image, filepath, path and has"
NEEDS_CAPTION = "it needs one of captions, caption, text, title, raw and has"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("caption\nx", f", line 1: {NEEDS_NAME} none."),
        ("path,image,caption\na,a,x", f", line 1: {NEEDS_NAME} both 'image' and 'path'."),
        ("filename;caption\na;x", ", line 1: it has one cell; cells are parted by commas."),
        (",\n,\n", f", line 1: {NEEDS_NAME} none."),
        ("path\na", f", line 1: {NEEDS_CAPTION} none."),
        ("path,raw,text\na,x,y", f", line 1: {NEEDS_CAPTION} both 'text' and 'raw'."),
        ("path,raw,caption1\na,x,y", ", line 1: it has both 'raw' and 'caption1'."),
        ("path,raw,Raw\na,x,y", ", line 1: a column's name occurs twice."),
        ("path,raw\n", " lists no image."),
        ("path,raw\na,x,y\n", ", line 2: it has 3 cells, the header 2."),
        ("path,raw\nb,z\n../a,x", ", line 3: '../a' lies outside of the image folder."),
        (
            "path,raw,split\na,x,train\na,y,test",
            ", line 3: 'a' has another split than in line 2.",
        ),
        ("path,caption_1,caption_2\na,x,y\nb,,", ", line 3: 'b' has no caption."),
        ('path,raw\na,x\nb,"x\n', ", line 3: it is no row of a table (unexpected end of data)."),
        (
            f"path,raw\na,{'x' * 200_000}",
            ", line 2: it is no row of a table (field larger than field limit (131072)).",
        ),
    ],
)
def test_the_line_of_a_wrong_cell_is_told(read, text, end):
    assert refusal(read, "a.csv", text) == f"a.csv{end}"


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("", ": it is empty."),
        ('{"path": "a"', ", is not JSON: Expecting ',' delimiter at column 13."),
        ('{"path": "b", "path": "a"}', ", has the key 'path' twice in one object."),
        ('["a"]', ": it must be an object, not a list."),
        ("{}", f": {NEEDS_NAME} none."),
        ('{"path": "a"}', f": {NEEDS_CAPTION} none."),
        (
            '{"path": "a", "raw": "x", "captions": ["x"]}',
            f": {NEEDS_CAPTION} both 'captions' and 'raw'.",
        ),
        (
            '{"path": "a", "captions": ["x"], "caption_1": "x"}',
            ": it has both 'captions' and 'caption_1'.",
        ),
        ('{"path": "a", "captions": "x"}', ": 'captions' must be a list, not text."),
        ('{"path": "a", "captions": []}', ": 'a' has no caption."),
        ('{"path": "a", "captions": ["x", 1]}', ": a caption must be text, not a number."),
    ],
)
def test_the_line_of_a_wrong_object_is_told(read, line, end):
    good = '{"path": "b", "raw": "x"}'
    assert refusal(read, "a.jsonl", f"{good}\n{line}\n{good}\n") == f"a.jsonl, line 2{end}"


@pytest.mark.parametrize(
    ("name", "text", "end"),
    [
        ("a.json", "3", " must be a list or an object, not a number."),
        (
            "a.json",
            '[{"path": "a", "raw": "x"}, "b"]',
            ", entry [1]: it must be an object, not text.",
        ),
        ("a.json", '{"images": 3}', " must be a JSON object with a list 'images'."),
        ("a.json", '{"ship": 3}', ", 'ship': it must be a list of images, not a number."),
        ("a.txt", "path,raw\na,x", " must end in .csv, .tsv, .jsonl or .json."),
    ],
)
def test_files_of_another_kind_are_refused(read, name, text, end):
    assert refusal(read, name, text) == f"{name}{end}"
