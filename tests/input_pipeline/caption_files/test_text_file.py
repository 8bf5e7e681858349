"""Text and JSON are read as they are meant, or refused with the place of the fault."""

import codecs

import pytest
from refusals import refusal

from input_pipeline.caption_files.text_file import parse_json, read_text

HALF_A_LETTER = "飛".encode()[:2]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


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
        (codecs.BOM_UTF8, " is empty."),
        (b" \r\n", " is empty."),
        ("a plane".encode("utf-16"), " is UTF-16 text: save it as UTF-8."),
        (b"a\r\nb\rc\0d", " has a NUL byte in line 3: save it as UTF-8 text."),
        ("a\r\nb\rc\ngröße".encode("latin-1"), " is not UTF-8 text: see line 4."),
        (codecs.BOM_UTF8 + b"a\n" + HALF_A_LETTER, " is not UTF-8 text: see line 2."),
    ],
)
def test_what_is_not_utf8_text_is_refused(folder, content, end):
    path = folder / "a.txt"
    assert refusal(read_text, path, folder).endswith("can't be read: No such file or directory.")
    path.write_bytes(content)
    assert refusal(read_text, path, folder) == f"The file {path}{end}"


def test_nothing_outside_of_the_data_folder_is_read_unless_it_is_named(folder, tmp_path):
    target = tmp_path / "data_2" / "outside.txt"
    target.parent.mkdir()
    target.write_text("a secret")
    (folder / "a.txt").symlink_to(target)
    (folder / "linked").symlink_to(target.parent)
    for name in ("a.txt", "linked/outside.txt", "../data_2/outside.txt"):
        path = folder / name
        start = f"The file {path} leads to {target}, outside of {folder}. If you mean that file, "
        end = f"write --config.data.options.captions={target}."
        assert refusal(read_text, path, folder) == start + end
        assert read_text(path, None) == "a secret"
    # Links within the folder are followed, and so is a folder that is one.
    (folder / "b.txt").write_text("a plane")
    (folder / "c.txt").symlink_to("b.txt")
    root = tmp_path / "root"
    root.symlink_to(folder)
    assert read_text(root / "c.txt", root) == read_text(folder / "c.txt", root) == "a plane"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('{"a": 1', "is not JSON: Expecting ',' delimiter at column 8."),
        ('{\n"a": "x\n', "is not JSON: Invalid control character at line 2, column 8."),
        ('["x', "is not JSON: Unterminated string starting at column 2."),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "has the key 'b' twice in one object."),
        ('{"\\ud800": 1, "\\ud800": 2}', r"has the key '\ud800' twice in one object."),
    ],
)
def test_what_is_not_json_is_refused(text, end):
    assert refusal(parse_json, text, "a.json") == f"a.json {end}"
