"""However a caption file is damaged: one sentence, or data that hold what they promise."""

from __future__ import annotations

import io
import re
import unicodedata
from random import Random

import pytest
from caption_damage import damage
from caption_formats import FORMATS, IMAGES, ONE_MORE
from PIL import Image

from input_pipeline import datasets
from input_pipeline.errors import DataError

READ, PREPARED = 250, 12
"""How many damaged folders of each format are read, and prepared."""

NAMES = [*(name for name, _ in IMAGES), ONE_MORE]


def is_safe(name):
    controls = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    inside = not any(part in ("", ".", "..") for part in name.split("/"))
    return (
        inside
        and not controls
        and "\\" not in name
        and not re.match("[A-Za-z]:", name)
        and name == name.strip()
    )


def check_entries(entries):
    names = [entry.file_name for entry in entries]
    assert entries
    assert len(set(names)) == len(names)
    assert len({bool(entry.split) for entry in entries}) == 1
    for entry in entries:
        assert is_safe(entry.file_name)
        assert not entry.folder or (is_safe(entry.folder) and "/" not in entry.folder)
        assert entry.split in ("train", "validation", "test", "")
        assert type(entry.captions) is tuple
        assert entry.captions
        for text in entry.captions:
            assert text.strip() == text != ""
            assert len(text.splitlines()) == 1
            assert "\0" not in text.encode().decode()


def check_sentence(sentence, case):
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    assert any(name in sentence for name in case.contents)
    sentence.encode()


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_one_sentence_or_sound_entries(name, tmp_path):
    case, outcomes = FORMATS[name], []
    for seed in range(READ):
        folder = tmp_path / str(seed)
        case.write(folder)
        done = damage(Random(f"{name} {seed}"), case, folder)
        try:
            entries = case.read(folder)
        except DataError as error:
            sentence = str(error)
            outcomes.append("refused")
        except Exception as error:
            raise AssertionError(done) from error
        else:
            sentence = None
            outcomes.append("read")
        if sentence is None:
            check_entries(entries)
        else:
            check_sentence(sentence, case)
    assert min(outcomes.count("read"), outcomes.count("refused")) > READ / 10


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_data_set_is_prepared_whole_or_not_at_all(name, tmp_path):
    case = FORMATS[name]
    image = io.BytesIO()
    Image.new("RGB", (4, 3), "green").save(image, "JPEG")
    for seed in range(PREPARED):
        folder, prepared = tmp_path / str(seed), tmp_path / f"{seed} prepared"
        case.write(folder)
        (folder / "images" / "sub").mkdir(parents=True)
        for image_name in NAMES:
            (folder / "images" / image_name).write_bytes(image.getvalue())
        damage(Random(f"{name} {seed}"), case, folder)
        try:
            opened = datasets.open_prepared(case.data_set, folder, prepared)
        except DataError:
            assert not prepared.exists()
            continue
        texts = opened.texts()
        assert {"train", "test"} <= set(opened.sizes)
        assert set(opened.splits) == set(texts)
        for split, records in opened.splits.items():
            names = [records[i]["filename"].decode() for i in range(len(records))]
            captions = [[c.decode() for c in records[i]["captions"]] for i in range(len(records))]
            assert (names, captions) == (texts[split].file_names, texts[split].captions)
            assert len(names) == opened.sizes[split]
            assert set(names) <= set(NAMES)
