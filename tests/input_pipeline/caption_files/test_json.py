"""JSON files of captions: Karpathy's, of four published data sets, and that of NWPU-Captions."""

import json
from functools import partial
from pathlib import Path

import pytest
from refusals import refusal

from input_pipeline.caption_files import Entry, karpathy_json, nwpu_json


def image(name="a.jpg", split="train", raw=("one .", "two ."), **fields):
    sentences = [{"raw": text, "tokens": text.split(), "sentid": 0} for text in raw]
    return {"filename": name, "imgid": 0, "split": split, "sentences": sentences} | fields


def nwpu_image(name="a.jpg", split="train", **captions):
    return {"filename": name, "imgid": 0, "split": split, "sentids": [0]} | captions


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads a list of images as Karpathy's files have them."""
    monkeypatch.chdir(tmp_path)

    def read(content, read=karpathy_json.read, **options):
        content = {"images": content, "dataset": "x"} if read is karpathy_json.read else content
        Path("a.json").write_text(json.dumps(content))
        return read(Path("a.json"), tmp_path, **options)

    return read


@pytest.fixture
def read_nwpu(read):
    return partial(read, read=nwpu_json.read)


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


def test_nwpu_lists_images_by_class_with_numbered_captions(read_nwpu):
    many = {f"raw_{k}": str(k) for k in (10, 2, 1)}
    content = {
        "ship": [nwpu_image("ship_2.jpg", "val", raw="x")],
        "port": [nwpu_image("port_1.jpg", "test", **many, raw="first", rawness=3)],
    }
    assert read_nwpu(content) == [
        Entry("ship_2.jpg", "validation", ("x",), "ship"),
        Entry("port_1.jpg", "test", ("first", "1", "2", "10"), "port"),
    ]


def test_blank_captions_are_refused_unless_asked_for(read, read_nwpu):
    images = [image("a.jpg", raw=[""]), image("b.jpg", raw=["x", " "])]
    places = "images[0].sentences[0], images[1].sentences[1]"
    assert refusal(read, images) == f"a.json: 2 captions are empty: {places}."
    assert read(images, blank_captions=True)[1].captions == ("x", "")
    content = {"ship": [nwpu_image(raw="x", raw_1="")]}
    assert refusal(read_nwpu, content) == "a.json, ship[0].raw_1: a caption is empty."
    assert read_nwpu(content, blank_captions=True)[0].captions == ("x", "")


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
    assert refusal(read, [image("b.jpg"), wrong]) == f"a.json, images[1]{end}"
    assert refusal(read, {}) == "a.json must be a JSON object with a list 'images'."


TWICE = ", port[0]: the file name 'a.jpg' is listed for two images, first in ship[0]."


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ([], " must be a JSON object with a list of images for each class."),
        ({"ship": {}}, ", 'ship': it must be a list of images, not an object."),
        ({"ship": [3]}, ", ship[0]: it must be an object, not a number."),
        ({"..": []}, ", its keys: '..' lies outside of the image folder."),
        ({"ship": [nwpu_image()]}, ", ship[0]: 'a.jpg' has no caption."),
        ({"ship": [nwpu_image(raw=[])]}, ", ship[0].raw: a caption must be text, not a list."),
        ({"ship": [nwpu_image(raw="x")], "port": [nwpu_image(raw="x")]}, TWICE),
    ],
)
def test_the_place_of_a_wrong_value_of_nwpu_is_told(read_nwpu, content, end):
    assert refusal(read_nwpu, content) == f"a.json{end}"
