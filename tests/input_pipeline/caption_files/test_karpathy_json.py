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
    images = [
        image("b.jpg", "test", ["x", "x", " two\nlines ", "é飛"]),
        image("a.jpg", "restval", ["y"]),
        image("c.jpg", "val"),
    ]
    assert read(images) == [
        Entry("b.jpg", "test", ("x", "x", "two lines", "é飛")),
        Entry("a.jpg", "train", ("y",)),
        Entry("c.jpg", "validation", ("one .", "two .")),
    ]


def test_filepath_is_the_folder_of_the_file(read):
    images = [
        image("a.jpg", filepath="val2014"),
        image("b\\a.jpg", filepath="./x\\y/"),
        image("c.jpg", filepath=""),
        image("d.jpg", filepath=None),
    ]
    names = ["val2014/a.jpg", "x/y/b/a.jpg", "c.jpg", "d.jpg"]
    assert [entry.file_name for entry in read(images)] == names
    for name, folder in [("/a.jpg", "x"), ("a.jpg", "..")]:
        assert "lies outside of the image folder" in refusal(read, [image(name, filepath=folder)])


def test_tokens_stand_in_for_the_text(read):
    sentences = [{"tokens": ["two", "planes"]}, {"raw": "a plane .", "tokens": ["a", "plane"]}]
    assert read([image(sentences=sentences)])[0].captions == ("two planes", "a plane .")
    end = "images[0].sentences[0]: it needs a text 'raw' or a list of texts 'tokens'."
    for sentence in ({}, {"tokens": "a b"}, {"tokens": ["a", 1]}, {"tokens": None}):
        assert refusal(read, [image(sentences=[sentence])]) == f"dataset.json, {end}"


def test_a_name_that_occurs_twice_is_told_with_both_places(read):
    assert refusal(read, [image("x//a.jpg"), image("b.jpg"), image("a.jpg", filepath="x")]) == (
        "dataset.json, images[2]: the file name 'x/a.jpg' is listed for two images, first in "
        "images[0]."
    )


def test_blank_captions_are_refused_unless_asked_for(read):
    images = [image("a.jpg", raw=[""]), image("b.jpg", raw=["x", " "])]
    places = "images[0].sentences[0], images[1].sentences[1]"
    assert refusal(read, images) == f"dataset.json: 2 captions are empty: {places}."
    assert read(images, blank_captions=True)[1].captions == ("x", "")


@pytest.mark.parametrize("images", [{}, None, 3])
def test_files_without_a_list_of_images_are_refused(read, images):
    assert refusal(read, images) == "dataset.json must be a JSON object with a list 'images'."
    assert refusal(read, []) == "dataset.json lists no image."


@pytest.mark.parametrize(
    ("wrong", "end"),
    [
        (7, ": it must be an object, not a number."),
        (image(sentences=None), ": it must have a list 'sentences'."),
        (image(sentences=[]), ": 'a.jpg' has no caption."),
        (image(sentences=["x"]), ".sentences[0]: it must be an object, not text."),
        (image(raw=["x"]) | {"filename": None}, ": there is no file name."),
        (image(sentences=[{"raw": None}]), ".sentences[0]: a caption must be text, not null."),
        (image(split=["train"]), ": the split must be text, not a list."),
    ],
)
def test_the_place_of_a_wrong_value_is_told(read, wrong, end):
    assert refusal(read, [image("b.jpg"), wrong]) == f"dataset.json, images[1]{end}"
