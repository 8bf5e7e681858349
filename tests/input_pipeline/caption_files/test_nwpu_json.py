"""The JSON of NWPU-Captions: images by class."""

import json
from pathlib import Path

import pytest
from refusals import refusal

from input_pipeline.caption_files import Entry, nwpu_json


def image(name, split="train", **captions):
    return {"filename": name, "imgid": 0, "split": split, "sentids": [0]} | captions


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(content, **options):
        Path("dataset_nwpu.json").write_text(json.dumps(content))
        return nwpu_json.read(Path("dataset_nwpu.json"), tmp_path, **options)

    return read


def test_images_are_read_class_by_class_with_captions_in_the_order_of_their_numbers(read):
    many = {f"raw_{k}": str(k) for k in (10, 2, 1)}
    content = {
        "ship": [image("ship_2.jpg", "val", raw="x")],
        "port": [image("port_1.jpg", "test", **many, raw="first", rawness=3)],
    }
    assert read(content) == [
        Entry("ship_2.jpg", "validation", ("x",), "ship"),
        Entry("port_1.jpg", "test", ("first", "1", "2", "10"), "port"),
    ]


def test_blank_captions_are_refused_unless_asked_for(read):
    content = {"ship": [image("a.jpg", raw="x", raw_1="")]}
    assert refusal(read, content) == "dataset_nwpu.json, ship[0].raw_1: a caption is empty."
    assert read(content, blank_captions=True)[0].captions == ("x", "")


TWICE = ", port[0]: the file name 'a' is listed for two images, first in ship[0]."


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ([], " must be a JSON object with a list of images for each class."),
        ({"ship": {}}, ", 'ship': it must be a list of images, not an object."),
        ({"ship": [3]}, ", ship[0]: it must be an object, not a number."),
        ({"..": []}, ", its keys: '..' lies outside of the image folder."),
        ({"a/b": []}, ": the class 'a/b' is not the name of one folder."),
        ({"ship": [image("a")]}, ", ship[0]: 'a' has no caption."),
        ({"ship": [image("a", raw=[])]}, ", ship[0].raw: a caption must be text, not a list."),
        ({"ship": [image("a", raw="x")], "port": [image("a", raw="x")]}, TWICE),
    ],
)
def test_the_place_of_a_wrong_value_is_told(read, content, end):
    assert refusal(read, content) == f"dataset_nwpu.json{end}"
