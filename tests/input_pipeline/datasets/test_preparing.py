"""Preparation is done once, whole or not at all, and anew when an input changes."""

import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from tiny_data_set import TRAIN, captions_of, write_lines

from input_pipeline import datasets
from input_pipeline.datasets import base, rsicd
from input_pipeline.errors import DataError

ROOT = Path(__file__).resolve().parents[3]


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def test_preparing_is_silent_and_done_once(source, prepared, capfd):
    datasets.open_prepared("rsicd", source, prepared)
    before = written(prepared)
    opened = datasets.open_prepared("rsicd", source, prepared)
    assert opened.texts()["train"].file_names == TRAIN
    assert written(prepared) == before
    assert capfd.readouterr() == ("", "")


def test_what_is_prepared_can_be_opened_without_permission_to_write(source, prepared, monkeypatch):
    datasets.open_prepared("rsicd", source, prepared)
    monkeypatch.setattr("input_pipeline.storage.lock", None)
    monkeypatch.setattr("input_pipeline.storage.replaced", None)
    opened = datasets.open_prepared("rsicd", source, prepared)
    assert opened.encoded_image(5).file_name == "barn_2.png"


def test_no_tensorflow_is_imported():
    code = "import sys, input_pipeline.splits.loading; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_a_changed_caption_is_prepared_anew(source, prepared):
    before = datasets.open_prepared("rsicd", source, prepared)
    lines = captions_of(TRAIN)
    write_lines(source / "train_caps.txt", [*lines[:2], "another caption", *lines[3:]])
    after = datasets.open_prepared("rsicd", source, prepared)
    assert before.fingerprint != after.fingerprint
    assert after.splits["train"][0]["captions"][2] == b"another caption"
    assert after.texts()["train"].captions[0][2] == "another caption"


def test_a_changed_image_is_prepared_anew(source, prepared):
    before = datasets.open_prepared("rsicd", source, prepared)
    os.utime(source / "images" / TRAIN[0], ns=(1, 1))
    assert datasets.open_prepared("rsicd", source, prepared).fingerprint != before.fingerprint


def test_a_changed_list_of_files_and_changed_code_are_prepared_anew(source, prepared, monkeypatch):
    prints = {datasets.open_prepared("rsicd", source, prepared).fingerprint}
    monkeypatch.setattr(base, "CODE_VERSION", "another")
    prints.add(datasets.open_prepared("rsicd", source, prepared).fingerprint)
    write_lines(source / "train_caps.txt", captions_of(TRAIN[:3]))
    write_lines(source / "train_filename.txt", TRAIN[:3])
    opened = datasets.open_prepared("rsicd", source, prepared)
    assert opened.sizes["train"] == 3
    assert len(prints | {opened.fingerprint}) == 3


def test_nothing_half_made_is_trusted(source, prepared, monkeypatch):
    whole = rsicd.Rsicd.images_of

    def fails_midway(self, split):
        for entry in whole(self, split):
            if entry.image_id == 5:
                raise KeyboardInterrupt
            yield entry

    monkeypatch.setattr(rsicd.Rsicd, "images_of", fails_midway)
    with pytest.raises(KeyboardInterrupt):
        datasets.open_prepared("rsicd", source, prepared)
    monkeypatch.undo()
    opened = datasets.open_prepared("rsicd", source, prepared)
    assert opened.sizes == {"train": 4, "test": 2}
    assert [len(split) for split in opened.splits.values()] == [4, 2]


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
opened = datasets.open_prepared("rsicd", sys.argv[1], sys.argv[2])
print([len(split) for split in opened.splits.values()])
"""


def start(source, prepared, pause):
    command = [sys.executable, "-c", PREPARE, str(source), str(prepared), str(pause)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=ROOT, **pipes)


@pytest.mark.parametrize("image_id", [0, 2, 5])
def test_a_killed_preparation_is_made_again(source, prepared, image_id):
    killed = start(source, prepared, 0.2)
    for line in killed.stderr:
        if line.strip() == str(image_id):
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    opened = datasets.open_prepared("rsicd", source, prepared)
    assert [len(split) for split in opened.splits.values()] == [4, 2]
    left = [path for path in (prepared / "rsicd").rglob("*") if "incomplete" in path.name]
    assert not left


def test_concurrent_preparations_do_not_disturb_each_other(source, prepared):
    runs = [start(source, prepared, 0.05) for _ in range(3)]
    errors = []
    for run in runs:
        output, error = run.communicate(timeout=60)
        assert output.strip() == "[4, 2]", error
        errors.append(error)
    # One has prepared, the others found it done.
    assert sorted(sum(line.isdigit() for line in e.splitlines()) for e in errors) == [0, 0, 6]


def test_all_images_that_cannot_be_used_are_listed(source, prepared):
    images = source / "images"
    (images / TRAIN[0]).unlink()
    (images / TRAIN[1]).write_bytes(b"")
    (images / "barn_1.png").write_bytes((images / "barn_1.png").read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        datasets.open_prepared("rsicd", source, prepared)
    first, *listed = str(caught.value).splitlines()
    assert first.startswith("3 images of 'rsicd' (captions: ")
    assert f"'{TRAIN[0]}' (missing)" in first
    assert [line.split(":")[0].strip() for line in listed] == [TRAIN[0], TRAIN[1], "barn_1.png"]
    assert "missing" in listed[0]
    assert not prepared.exists()


def test_images_that_cannot_be_used_are_left_out_when_asked(source, prepared):
    (source / "images" / TRAIN[1]).unlink()
    opened = datasets.open_prepared("rsicd", source, prepared, bad_images="skip")
    assert opened.sizes == {"train": 3, "test": 2}
    assert [problem.file_name for problem in opened.left_out] == [TRAIN[1]]
    assert opened.texts()["train"].image_ids == [0, 2, 3]
    names = [opened.encoded_image(row).file_name for row in range(5)]
    assert names == [TRAIN[0], *TRAIN[2:], "barn_1.png", "barn_2.png"]
    again = datasets.open_prepared("rsicd", source, prepared, bad_images="skip")
    assert again.left_out == opened.left_out
    with pytest.raises(DataError, match=rf"^The image '{TRAIN[1]}' of 'rsicd' .*: missing; .*\.$"):
        datasets.open_prepared("rsicd", source, prepared)


def test_a_split_of_which_nothing_is_left_is_refused(source, prepared):
    for path in (source / "images").glob("barn*"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"No image of the test split of 'rsicd' .*'barn_1.png'"):
        datasets.open_prepared("rsicd", source, prepared, bad_images="skip")
    assert not prepared.exists()
    with pytest.raises(DataError, match="'bad_images' must be"):
        datasets.open_prepared("rsicd", source, prepared, bad_images="ignore")


def test_fingerprint_keeps_inputs_apart():
    assert base.fingerprint("a", {}, [b"xy", b"z"]) != base.fingerprint("a", {}, [b"x", b"yz"])


def test_the_image_of_the_split_that_is_lost_is_named(source, prepared):
    (source / "images" / TRAIN[0]).unlink()
    for path in (source / "images").glob("barn*"):
        path.unlink()
    with pytest.raises(DataError, match=r"No image of the test split .*'barn_1.png': missing"):
        datasets.open_prepared("rsicd", source, prepared, bad_images="skip")


def test_another_image_folder_is_another_data_set(source, prepared):
    shutil.copytree(source / "images", source / "others")
    for path in (source / "images").iterdir():
        os.utime(path, ns=(1, 1))
        os.utime(source / "others" / path.name, ns=(1, 1))
    first = datasets.open_prepared("rsicd", source, prepared, images="images")
    other = datasets.open_prepared("rsicd", source, prepared, images="others")
    assert first.fingerprint != other.fingerprint


def test_a_data_folder_may_be_moved(source, prepared):
    before = datasets.open_prepared("rsicd", source, prepared)
    moved = source.rename(source.parent / "moved")
    assert datasets.open_prepared("rsicd", moved, prepared).fingerprint == before.fingerprint


def test_a_full_disk_is_told(source, prepared, monkeypatch):
    def fails(self, **arguments):
        raise RuntimeError("write() failed\nsecond line")

    monkeypatch.setattr(rsicd.Rsicd, "download_and_prepare", fails)
    with pytest.raises(DataError, match=r"can't be written: write\(\) failed\.$"):
        datasets.open_prepared("rsicd", source, prepared)
    monkeypatch.undo()
    assert datasets.open_prepared("rsicd", source, prepared).num_images == 6


def test_a_place_that_cannot_be_written_is_told(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't be written into .*file.*data\.prepared_dir\.$"):
        datasets.open_prepared("rsicd", source, tmp_path / "file")
    with pytest.raises(DataError, match="no home folder"):
        datasets.open_prepared("rsicd", "~nobody_of_that_name/rsicd", tmp_path / "prepared")


def test_a_damaged_description_is_told(source, prepared):
    datasets.open_prepared("rsicd", source, prepared)
    (path,) = prepared.rglob("dataset_info.json")
    path.write_text(path.read_text()[:20])
    with pytest.raises(DataError, match="delete that folder"):
        datasets.open_prepared("rsicd", source, prepared)


def test_names_are_found_however_their_marks_are_written(source, prepared):
    name = "p\u00f4nd_1.tif"  # one letter in the file, two in the folder
    (source / "images" / "pond_1.tif").rename(
        source / "images" / unicodedata.normalize("NFD", name)
    )
    write_lines(source / "train_filename.txt", [*TRAIN[:2], name, TRAIN[3]])
    opened = datasets.open_prepared("rsicd", source, prepared)
    assert opened.splits["train"][2]["filename"].decode() == name
