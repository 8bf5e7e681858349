"""The text files of the KAMCL release: five lines an image, names once an image or a caption."""

import pytest

from input_pipeline.caption_files import Entry, release_text
from input_pipeline.errors import DataError

TRAIN, TEST = ["silo_1.png", "pond/pond_1.tif"], ["barn_1.png", "barn_2.png"]


def captions_of(name):
    return tuple(f"{name} number {k} ." for k in range(5))


def write_lines(path, lines, end="\n"):
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())


def write_split(folder, split, names, times=1, end="\n"):
    captions = [caption for name in names for caption in captions_of(name)]
    write_lines(folder / f"{split}_caps.txt", captions, end)
    write_lines(folder / f"{split}_filename.txt", [n for n in names for _ in range(times)], end)


@pytest.fixture
def folder(tmp_path):
    """Train lists one name an image, test one a caption."""
    write_split(tmp_path, "train", TRAIN)
    write_split(tmp_path, "test", TEST, times=5)
    return tmp_path


def expected(**splits):
    return [Entry(n, split, captions_of(n)) for split, names in splits.items() for n in names]


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        release_text.read(folder, **options)
    return str(caught.value)


def replace_line(path, number, line):
    lines = path.read_text().splitlines()
    write_lines(path, [*lines[: number - 1], line, *lines[number:]])


def test_images_are_read_in_the_order_of_the_files(folder):
    assert release_text.read(folder) == expected(train=TRAIN, test=TEST)


@pytest.mark.parametrize("times", [1, 5])
def test_a_validation_split_is_read_if_it_is_there(folder, times):
    write_split(folder, "val", ["dock_1.png"], times)
    read = release_text.read(folder)
    assert read == expected(train=TRAIN, validation=["dock_1.png"], test=TEST)


@pytest.mark.parametrize("there", ["val_caps.txt", "val_filename.txt"])
def test_half_a_validation_split_is_refused(folder, there):
    write_split(folder, "val", ["dock_1.png"])
    missing = ({"val_caps.txt", "val_filename.txt"} - {there}).pop()
    (folder / missing).unlink()
    sentence = f"The file {folder / missing} can't be read: No such file or directory."
    assert refusal(folder) == sentence
    # Links to nowhere are not the same as no validation split.
    (folder / there).unlink()
    (folder / missing).symlink_to(folder / "nowhere")
    assert "can't be read: No such file" in refusal(folder)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(folder, end):
    write_split(folder, "train", TRAIN, end=end)
    assert release_text.read(folder) == expected(train=TRAIN, test=TEST)


def test_a_last_line_without_an_end_is_a_line(folder):
    path = folder / "train_filename.txt"
    path.write_text("\n".join(TRAIN))
    assert release_text.read(folder) == expected(train=TRAIN, test=TEST)
    path.write_text("\n".join(TRAIN) + "\n\n")
    assert refusal(folder) == f"{path}, line 3: there is no file name."


def test_only_line_feeds_end_a_line(folder):
    caption = "a\u2028b\fc\x0bd\x85e\x1cf\u2029g"
    replace_line(folder / "train_caps.txt", 2, f"  {caption}\t")
    assert release_text.read(folder)[0].captions[1] == "a b c d e f g"


def test_blank_lines_are_captions_only_if_asked_for(folder):
    path = folder / "train_caps.txt"
    for line in (7, 9):
        replace_line(path, line, "  ")
    assert refusal(folder) == f"{path}: 2 captions are empty: line 7, line 9."
    assert release_text.read(folder, blank_captions=True)[1].captions[1] == ""
    for line in (7, 9):
        replace_line(path, line, ".")
    assert release_text.read(folder)[1].captions[1] == "."


@pytest.mark.parametrize(
    ("file", "number", "line", "sentence"),
    [
        ("train_filename.txt", 2, "", "{file}, line 2: there is no file name."),
        (
            "train_filename.txt",
            1,
            "../x",
            "{file}, line 1: '../x' lies outside of the image folder.",
        ),
        (
            "train_filename.txt",
            2,
            "./silo_1.png",
            "{folder}, train_filename.txt line 2: the file name 'silo_1.png' is listed for two "
            "images, first in train_filename.txt line 1.",
        ),
        (
            "train_filename.txt",
            2,
            "barn_2.png",
            "{folder}, test_filename.txt line 6: the file name 'barn_2.png' is listed for two "
            "images, first in train_filename.txt line 2.",
        ),
        (
            "test_filename.txt",
            4,
            "barn_2.png",
            "{file}, line 4: it names 'barn_2.png' within the five lines of another image.",
        ),
    ],
)
def test_the_line_of_a_bad_name_is_told(folder, file, number, line, sentence):
    replace_line(folder / file, number, line)
    assert refusal(folder) == sentence.format(file=folder / file, folder=folder)


@pytest.mark.parametrize(("captions", "names"), [(9, 2), (10, 3), (9, 9)])
def test_counts_that_do_not_match_are_told(folder, captions, names):
    captions_path, names_path = folder / "train_caps.txt", folder / "train_filename.txt"
    write_lines(captions_path, ["x"] * captions)
    write_lines(names_path, ["a.png"] * names)
    assert refusal(folder) == (
        f"{captions_path} has {captions} captions for the {names} lines of {names_path}: there "
        "must be 5 captions an image, with one file name an image or a caption."
    )


def test_files_that_are_missing_or_elsewhere_are_named(folder, tmp_path_factory):
    path, elsewhere = folder / "test_caps.txt", tmp_path_factory.mktemp("elsewhere") / "caps.txt"
    path.rename(elsewhere)
    assert refusal(folder) == f"The file {path} can't be read: No such file or directory."
    path.symlink_to(elsewhere)
    assert refusal(folder) == (
        f"The file {path} leads to {elsewhere}, outside of {folder}. If you mean that file, copy "
        "it there."
    )


def test_a_folder_has_the_layout_if_it_has_any_of_the_files(tmp_path):
    assert not release_text.has_layout(tmp_path)
    assert not release_text.has_layout(tmp_path / "nowhere")
    (tmp_path / "val_caps.txt").write_text("x")
    assert not release_text.has_layout(tmp_path)
    (tmp_path / "test_filename.txt").symlink_to("nowhere")
    assert release_text.has_layout(tmp_path)
