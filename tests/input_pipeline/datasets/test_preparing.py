"""Preparation is done once, whole or not at all, and anew when an input changes."""

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from refusals import refusal
from tiny_data_set import TRAIN, captions_of, write_lines

from input_pipeline import datasets
from input_pipeline.datasets import base, rsicd

ROOT = Path(__file__).resolve().parents[3]


def test_preparing_is_silent_and_done_once(open_rsicd, capfd, monkeypatch):
    open_rsicd()
    # What is prepared can be opened without permission to write.
    monkeypatch.setattr("input_pipeline.storage.lock", None)
    monkeypatch.setattr("input_pipeline.storage.replaced", None)
    monkeypatch.setattr(rsicd.Rsicd, "images_of", None)
    opened = open_rsicd()
    assert opened.texts()["train"].file_names == TRAIN
    assert opened.encoded_image(5).file_name == "barn_2.png"
    assert capfd.readouterr() == ("", "")


def test_data_sets_need_no_tensorflow_and_captions_no_data_set():
    code = """
import sys
import input_pipeline.splits.loading
assert "tensorflow_datasets" not in sys.modules
import input_pipeline.datasets
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_whatever_changes_is_prepared_anew(source, open_rsicd, monkeypatch):
    prints = {open_rsicd().fingerprint}
    lines = captions_of(TRAIN)
    write_lines(source / "train_caps.txt", [*lines[:2], "another caption", *lines[3:]])
    changed = open_rsicd()
    assert changed.splits["train"][0]["captions"][2] == b"another caption"
    assert changed.texts()["train"].captions[0][2] == "another caption"
    prints.add(changed.fingerprint)
    os.utime(source / "images" / TRAIN[0], ns=(1, 1))
    prints.add(open_rsicd().fingerprint)
    monkeypatch.setattr(base, "CODE_VERSION", "another")
    prints.add(open_rsicd().fingerprint)
    shutil.copytree(source / "images", source / "others")
    prints.add(open_rsicd(images="others").fingerprint)
    assert len(prints) == 5
    # The data folder may be moved.
    moved = source.rename(source.parent / "moved")
    again = datasets.open_prepared("rsicd", moved, source.parent / "prepared")
    assert again.fingerprint in prints
    assert base.fingerprint("a", {}, [b"xy", b"z"]) != base.fingerprint("a", {}, [b"x", b"yz"])


PREPARE = """
import sys, time
from input_pipeline import datasets
from input_pipeline.datasets import rsicd
whole = rsicd.Rsicd.images_of
def slowly(self, split):
    for entry in whole(self, split):
        print(entry.image_id, flush=True, file=sys.stderr)
        time.sleep(float(sys.argv[3]))
        yield entry
rsicd.Rsicd.images_of = slowly
datasets.open_prepared("rsicd", sys.argv[1], sys.argv[2])
"""


def start(source, prepared, pause):
    command = [sys.executable, "-c", PREPARE, str(source), str(prepared), str(pause)]
    return subprocess.Popen(command, text=True, cwd=ROOT, stderr=subprocess.PIPE)


@pytest.mark.parametrize("image_id", ["2", "5"])
def test_a_killed_preparation_is_made_again(source, prepared, open_rsicd, image_id):
    killed = start(source, prepared, 0.2)
    while killed.stderr.readline().strip() != image_id:
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    assert [len(split) for split in open_rsicd().splits.values()] == [4, 2]
    assert not [path for path in prepared.rglob("*") if "incomplete" in path.name]


def test_concurrent_preparations_do_not_disturb_each_other(source, prepared, open_rsicd):
    runs = [start(source, prepared, 0.05) for _ in range(3)]
    errors = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], errors
    # One has prepared, the others found it done.
    assert sorted(sum(word.isdigit() for word in error.split()) for error in errors) == [0, 0, 6]
    assert [len(split) for split in open_rsicd().splits.values()] == [4, 2]


def test_all_images_that_cannot_be_used_are_listed(source, prepared, open_rsicd):
    images = source / "images"
    (images / TRAIN[0]).unlink()
    (images / TRAIN[1]).write_bytes(b"")
    (images / "barn_1.png").write_bytes((images / "barn_1.png").read_bytes()[:60])
    first, *listed = refusal(open_rsicd).splitlines()
    assert first.startswith("3 images of 'rsicd' (captions: ")
    assert f"'{TRAIN[0]}' (missing)" in first
    assert [line.split(":")[0].strip() for line in listed] == [TRAIN[0], TRAIN[1], "barn_1.png"]
    assert not prepared.exists()


def test_images_that_cannot_be_used_are_left_out_when_asked(source, open_rsicd):
    (source / "images" / TRAIN[1]).unlink()
    opened = open_rsicd(bad_images="skip")
    assert opened.sizes == {"train": 3, "test": 2}
    assert opened.left_out == [base.BadImage(TRAIN[1], "missing", "train")]
    assert opened.texts()["train"].image_ids == [0, 2, 3]
    names = [opened.encoded_image(row).file_name for row in range(5)]
    assert names == [TRAIN[0], *TRAIN[2:], "barn_1.png", "barn_2.png"]
    assert open_rsicd(bad_images="skip").left_out == opened.left_out
    sentence = refusal(open_rsicd)
    assert sentence.startswith(f"The image '{TRAIN[1]}' of 'rsicd' ")
    assert sentence.endswith("missing; data.bad_images='skip' leaves it out.")


def test_a_split_of_which_nothing_is_left_is_refused(source, prepared, open_rsicd):
    (source / "images" / TRAIN[0]).unlink()
    for path in (source / "images").glob("barn*"):
        path.write_bytes(b"no image")
    sentence = refusal(open_rsicd, bad_images="skip")
    assert "No image of the test split of 'rsicd' can be used; 'barn_1.png'" in sentence
    assert not prepared.exists()


def test_a_full_disk_is_told(open_rsicd, monkeypatch):
    def fails(self, **arguments):
        raise RuntimeError("write() failed\nsecond line")

    monkeypatch.setattr(rsicd.Rsicd, "download_and_prepare", fails)
    assert refusal(open_rsicd).endswith("can't be written: write() failed.")
    monkeypatch.undo()
    assert open_rsicd().num_images == 6


def test_names_may_have_folders_and_are_found_however_their_marks_are_written(source, open_rsicd):
    name = "ponds/p\u00f4nd_1.tif"  # one letter in the file, two in the folder
    path = source / "images" / unicodedata.normalize("NFD", name)
    path.parent.mkdir()
    (source / "images" / "pond_1.tif").rename(path)
    write_lines(source / "train_filename.txt", [*TRAIN[:2], name, TRAIN[3]])
    assert open_rsicd().splits["train"][2]["filename"].decode() == name
