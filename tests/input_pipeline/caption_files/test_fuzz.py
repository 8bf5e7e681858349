"""However a caption file is damaged: one sentence, or entries that hold what they promise."""

import re
import unicodedata
from random import Random

import pytest
from damaged_captions import FORMATS, write_damaged

from input_pipeline.errors import DataError

FILES = 250
"""How many damaged files of each format are read."""


def is_safe(name):
    controls = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    inside = not {"", ".", ".."} & set(name.split("/"))
    return inside and not controls and name == name.strip() and not re.match(r"\w:|.*\\", name)


def check_entries(entries):
    names = [entry.file_name for entry in entries]
    assert 0 < len(set(names)) == len(names)
    assert len({bool(entry.split) for entry in entries}) == 1
    for entry in entries:
        assert is_safe(entry.file_name)
        assert not entry.folder or is_safe(entry.folder)
        assert entry.split in ("train", "validation", "test", "")
        assert entry.captions
        for text in entry.captions:
            assert text.strip() == text != ""
            assert len(text.splitlines()) == 1
            assert b"\0" not in text.encode()


def check_sentence(sentence, names):
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    assert any(name in sentence for name in names)
    sentence.encode()


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_one_sentence_or_sound_entries(name, tmp_path):
    files, num_read = FORMATS[name], 0
    for seed in range(FILES):
        content = write_damaged(Random(f"{name} {seed}"), files, tmp_path)
        try:
            entries = files.read(tmp_path)
        except DataError as error:
            check_sentence(str(error), files.files)
        except Exception as error:
            raise AssertionError(content) from error
        else:
            check_entries(entries)
            num_read += 1
    assert 0.1 < num_read / FILES < 0.9
