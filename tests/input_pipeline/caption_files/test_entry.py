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
    ("values", "plain"),
    [
        (["train", "restval", " Train "], "train"),
        (["val", "valid", "validation", "dev", "VAL"], "validation"),
        (["test"], "test"),
        (["", "  ", None], ""),
    ],
)
def test_splits_have_several_names(parser, values, plain):
    assert {parser.split(value, PLACE) for value in values} == {plain}


@pytest.mark.parametrize(
    ("what", "value", "plain"),
    [
        ("name", "  a b.jpg\t", "a b.jpg"),
        ("name", "port\\dock\\a.jpg", "port/dock/a.jpg"),
        ("name", "./b//./a.jpg", "b/a.jpg"),
        ("name", "...a..jpg", "...a..jpg"),
        ("name", "飛行場_1.jpg", "飛行場_1.jpg"),
        ("caption", " große 飛行場 .\n", "große 飛行場 ."),
        ("caption", "two  planes\tare\r\n here", "two  planes are   here"),
        ("caption", "a\u2028b\fc\u00a0d", "a b c d"),
    ],
)
def test_names_and_captions_get_their_plain_form(parser, what, value, plain):
    assert getattr(parser, what)(value, PLACE) == plain


OUTSIDE = "lies outside of the image folder"
KNOWN = "train, restval, val, valid, validation, dev, test"


@pytest.mark.parametrize(
    ("what", "value", "fault"),
    [
        ("name", "", "there is no file name"),
        ("name", None, "there is no file name"),
        ("name", "./.", "there is no file name"),
        ("name", 7, "a file name must be text, not a number"),
        ("name", "/a.jpg", f"'/a.jpg' {OUTSIDE}"),
        ("name", "\\\\host\\a.jpg", f"'/host/a.jpg' {OUTSIDE}"),
        ("name", ".\\C:\\a.jpg", f"'./C:/a.jpg' {OUTSIDE}"),
        ("name", "b\\..\\a.jpg", f"'b/../a.jpg' {OUTSIDE}"),
        ("name", "a\0", r"the file name 'a\x00' has a character that is no text"),
        ("name", "a\x9b", r"the file name 'a\x9b' has a character that is no text"),
        ("name", "a\u2028b", r"the file name 'a\u2028b' has a character that is no text"),
        ("name", "a\ud800", r"the file name 'a\ud800' has a character that is no text"),
        ("caption", None, "a caption must be text, not null"),
        ("caption", False, "a caption must be text, not false"),
        ("caption", {}, "a caption must be text, not an object"),
        ("caption", "a\ud800", "a caption has a character that is no text"),
        ("caption", "a\0b", "a caption has a character that is no text"),
        ("split", "trian", f"the split 'trian' is not one of {KNOWN}"),
        ("split", ["train"], "the split must be text, not a list"),
    ],
)
def test_what_is_wrong_with_a_value_is_told_with_its_place(parser, what, value, fault):
    assert refusal(getattr(parser, what), value, PLACE) == f"captions.csv, line 3: {fault}."


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
    assert f"{OUTSIDE}." in refusal(parser.name, f"{tmp_path}/images/../a.jpg", PLACE)


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
