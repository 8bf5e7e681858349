"""What must hold for names, captions and splits, whichever format they come in."""

from pathlib import Path

import pytest
from refusals import refusal

from input_pipeline.caption_files import Entry
from input_pipeline.caption_files.entry import EntryParser

FILE = Path("captions.csv")
PLACE = "line 3"


@pytest.fixture
def parser():
    return EntryParser(FILE)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a.jpg", "a.jpg"),
        ("  a b.jpg\t", "a b.jpg"),
        ("port\\dock\\a.jpg", "port/dock/a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("b//./a.jpg", "b/a.jpg"),
        ("...a..jpg", "...a..jpg"),
        ("飛行場_1.jpg", "飛行場_1.jpg"),
    ],
)
def test_names_get_their_plain_form(parser, name, plain):
    assert parser.name(name, PLACE) == plain


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "there is no file name."),
        (None, "there is no file name."),
        ("./.", "there is no file name."),
        (7, "a file name must be text, not a number."),
        (["a.jpg"], "a file name must be text, not a list."),
        ("/a.jpg", "'/a.jpg' lies outside of the image folder."),
        ("\\\\host\\a.jpg", "'/host/a.jpg' lies outside of the image folder."),
        (".\\C:\\a.jpg", "'./C:/a.jpg' lies outside of the image folder."),
        ("c:a.jpg", "'c:a.jpg' lies outside of the image folder."),
        ("b\\..\\a.jpg", "'b/../a.jpg' lies outside of the image folder."),
        ("a\0.jpg", r"the file name 'a\x00.jpg' has a character that is no text."),
        ("a\n.jpg", r"the file name 'a\n.jpg' has a character that is no text."),
        ("a\x9b.jpg", r"the file name 'a\x9b.jpg' has a character that is no text."),
        ("a\u2028.jpg", r"the file name 'a\u2028.jpg' has a character that is no text."),
        ("a\ud800.jpg", r"the file name 'a\ud800.jpg' has a character that is no text."),
    ],
)
def test_names_that_lead_out_of_the_folder_or_are_none_are_refused(parser, name, sentence):
    assert refusal(parser.name, name, PLACE) == f"captions.csv, line 3: {sentence}"


def test_absolute_paths_in_the_image_folder_become_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "link", f"{tmp_path}/images"):
        parser = EntryParser(FILE, image_folder=Path(folder))
        assert parser.name(f"{tmp_path}/images/sub//a.jpg", PLACE) == "sub/a.jpg"
        assert parser.name("b.jpg", PLACE) == "b.jpg"
        for name in ("/a.jpg", f"{tmp_path}/images2/a.jpg", f"{tmp_path}/images"):
            expected = f"captions.csv, line 3: '{name}' lies outside of the image folder {tmp_path}"
            assert refusal(parser.name, name, PLACE).startswith(expected)
            assert "--config.data.options.images=" in refusal(parser.name, name, PLACE)
        name = f"{tmp_path}/images/../a.jpg"
        assert refusal(parser.name, name, PLACE).endswith("lies outside of the image folder.")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" two planes .\n", "two planes ."),
        (".", "."),
        ("two\nplanes\tare\r\n here", "two planes are   here"),
        ("two  planes", "two  planes"),
        ("two\t\n planes", "two   planes"),
        ("a\u2028b\fc\u00a0d", "a b c d"),
        ("große 飛行場", "große 飛行場"),
    ],
)
def test_captions_become_one_line(parser, text, plain):
    assert parser.caption(text, PLACE) == plain


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "must be text, not null."),
        (False, "must be text, not false."),
        (1.5, "must be text, not a number."),
        ({}, "must be text, not an object."),
        ("a\ud800", "has a character that is no text."),
        ("a\0b", "has a character that is no text."),
    ],
)
def test_captions_that_are_no_text_are_refused(parser, text, fault):
    assert refusal(parser.caption, text, PLACE) == f"captions.csv, line 3: a caption {fault}"


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (1, "captions.csv, line 1: a caption is empty."),
        (3, "captions.csv: 3 captions are empty: line 1, line 2, line 3."),
        (
            13,
            "captions.csv: 13 captions are empty: line 1, line 2, line 3, line 4, line 5, line 6, "
            "line 7, line 8, line 9, line 10 and 3 more.",
        ),
    ],
)
def test_all_empty_captions_are_told_unless_they_are_accepted(parser, count, sentence):
    accepting = EntryParser(FILE, blank_captions=True)
    for number in range(1, count + 1):
        for each in (parser, accepting):
            assert each.caption(" \t\u2003", f"line {number}") == ""
            assert each.caption("a pond", PLACE) == "a pond"
    entries = [Entry("a.jpg", "", ("",) * count)]
    assert refusal(parser.check, entries, [PLACE]) == sentence
    assert accepting.check(entries, [PLACE]) == entries


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["train", "restval", " Train "], "train"),
        (["val", "valid", "validation", "dev", "VAL"], "validation"),
        (["test"], "test"),
        (["", "  ", None], ""),
    ],
)
def test_splits_have_several_names(parser, names, split):
    assert {parser.split(name, PLACE) for name in names} == {split}


def test_unknown_splits_are_refused(parser):
    names = "train, restval, val, valid, validation, dev, test"
    assert refusal(parser.split, "trian", PLACE) == (
        f"captions.csv, line 3: the split 'trian' is not one of {names}."
    )
    assert refusal(parser.split, ["train"], PLACE) == (
        "captions.csv, line 3: the split must be text, not a list."
    )


A, B, C = (
    Entry("a.jpg", "train", ("x",)),
    Entry("b.jpg", "test", ("y",)),
    Entry("c.jpg", "", ("z",)),
)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([], "captions.csv lists no image."),
        (
            [A, B, Entry("a.jpg", "test", ("z",))],
            "captions.csv, line 4: the file name 'a.jpg' is listed for two images, first in "
            "line 2.",
        ),
        ([A, Entry("b.jpg", "test", ())], "captions.csv, line 3: 'b.jpg' has no caption."),
        (
            [A, B, C],
            "captions.csv, line 4: some images have a split and others, like 'c.jpg', have none.",
        ),
        (
            [C, A],
            "captions.csv, line 3: some images have a split and others, like 'c.jpg', have none.",
        ),
    ],
)
def test_entries_are_checked_together(parser, entries, sentence):
    places = ["line 2", "line 3", "line 4"]
    assert parser.check([A, B], places[:2]) == [A, B]
    assert refusal(parser.check, entries, places[: len(entries)]) == sentence
