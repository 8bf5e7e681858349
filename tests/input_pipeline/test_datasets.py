"""Preparing data sets: what is kept, what is refused, what is prepared anew."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from input_pipeline import datasets
from input_pipeline.datasets import base, rsicd
from input_pipeline.errors import DataError

TRAIN = ["silo_1.png", "silo_2.jpg", "pond_1.tif", "pond_2.png"]
TEST = ["barn_1.png", "barn_2.png"]


def captions_of(names):
    return [f"{name.split('_')[0]} number {k} , {name[:-4]} ." for name in names for k in range(5)]


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


@pytest.fixture
def source(tmp_path):
    """A folder in the release's layout: train lists one name an image, test one a caption."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    for index, name in enumerate(TRAIN + TEST):
        pixels = np.full((20, 30, 3), 10 * index, np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    write_lines(folder / "train_caps.txt", captions_of(TRAIN))
    write_lines(folder / "train_filename.txt", TRAIN)
    write_lines(folder / "test_caps.txt", captions_of(TEST))
    write_lines(folder / "test_filename.txt", [name for name in TEST for _ in range(5)])
    return folder


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"


def edit(path, change):
    lines = path.read_text("utf-8").splitlines()
    change(lines)
    write_lines(path, lines)


def test_release_layout_is_read_in_order_with_the_files_copied_through(source, prepared):
    splits = datasets.prepare("rsicd", source, prepared)
    assert list(splits) == ["train", "test"]
    records = [split[i] for split in splits.values() for i in range(len(split))]
    assert [record["image_id"] for record in records] == [0, 1, 2, 3, 4, 5]
    assert [record["filename"].decode() for record in records] == TRAIN + TEST
    for record in records:
        name = record["filename"].decode()
        assert record["image"] == (source / "images" / name).read_bytes()
        assert [caption.decode() for caption in record["captions"]] == captions_of([name])


def test_preparing_is_silent_and_done_once(source, prepared, capfd):
    datasets.prepare("rsicd", source, prepared)
    written = {path: path.stat().st_mtime_ns for path in prepared.rglob("*.array_record*")}
    datasets.prepare("rsicd", source, prepared)
    assert written == {path: path.stat().st_mtime_ns for path in prepared.rglob("*.array_record*")}
    assert capfd.readouterr() == ("", "")


def test_no_tensorflow_is_imported():
    code = "import sys, input_pipeline.datasets; print('tensorflow' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "False", done.stderr


def test_a_changed_caption_is_prepared_anew(source, prepared):
    before = datasets.open_prepared("rsicd", source, prepared)
    edit(source / "train_caps.txt", lambda lines: lines.__setitem__(2, "another caption"))
    after = datasets.open_prepared("rsicd", source, prepared)
    assert before.fingerprint != after.fingerprint
    assert after.splits["train"][0]["captions"][2] == b"another caption"


def test_a_changed_image_is_prepared_anew(source, prepared):
    before = datasets.open_prepared("rsicd", source, prepared)
    path = source / "images" / TRAIN[0]
    os.utime(path, ns=(1, 1))
    assert datasets.open_prepared("rsicd", source, prepared).fingerprint != before.fingerprint


def test_nothing_half_made_is_trusted(source, prepared, monkeypatch):
    whole = rsicd.Rsicd.images_of

    def fails_midway(self, split):
        for entry in whole(self, split):
            if entry.image_id == 5:
                raise KeyboardInterrupt
            yield entry

    monkeypatch.setattr(rsicd.Rsicd, "images_of", fails_midway)
    with pytest.raises(KeyboardInterrupt):
        datasets.prepare("rsicd", source, prepared)
    monkeypatch.undo()
    splits = datasets.prepare("rsicd", source, prepared)
    assert [len(split) for split in splits.values()] == [4, 2]


def put(index, text):
    return lambda lines: lines.__setitem__(index, text)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("train_caps.txt", put(6, "  "), ["Line 7", "train_caps.txt", "empty"]),
        ("train_caps.txt", lambda lines: lines.pop(), ["train_caps.txt", "19 captions", "4 "]),
        ("test_caps.txt", lambda lines: lines.pop(), ["test_caps.txt", "9 captions", "10 "]),
        ("train_caps.txt", lambda lines: lines.clear(), ["train_caps.txt", "no captions"]),
        ("train_filename.txt", put(1, ""), ["Line 2", "train_filename.txt"]),
        ("train_filename.txt", put(1, "silo_9.png"), ["silo_9.png", "missing", "images"]),
        ("train_filename.txt", put(1, "silo_1.png"), ["silo_1.png", "two images"]),
        ("train_filename.txt", put(1, "barn_1.png"), ["barn_1.png", "two images"]),
        ("train_filename.txt", put(1, "../x.png"), ["'../x.png'", "outside"]),
        ("train_filename.txt", put(1, "a\\..\\..\\x.png"), ["x.png", "outside"]),
        ("train_filename.txt", put(1, "/etc/x.png"), ["'/etc/x.png'", "outside"]),
        ("test_filename.txt", put(3, "barn_2.png"), ["Line 4", "test_filename.txt", "barn_2"]),
    ],
)
def test_bad_text_files_are_refused(source, prepared, file, change, words):
    edit(source / file, change)
    with pytest.raises(DataError) as caught:
        datasets.prepare("rsicd", source, prepared)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert not prepared.exists()


def test_missing_images_are_counted(source, prepared):
    for name in TRAIN[1:]:
        (source / "images" / name).unlink()
    with pytest.raises(DataError, match=r"'silo_2.jpg' and 2 more images are missing"):
        datasets.prepare("rsicd", source, prepared)


def test_missing_files_and_folders_are_named(source, prepared):
    with pytest.raises(DataError, match=r"no image folder .*pictures"):
        datasets.prepare("rsicd", source, prepared, images="pictures")
    (source / "test_caps.txt").unlink()
    with pytest.raises(DataError, match=r"test_caps.txt can't be read: No such file"):
        datasets.prepare("rsicd", source, prepared)


def test_text_that_is_not_utf8_is_refused(source, prepared):
    (source / "test_caps.txt").write_bytes(b"\xff\xfe barn\n" * 10)
    with pytest.raises(DataError, match=r"test_caps.txt is not UTF-8"):
        datasets.prepare("rsicd", source, prepared)


def test_punctuation_alone_is_a_caption_and_blank_lines_can_be(source, prepared):
    edit(source / "train_caps.txt", put(6, " ."))
    assert datasets.prepare("rsicd", source, prepared)["train"][1]["captions"][1] == b"."
    edit(source / "train_caps.txt", put(6, ""))
    splits = datasets.prepare("rsicd", source, prepared, blank_captions=True)
    assert splits["train"][1]["captions"][1] == b""


@pytest.mark.parametrize("name", ["rsicd", "rsitmd", "nwpu_captions"])
def test_published_data_sets_share_the_layout(source, prepared, name):
    opened = datasets.open_prepared(name, source, prepared)
    assert {split: len(records) for split, records in opened.splits.items()} == {
        "train": 4,
        "test": 2,
    }
    assert opened.folder == prepared / name / opened.fingerprint


def test_images_may_lie_in_folders_of_their_class(source, prepared):
    (source / "images" / "silo").mkdir()
    (source / "images" / "silo_1.png").rename(source / "images" / "silo" / "silo_1.png")
    edit(source / "train_filename.txt", put(0, "silo/silo_1.png"))
    splits = datasets.prepare("nwpu_captions", source, prepared)
    assert splits["train"][0]["filename"] == b"silo/silo_1.png"


def test_rsitmd_has_blank_captions(source, prepared):
    edit(source / "train_caps.txt", put(6, ""))
    assert datasets.prepare("rsitmd", source, prepared)["train"][1]["captions"][1] == b""
    with pytest.raises(DataError, match=r"Line 7 of .*train_caps.txt is empty"):
        datasets.prepare("nwpu_captions", source, prepared)


def test_unknown_names_are_refused(source, prepared):
    with pytest.raises(DataError, match=r"no data set 'rsicdd', only .*rsicd"):
        datasets.prepare("rsicdd", source, prepared)
    with pytest.raises(DataError, match="no option 'image'"):
        datasets.prepare("rsicd", source, prepared, image="x")
    with pytest.raises(DataError, match="needs a source folder"):
        datasets.prepare("rsicd", None, prepared)


def test_synthetic_splits_are_disjoint_scenes(prepared):
    counts = {"train": 5, "validation": 3, "test": 4}
    splits = datasets.prepare("synthetic", None, prepared, size=32, **counts)
    assert {name: len(split) for name, split in splits.items()} == counts
    ids = {
        name: [split[i]["image_id"] for i in range(len(split))] for name, split in splits.items()
    }
    # Twins, 2k and 2k + 1, never fall into two splits.
    assert ids == {"train": [*range(5)], "validation": [6, 7, 8], "test": [10, 11, 12, 13]}
    with Image.open(io.BytesIO(splits["test"][0]["image"])) as image:
        assert image.size == (32, 32)
    assert len(splits["test"][0]["captions"]) == 5


def test_synthetic_options_decide_the_fingerprint(prepared):
    options = {"train": 2, "validation": 2, "test": 2, "size": 32}
    first = datasets.open_prepared("synthetic", None, prepared, **options)
    again = datasets.open_prepared("synthetic", None, prepared, **options)
    other = datasets.open_prepared("synthetic", None, prepared, **options, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    with pytest.raises(DataError, match="'test' must be positive, not 0"):
        datasets.prepare("synthetic", None, prepared, test=0)


def test_fingerprint_keeps_inputs_apart():
    assert base.fingerprint("a", {}, [b"xy", b"z"]) != base.fingerprint("a", {}, [b"x", b"yz"])
