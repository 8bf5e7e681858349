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
        ("  a b.jpg\t", "a b.jpg"),
        ("port\\dock\\a.jpg", "port/dock/a.jpg"),
        ("./b//./a.jpg", "b/a.jpg"),
        ("...a..jpg", "...a..jpg"),
        ("飛行場_1.jpg", "飛行場_1.jpg"),
    ],
)
def test_names_get_their_plain_form(parser, name, plain):
    assert parser.name(name, PLACE) == plain


OUTSIDE = "lies outside of the image folder."


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "there is no file name."),
        (None, "there is no file name."),
        ("./.", "there is no file name."),
        (7, "a file name must be text, not a number."),
        (["a.jpg"], "a file name must be text, not a list."),
        ("/a.jpg", f"'/a.jpg' {OUTSIDE}"),
        ("\\\\host\\a.jpg", f"'/host/a.jpg' {OUTSIDE}"),
        (".\\C:\\a.jpg", f"'./C:/a.jpg' {OUTSIDE}"),
        ("b\\..\\a.jpg", f"'b/../a.jpg' {OUTSIDE}"),
        ("a\0.jpg", r"the file name 'a\x00.jpg' has a character that is no text."),
        ("a\x9b.jpg", r"the file name 'a\x9b.jpg' has a character that is no text."),
        ("a\u2028.jpg", r"the file name 'a\u2028.jpg' has a character that is no text."),
        ("a\ud800.jpg", r"the file name 'a\ud800.jpg' has a character that is no text."),
    ],
)
def test_names_that_lead_out_of_the_folder_or_are_none_are_refused(parser, name, sentence):
    assert refusal(parser.name, name, PLACE) == f"captions.csv, line 3: {sentence}"


@pytest.mark.parametrize("folder", ["images", "link"])
def test_absolute_paths_in_the_image_folder_become_relative_to_it(tmp_path, monkeypatch, folder):
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    monkeypatch.chdir(tmp_path)
    parser = EntryParser(FILE, image_folder=Path(folder))
    assert parser.name(f"{tmp_path}/images/sub//a.jpg", PLACE) == "sub/a.jpg"
    for name in ("/a.jpg", f"{tmp_path}/images2/a.jpg", f"{tmp_path}/images"):
        sentence = refusal(parser.name, name, PLACE)
        assert f"'{name}' lies outside of the image folder {tmp_path}/{folder}" in sentence
        assert "--config.data.options.images=" in sentence
    assert OUTSIDE in refusal(parser.name, f"{tmp_path}/images/../a.jpg", PLACE)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" two planes .\n", "two planes ."),
        ("two  planes\tare\r\n here", "two  planes are   here"),
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
        ({}, "must be text, not an object."),
        ("a\ud800", "has a character that is no text."),
        ("a\0b", "has a character that is no text."),
    ],
)
def test_captions_that_are_no_text_are_refused(parser, text, fault):
    assert refusal(parser.caption, text, PLACE) == f"captions.csv, line 3: a caption {fault}"


def test_all_empty_captions_are_told_unless_they_are_accepted(parser):
    accepting = EntryParser(FILE, blank_captions=True)
    for number in range(1, 14):
        for each in (parser, accepting):
            assert each.caption(" \t\u2003", f"line {number}") == ""
    entries = [Entry("a.jpg", "", ("",))]
    sentence = refusal(parser.check, entries, [PLACE])
    assert sentence.startswith("captions.csv: 13 captions are empty: line 1, line 2, line 3, ")
    assert sentence.endswith(", line 10 and 3 more.")
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
    known = "train, restval, val, valid, validation, dev, test"
    sentence = f"captions.csv, line 3: the split 'trian' is not one of {known}."
    assert refusal(parser.split, "trian", PLACE) == sentence


A, B, WITHOUT = Entry("a", "train", ("x",)), Entry("b", "test", ("y",)), Entry("c", "", ("z",))
HALF = "some images have a split and others, like 'c', have none."
TWICE = "the file name 'a' is listed for two images, first in line 2."


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([], " lists no image."),
        ([A, B, Entry("a", "test", ("z",))], f", line 4: {TWICE}"),
        ([A, Entry("b", "test", ())], ", line 3: 'b' has no caption."),
        ([A, B, WITHOUT], f", line 4: {HALF}"),
        ([WITHOUT, A], f", line 3: {HALF}"),
    ],
)
def test_entries_are_checked_together(parser, entries, sentence):
    places = ["line 2", "line 3", "line 4"]
    assert refusal(parser.check, entries, places[: len(entries)]) == f"captions.csv{sentence}"
