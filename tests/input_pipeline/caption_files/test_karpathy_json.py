"""The JSON that RSICD, RSITMD, UCM-Captions and Sydney-Captions come in."""

import json
from pathlib import Path

import pytest
from refusals import refusal

from input_pipeline.caption_files import Entry, karpathy_json


def image(name="a.jpg", split="train", raw=("one .", "two ."), **fields):
    sentences = [{"raw": text, "tokens": text.split(), "sentid": 0} for text in raw]
    return {"filename": name, "imgid": 0, "split": split, "sentences": sentences} | fields


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(images, **options):
        content = {"images": images, "dataset": "x"}
        Path("dataset.json").write_text(json.dumps(content))
        return karpathy_json.read(Path("dataset.json"), tmp_path, **options)

    return read


def test_images_are_read_in_the_order_of_the_file(read):
    tokens = [{"tokens": ["two", "planes"]}, {"raw": "a plane .", "tokens": ["a", "plane"]}]
    images = [
        image("b.jpg", "test", ["x", "x", " two\nlines ", "é飛"]),
        image("a.jpg", "restval", sentences=tokens),
        image("c.jpg", "val"),
    ]
    assert read(images) == [
        Entry("b.jpg", "test", ("x", "x", "two lines", "é飛")),
        Entry("a.jpg", "train", ("two planes", "a plane .")),
        Entry("c.jpg", "validation", ("one .", "two .")),
    ]


def test_filepath_is_the_folder_of_the_file(read):
    folders = {"a.jpg": "val2014", "b\\a.jpg": "./x\\y/", "c.jpg": "", "d.jpg": None}
    images = [image(name, filepath=folder) for name, folder in folders.items()]
    names = ["val2014/a.jpg", "x/y/b/a.jpg", "c.jpg", "d.jpg"]
    assert [entry.file_name for entry in read(images)] == names
    assert "lies outside of the image folder" in refusal(read, [image("a.jpg", filepath="..")])


def test_blank_captions_are_refused_unless_asked_for(read):
    images = [image("a.jpg", raw=[""]), image("b.jpg", raw=["x", " "])]
    places = "images[0].sentences[0], images[1].sentences[1]"
    assert refusal(read, images) == f"dataset.json: 2 captions are empty: {places}."
    assert read(images, blank_captions=True)[1].captions == ("x", "")


def test_files_without_a_list_of_images_are_refused(read):
    assert refusal(read, {}) == "dataset.json must be a JSON object with a list 'images'."


NO_TEXT = ".sentences[0]: it needs a text 'raw' or a list of texts 'tokens'."


@pytest.mark.parametrize(
    ("wrong", "end"),
    [
        (7, ": it must be an object, not a number."),
        (image(sentences=None), ": it must have a list 'sentences'."),
        (image(sentences=["x"]), ".sentences[0]: it must be an object, not text."),
        (image(sentences=[{}]), NO_TEXT),
        (image(sentences=[{"tokens": "a b"}]), NO_TEXT),
        (image(sentences=[{"tokens": ["a", 1]}]), NO_TEXT),
        (image(sentences=[{"raw": None}]), ".sentences[0]: a caption must be text, not null."),
        (image(None), ": there is no file name."),
        (image(split=["train"]), ": the split must be text, not a list."),
        (image("b.jpg"), ": the file name 'b.jpg' is listed for two images, first in images[0]."),
    ],
)
def test_the_place_of_a_wrong_value_is_told(read, wrong, end):
    assert refusal(read, [image("b.jpg"), wrong]) == f"dataset.json, images[1]{end}"
