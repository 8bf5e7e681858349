"""The text files of the KAMCL release: five lines an image, names once an image or a caption."""

from pathlib import Path

import pytest
from refusals import refusal
from tiny_data_set import TEST, TRAIN, captions_of, write_lines

from input_pipeline.caption_files import Entry, release_text

CAPTIONS, NAMES = Path("train_caps.txt"), Path("train_filename.txt")


@pytest.fixture
def folder(source, monkeypatch):
    """The current folder; train lists one name an image, test one a caption."""
    monkeypatch.chdir(source)
    return Path()


def expected(**splits):
    return [
        Entry(name, split, tuple(captions_of([name])))
        for split, names in splits.items()
        for name in names
    ]


def replace_line(path, number, line):
    lines = path.read_text().splitlines()
    write_lines(path, [*lines[: number - 1], line, *lines[number:]])


@pytest.mark.parametrize("times", [1, 5])
def test_images_are_read_in_the_order_of_the_files(folder, times):
    assert release_text.read(folder) == expected(train=TRAIN, test=TEST)
    write_lines(Path("val_caps.txt"), captions_of(["dock_1.png"]))
    write_lines(Path("val_filename.txt"), ["dock_1.png"] * times)
    read = release_text.read(folder)
    assert read == expected(train=TRAIN, validation=["dock_1.png"], test=TEST)


def test_half_a_validation_split_is_refused(folder):
    Path("val_caps.txt").write_text("x\n" * 5)
    assert "The file val_filename.txt can't be read: No such" in refusal(release_text.read, folder)
    # Links to nowhere are not the same as no validation split.
    Path("val_caps.txt").unlink()
    Path("val_filename.txt").symlink_to("nowhere")
    assert "The file val_caps.txt can't be read: No such" in refusal(release_text.read, folder)


def test_lines_end_at_line_feeds_alone(folder):
    NAMES.write_text("\n".join(TRAIN))
    replace_line(CAPTIONS, 2, "  a\u2028b\fc\x0bd\x85e\x1cf\u2029g\t")
    read = release_text.read(folder)
    assert [entry.file_name for entry in read] == TRAIN + TEST
    assert read[0].captions[1] == "a b c d e f g"


def test_blank_lines_are_captions_only_if_asked_for(folder):
    for line in (7, 9):
        replace_line(CAPTIONS, line, "  ")
    sentence = "train_caps.txt: 2 captions are empty: line 7, line 9."
    assert refusal(release_text.read, folder) == sentence
    assert release_text.read(folder, blank_captions=True)[1].captions[1] == ""


TWICE = "the file name 'barn_2.png' is listed for two images, first in train_filename.txt line 2."


@pytest.mark.parametrize(
    ("split", "number", "line", "sentence"),
    [
        ("train", 2, "", "train_filename.txt, line 2: there is no file name."),
        ("train", 2, "barn_2.png", f"., test_filename.txt line 6: {TWICE}"),
        ("test", 4, "x", "it names 'x' within the five lines of another image."),
    ],
)
def test_the_line_of_a_bad_name_is_told(folder, split, number, line, sentence):
    replace_line(Path(f"{split}_filename.txt"), number, line)
    assert refusal(release_text.read, folder).endswith(sentence)


@pytest.mark.parametrize(("captions", "names"), [(9, 2), (10, 3), (9, 9)])
def test_counts_that_do_not_match_are_told(folder, captions, names):
    write_lines(CAPTIONS, ["x"] * captions)
    write_lines(NAMES, ["a.png"] * names)
    start = f"train_caps.txt has {captions} captions for the {names} lines of train_filename.txt: "
    assert refusal(release_text.read, folder).startswith(start)


def test_files_that_lie_elsewhere_are_not_read(folder, tmp_path):
    NAMES.rename(tmp_path / "names.txt")
    NAMES.symlink_to(tmp_path / "names.txt")
    assert refusal(release_text.read, folder).endswith("If you mean that file, copy it there.")


def test_a_folder_has_the_layout_if_it_has_any_of_the_files(tmp_path):
    assert not release_text.has_layout(tmp_path / "nowhere")
    (tmp_path / "val_caps.txt").write_text("x")
    assert not release_text.has_layout(tmp_path)
    (tmp_path / "test_filename.txt").symlink_to("nowhere")
    assert release_text.has_layout(tmp_path)
