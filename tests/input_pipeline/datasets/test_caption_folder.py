"""Data of one's own: any number of captions an image, splits from the file or drawn."""

import json

from refusals import refusal
from tiny_data_set import TEST, TRAIN

from input_pipeline.datasets import open_prepared, read_texts

NAMES = TRAIN + TEST


def write_csv(folder, rows, name="captions.csv"):
    table = "filename,caption,split\n" + "".join(f"{','.join(row)}\n" for row in rows)
    (folder / name).write_text(table)


def test_any_number_of_captions_an_image(pictures, prepared):
    rows = [(name, f"caption {k}", "train") for i, name in enumerate(TRAIN) for k in range(i + 1)]
    write_csv(pictures, rows + [(name, "one", "test") for name in TEST])
    opened = open_prepared("caption_folder", pictures, prepared)
    assert opened.sizes == {"train": 4, "test": 2}
    assert [len(record["captions"]) for record in opened.splits["train"]] == [1, 2, 3, 4]


def test_json_lines_beside_the_images_themselves(pictures):
    for path in (pictures / "images").iterdir():
        path.rename(pictures / path.name)
    (pictures / "images").rmdir()
    lines = [json.dumps({"filename": name, "captions": ["a", "b"]}) for name in NAMES]
    (pictures / "captions.jsonl").write_text("\n".join(lines))
    opened = open_prepared("caption_folder", pictures, pictures / "prepared")
    assert opened.sizes == {"train": 5, "test": 1}
    again = open_prepared("caption_folder", pictures, pictures / "prepared")
    assert again.fingerprint == opened.fingerprint
    # Figures of reports among the prepared data are no images of the data set.
    (opened.folder / "concepts.png").touch()
    assert opened.builder.images_without_caption() == []


def test_a_test_split_is_drawn_where_the_file_has_none(pictures):
    write_csv(pictures, [(name, "x", "") for name in NAMES])
    drawn = set()
    for seed in range(8):
        texts = read_texts("caption_folder", pictures, test_fraction=0.5, split_seed=seed)
        assert {split: len(of) for split, of in texts.items()} == {"train": 3, "test": 3}
        assert sorted(texts["train"].file_names + texts["test"].file_names) == sorted(NAMES)
        drawn.add(tuple(texts["test"].file_names))
    assert len(drawn) > 3
    for options in ({"test_fraction": 0.0}, {"test_fraction": 0.01}, {"split_seed": -1}):
        assert "test_fraction" in refusal(read_texts, "caption_folder", pictures, **options)


def test_splits_in_the_file_are_kept_whatever_the_options(pictures):
    write_csv(pictures, [(TRAIN[0], "x", "train"), (TRAIN[1], "y", "val"), (TEST[0], "z", "test")])
    texts = read_texts("caption_folder", pictures, test_fraction=0.9, split_seed=3)
    names = {split: of.file_names for split, of in texts.items()}
    assert names == {"train": [TRAIN[0]], "validation": [TRAIN[1]], "test": [TEST[0]]}


def test_the_caption_file_must_be_the_only_one_or_named(pictures):
    assert "there is no such file" in refusal(read_texts, "caption_folder", pictures)
    for name in ("a.csv", "b.csv"):
        write_csv(pictures, [(TRAIN[0], name, "train"), (TEST[0], "x", "test")], name)
    assert "a.csv, b.csv" in refusal(read_texts, "caption_folder", pictures)
    texts = read_texts("caption_folder", pictures, captions="b.csv")
    assert texts["train"].captions == [["b.csv"]]
    assert "no folder" in refusal(read_texts, "caption_folder", pictures / "nowhere")


def test_images_without_a_caption_are_found(pictures, prepared):
    rows = [(name, "x", "train") for name in TRAIN[:2]]
    write_csv(pictures, [*rows, (TEST[0], "y", "test"), ("gone.png", "z", "test")])
    for name in ("notes.txt", ".hidden.png", "more/deep.TIFF"):
        (pictures / "images" / name).parent.mkdir(exist_ok=True)
        (pictures / "images" / name).touch()
    opened = open_prepared("caption_folder", pictures, prepared, bad_images="skip")
    unused = [TEST[1], "more/deep.TIFF", *sorted(TRAIN[2:])]
    assert opened.builder.images_without_caption() == unused
