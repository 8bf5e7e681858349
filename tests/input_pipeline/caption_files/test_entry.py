"""What must hold for names, captions and splits, whichever format they come in."""

from pathlib import Path

import pytest

from input_pipeline.caption_files import Entry, entry
from input_pipeline.errors import DataError

FILE = Path("captions.csv")


def refusal(check, *arguments):
    with pytest.raises(DataError) as caught:
        check(*arguments, FILE, "line 3")
    return str(caught.value)


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
        ("x" * entry.MAX_NAME, "x" * entry.MAX_NAME),
    ],
)
def test_names_get_their_plain_form(name, plain):
    assert entry.checked_name(name, FILE, "line 3") == plain


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "there is no file name."),
        (" \n", "there is no file name."),
        (None, "there is no file name."),
        ("./.", "there is no file name."),
        (7, "a file name must be text, not a number."),
        (["a.jpg"], "a file name must be text, not a list."),
        ("/a.jpg", "'/a.jpg' lies outside of the image folder."),
        ("\\\\host\\a.jpg", "'//host/a.jpg' lies outside of the image folder."),
        ("C:/a.jpg", "'C:/a.jpg' lies outside of the image folder."),
        (".\\C:\\a.jpg", "'./C:/a.jpg' lies outside of the image folder."),
        ("c:a.jpg", "'c:a.jpg' lies outside of the image folder."),
        ("b/../../a.jpg", "'b/../../a.jpg' lies outside of the image folder."),
        ("b\\..\\a.jpg", "'b/../a.jpg' lies outside of the image folder."),
        ("a\0.jpg", r"the file name 'a\x00.jpg' has a character that is no text."),
        ("a\n.jpg", r"the file name 'a\n.jpg' has a character that is no text."),
        ("a\x9b.jpg", r"the file name 'a\x9b.jpg' has a character that is no text."),
        ("a\u2028.jpg", r"the file name 'a\u2028.jpg' has a character that is no text."),
        ("a\ud800.jpg", r"the file name 'a\ud800.jpg' has a character that is no text."),
        ("x" * 1025, "the file name is longer than 1024 characters."),
    ],
)
def test_names_that_lead_out_of_the_folder_or_are_none_are_refused(name, sentence):
    assert refusal(entry.checked_name, name) == f"captions.csv, line 3: {sentence}"


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
def test_captions_become_one_line(text, plain):
    assert entry.checked_caption(text, False, FILE, "line 3") == plain


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "a caption is empty."),
        (" \t\u2003", "a caption is empty."),
        (None, "a caption must be text, not null."),
        (False, "a caption must be text, not false."),
        (1.5, "a caption must be text, not a number."),
        ({}, "a caption must be text, not an object."),
        ("a\ud800", "a caption has a character that is no text."),
        ("a\0b", "a caption has a character that is no text."),
    ],
)
def test_captions_that_are_no_text_are_refused(text, sentence):
    assert refusal(entry.checked_caption, text, False) == f"captions.csv, line 3: {sentence}"


def test_blank_captions_can_be_accepted():
    assert entry.checked_caption(" \t", True, FILE, "line 3") == ""


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["train", "restval", " Train "], "train"),
        (["val", "valid", "validation", "dev", "VAL"], "validation"),
        (["test"], "test"),
        (["", "  ", None], ""),
    ],
)
def test_splits_have_several_names(names, split):
    assert {entry.checked_split(name, FILE, "line 3") for name in names} == {split}


def test_unknown_splits_are_refused():
    names = "train, restval, val, valid, validation, dev, test"
    assert refusal(entry.checked_split, "trian") == (
        f"captions.csv, line 3: the split 'trian' is not one of {names}."
    )
    assert refusal(entry.checked_split, ["train"]) == (
        "captions.csv, line 3: the split must be text, not a list."
    )


def test_entries_are_checked_together():
    a, b = Entry("a.jpg", "train", ("x",)), Entry("b.jpg", "test", ("y", "z"))
    places = ["line 2", "line 3", "line 4"]
    assert entry.checked_entries([a, b], places[:2], FILE) == [a, b]
    for wrong, sentence in [
        ([], "captions.csv lists no image."),
        (
            [a, b, Entry("a.jpg", "test", ("z",))],
            "captions.csv, line 4: the file name 'a.jpg' is listed for two images, first in "
            "line 2.",
        ),
        ([a, Entry("b.jpg", "test", ())], "captions.csv, line 3: 'b.jpg' has no caption."),
        (
            [a, b, Entry("c.jpg", "", ("z",))],
            "captions.csv, line 4: some images have a split and others, like 'c.jpg', have none.",
        ),
        (
            [Entry("c.jpg", "", ("z",)), a],
            "captions.csv, line 3: some images have a split and others, like 'c.jpg', have none.",
        ),
    ]:
        with pytest.raises(DataError) as caught:
            entry.checked_entries(wrong, places[: len(wrong)], FILE)
        assert str(caught.value) == sentence
