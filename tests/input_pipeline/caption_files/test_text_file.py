"""Text and JSON are read as they are meant, or refused with the place of the fault."""

import codecs
import os
import threading
import time

import pytest

from input_pipeline.caption_files import text_file
from input_pipeline.caption_files.text_file import parse_json, read_json, read_text
from input_pipeline.errors import DataError

HALF_A_LETTER = "飛".encode()[:2]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def refusal(path, root):
    with pytest.raises(DataError) as caught:
        read_text(path, root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("größe 飛\n\n x".encode(), "größe 飛\n\n x"),
        (codecs.BOM_UTF8 + b"a\n", "a\n"),
        (b"a\r\nb\rc\n\rd", "a\nb\nc\n\nd"),
        ("a\u2028b\fc\x85d".encode(), "a\u2028b\fc\x85d"),
    ],
)
def test_bom_and_line_ends_are_those_of_plain_text(folder, content, text):
    (folder / "a.txt").write_bytes(content)
    assert read_text(folder / "a.txt", folder) == text


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (b"", " is empty."),
        (codecs.BOM_UTF8, " is empty."),
        (b" \r\n", " is empty."),
        ("a plane".encode("utf-16"), " is UTF-16 text: save it as UTF-8."),
        (codecs.BOM_UTF16_BE + "a plane".encode("utf-16-be"), " is UTF-16 text: save it as UTF-8."),
        ("a\nb".encode("utf-16-le"), " has a NUL byte in line 1: save it as UTF-8 text."),
        (b"a\r\nb\rc\0d", " has a NUL byte in line 3: save it as UTF-8 text."),
        ("a\r\nb\rc\ngröße".encode("latin-1"), " is not UTF-8 text: see line 4."),
        (codecs.BOM_UTF8 + b"a\n" + HALF_A_LETTER, " is not UTF-8 text: see line 2."),
    ],
)
def test_what_is_not_utf8_text_is_refused(folder, content, end):
    path = folder / "a.txt"
    path.write_bytes(content)
    assert refusal(path, folder) == f"The file {path}{end}"


def test_what_is_not_there_or_not_a_file_is_refused(folder):
    path = folder / "a.txt"
    assert refusal(path, folder) == f"The file {path} can't be read: No such file or directory."
    path.symlink_to(folder / "nowhere.txt")
    assert refusal(path, folder) == f"The file {path} can't be read: No such file or directory."
    (folder / "circle").symlink_to(folder / "circle")
    assert "circle can't be read: Too many levels of symb" in refusal(folder / "circle", folder)
    assert refusal(folder / "a\0b", folder).endswith(" can't be read: it has no proper name.")
    (folder / "b.txt").mkdir()
    assert (
        refusal(folder / "b.txt", folder) == f"{folder / 'b.txt'} can't be read: it is not a file."
    )
    device = refusal(type(folder)("/dev/zero"), type(folder)("/"))
    assert device == "/dev/zero can't be read: it is not a file."


def test_a_pipe_is_not_waited_for(folder):
    path = folder / "a.txt"
    os.mkfifo(path)
    # Whoever opens the pipe would get this text, and the test fail rather than wait.
    writer = threading.Thread(target=lambda: path.write_text("a plane"), daemon=True)
    writer.start()
    time.sleep(0.05)
    assert refusal(path, folder) == f"{path} can't be read: it is not a file."
    assert path.read_text() == "a plane"
    writer.join()


def test_a_file_that_may_not_be_read_is_refused(folder, monkeypatch):
    path = folder / "a.txt"
    path.write_text("a plane")

    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", denied)
    assert refusal(path, folder) == f"The file {path} can't be read: Permission denied."


def test_a_file_of_more_than_a_gibibyte_is_refused_unread(folder):
    path = folder / "a.txt"
    path.write_text("a plane")
    os.truncate(path, 2**30 + 1)
    assert refusal(path, folder) == f"The file {path} is larger than {2**30} bytes."


def test_a_file_of_the_largest_size_is_read(folder, monkeypatch):
    monkeypatch.setattr(text_file, "MAX_BYTES", 7)
    (folder / "a.txt").write_text("a plane")
    assert read_text(folder / "a.txt", folder) == "a plane"


def test_nothing_outside_of_the_data_folder_is_read(folder, tmp_path):
    (tmp_path / "outside.txt").write_text("a secret")
    (tmp_path / "data_2").mkdir()
    (tmp_path / "data_2" / "outside.txt").write_text("a secret")
    path = folder / "a.txt"
    end = f"lies outside of {folder}: nothing outside of the data folder is read."
    for target in (tmp_path / "outside.txt", tmp_path / "data_2" / "outside.txt"):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        assert refusal(path, folder) == f"The file {path} {end}"
    (folder / "linked").symlink_to(tmp_path / "data_2")
    for path in (folder / "linked" / "outside.txt", folder / ".." / "outside.txt"):
        assert refusal(path, folder) == f"The file {path} {end}"


def test_links_within_the_folder_and_a_folder_that_is_a_link_are_followed(folder, tmp_path):
    (folder / "a.txt").write_text("a plane")
    (folder / "b.txt").symlink_to("a.txt")
    root = tmp_path / "linked"
    root.symlink_to(folder)
    assert read_text(root / "b.txt", root) == "a plane"
    assert read_text(folder / "b.txt", root) == "a plane"


def test_json_is_read(folder):
    (folder / "a.json").write_bytes(codecs.BOM_UTF8 + b'{"a": [1, 2.5, null, "\\u98db"]}\r\n')
    assert read_json(folder / "a.json", folder) == {"a": [1, 2.5, None, "飛"]}


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('{"a": 1', "is not JSON: Expecting ',' delimiter at column 8."),
        ('{\n"a": "x\n', "is not JSON: Invalid control character at line 2, column 8."),
        ('["x', "is not JSON: Unterminated string starting at column 2."),
        ("[1] 2", "is not JSON: Extra data at column 5."),
        ("[NaN]", "is not JSON: it has the number NaN."),
        ("[-Infinity]", "is not JSON: it has the number -Infinity."),
        ("[" * 100_000 + "]" * 100_000, "is nested too deeply."),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "is nested too deeply."),
        ("[" + "9" * 5000 + "]", "has a number of too many digits."),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "has the key 'b' twice in one object."),
        ('{"\\ud800": 1, "\\ud800": 2}', r"has the key '\ud800' twice in one object."),
    ],
)
def test_what_is_not_json_is_refused(text, end):
    with pytest.raises(DataError) as caught:
        parse_json(text, "a.json")
    assert str(caught.value) == f"a.json {end}"
