"""Data of one's own: any number of captions an image, splits from the file or drawn."""

import json

import pytest
from tiny_data_set import TEST, TRAIN

from input_pipeline import datasets
from input_pipeline.errors import DataError

NAMES = TRAIN + TEST


def csv_of(rows):
    return "filename,caption,split\n" + "".join(f"{','.join(row)}\n" for row in rows)


def test_any_number_of_captions_an_image(pictures, prepared):
    rows = [(name, f"caption {k}", "train") for i, name in enumerate(TRAIN) for k in range(i + 1)]
    rows += [(name, "one", "test") for name in TEST]
    (pictures / "captions.csv").write_text(csv_of(rows))
    opened = datasets.open_prepared("caption_folder", pictures, prepared)
    assert opened.sizes == {"train": 4, "test": 2}
    counts = [len(opened.splits["train"][i]["captions"]) for i in range(4)]
    assert counts == [1, 2, 3, 4]


def test_json_lines_beside_the_images_themselves(pictures, prepared):
    for path in (pictures / "images").iterdir():
        path.rename(pictures / path.name)
    (pictures / "images").rmdir()
    lines = [json.dumps({"filename": name, "captions": ["a", "b"]}) for name in NAMES]
    (pictures / "captions.jsonl").write_text("\n".join(lines))
    opened = datasets.open_prepared("caption_folder", pictures, pictures / "prepared")
    assert opened.sizes == {"train": 5, "test": 1}
    again = datasets.open_prepared("caption_folder", pictures, pictures / "prepared")
    assert again.fingerprint == opened.fingerprint


def test_a_test_split_is_drawn_where_the_file_has_none(pictures, prepared):
    (pictures / "captions.csv").write_text(
        "filename,caption\n" + "".join(f"{name},x\n" for name in NAMES)
    )
    drawn = set()
    for seed in range(8):
        texts = datasets.read_texts("caption_folder", pictures, test_fraction=0.5, split_seed=seed)
        assert {split: len(of) for split, of in texts.items()} == {"train": 3, "test": 3}
        assert sorted(texts["train"].file_names + texts["test"].file_names) == sorted(NAMES)
        drawn.add(tuple(texts["test"].file_names))
    assert len(drawn) > 3
    for options in ({"test_fraction": 0.0}, {"test_fraction": 0.01}, {"split_seed": -1}):
        with pytest.raises(DataError, match="test_fraction"):
            datasets.read_texts("caption_folder", pictures, **options)


def test_karpathy_json_has_its_splits(pictures, prepared, karpathy):
    (pictures / "dataset.json").write_text(karpathy)
    opened = datasets.open_prepared("caption_folder", pictures, prepared)
    assert opened.sizes == {"train": 3, "validation": 1, "test": 2}


def test_the_caption_file_must_be_the_only_one_or_named(pictures, prepared):
    with pytest.raises(DataError, match="there is no such file"):
        datasets.open_prepared("caption_folder", pictures, prepared)
    for name in ("a.csv", "b.csv"):
        (pictures / name).write_text(csv_of([(TRAIN[0], name, "train"), (TEST[0], "x", "test")]))
    with pytest.raises(DataError, match=r"a\.csv, b\.csv"):
        datasets.open_prepared("caption_folder", pictures, prepared)
    texts = datasets.read_texts("caption_folder", pictures, captions="b.csv")
    assert texts["train"].captions == [["b.csv"]]
    with pytest.raises(DataError, match="no folder"):
        datasets.open_prepared("caption_folder", pictures / "nowhere", prepared)


def test_splits_in_the_file_are_kept_whatever_the_options(pictures):
    rows = [(TRAIN[0], "x", "train"), (TRAIN[1], "y", "val"), (TEST[0], "z", "test")]
    (pictures / "captions.csv").write_text(csv_of(rows))
    texts = datasets.read_texts("caption_folder", pictures, test_fraction=0.9, split_seed=3)
    assert {split: of.file_names for split, of in texts.items()} == {
        "train": [TRAIN[0]],
        "validation": [TRAIN[1]],
        "test": [TEST[0]],
    }
