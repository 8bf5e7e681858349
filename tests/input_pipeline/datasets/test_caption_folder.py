"""Data of one's own: any captions an image, splits from the file or drawn, files anywhere."""

import json

import pytest
from refusals import refusal
from tiny_data_set import TEST, TRAIN

from input_pipeline.datasets import open_prepared, read_texts

NAMES = [*TRAIN, *TEST]


def write_csv(path, rows):
    path.write_text("filename,caption,split\n" + "".join(f"{','.join(row)}\n" for row in rows))


def write_names(path, names):
    write_csv(path, [(str(name), "a pond", "") for name in names])


@pytest.fixture
def table(pictures):
    """Where the captions of the pictures are looked for."""
    return pictures / "captions.csv"


@pytest.fixture
def opened(pictures, prepared):
    return lambda **options: open_prepared("caption_folder", pictures, prepared, **options)


@pytest.fixture
def texts(pictures):
    return lambda **options: read_texts("caption_folder", pictures, **options)


def test_any_number_of_captions_an_image(table, opened):
    rows = [(name, f"caption {k}", "train") for i, name in enumerate(TRAIN) for k in range(i + 1)]
    write_csv(table, rows + [(name, "one", "test") for name in TEST])
    assert opened().sizes == {"train": 4, "test": 2}
    assert [len(record["captions"]) for record in opened().splits["train"]] == [1, 2, 3, 4]


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


def test_a_test_split_is_drawn_where_the_file_has_none(table, texts):
    write_names(table, NAMES)
    drawn = set()
    for seed in range(8):
        train, test = texts(test_fraction=0.5, split_seed=seed).values()
        assert (len(train), len(test)) == (3, 3)
        assert sorted(train.file_names + test.file_names) == sorted(NAMES)
        drawn.add(tuple(test.file_names))
    assert len(drawn) > 3
    for options in ({"test_fraction": 0.0}, {"test_fraction": 0.01}, {"split_seed": -1}):
        assert "test_fraction" in refusal(texts, **options)


def test_splits_in_the_file_are_kept_whatever_the_options(table, texts):
    write_csv(table, [(TRAIN[0], "x", "train"), (TRAIN[1], "y", "val"), (TEST[0], "z", "test")])
    splits = texts(test_fraction=0.9, split_seed=3)
    names = {split: of.file_names for split, of in splits.items()}
    assert names == {"train": [TRAIN[0]], "validation": [TRAIN[1]], "test": [TEST[0]]}


def test_the_caption_file_must_be_the_only_one_or_named(pictures, texts):
    assert "there is no such file" in refusal(texts)
    for name in ("a.csv", "b.csv"):
        write_csv(pictures / name, [(TRAIN[0], name, "train"), (TEST[0], "x", "test")])
    assert "a.csv, b.csv" in refusal(texts)
    assert texts(captions="b.csv")["train"].captions == [["b.csv"]]
    assert "no folder" in refusal(read_texts, "caption_folder", pictures / "nowhere")


def test_images_without_a_caption_are_found(pictures, table, opened):
    rows = [(name, "x", "train") for name in TRAIN[:2]]
    write_csv(table, [*rows, (TEST[0], "y", "test"), ("gone.png", "z", "test")])
    for name in ("notes.txt", ".hidden.png", "more/deep.TIFF"):
        (pictures / "images" / name).parent.mkdir(exist_ok=True)
        (pictures / "images" / name).touch()
    unused = [TEST[1], "more/deep.TIFF", *sorted(TRAIN[2:])]
    assert opened(bad_images="skip").builder.images_without_caption() == unused


def test_absolute_paths_may_name_images_in_the_image_folder(pictures, table, opened, texts):
    write_names(table, [*(pictures / "images" / name for name in NAMES), *NAMES])
    assert texts() == opened().texts()
    assert sorted(name for of in texts().values() for name in of.file_names) == sorted(NAMES)
    assert texts()["test"].captions == [["a pond", "a pond"]]


@pytest.mark.parametrize(("name", "option"), [("images", "images"), ("captions.csv", "captions")])
def test_a_link_is_refused_with_the_option_that_names_its_target(
    pictures, table, opened, tmp_path, name, option
):
    write_names(table, NAMES)
    elsewhere = tmp_path / "elsewhere.csv"
    (pictures / name).rename(elsewhere)
    (pictures / name).symlink_to(elsewhere)
    assert f"write --config.data.options.{option}={elsewhere}." in refusal(opened)
    assert opened(**{option: str(elsewhere)}).sizes == {"train": 5, "test": 1}


def test_images_that_are_missing_are_listed_with_the_names_that_would_be_found(table, opened):
    wrong = [f"images/{name}" for name in NAMES]
    write_names(table, [*wrong, *(f"{n}.png" for n in range(60))])
    first, *lines = refusal(opened).splitlines()
    assert first.startswith("66 images of 'caption_folder'")
    assert lines[0] == f"  {wrong[0]}: missing"
    assert lines[19] == "  13.png: missing"
    advice = "6 of the 66 missing images would be found without 'images/'."
    assert lines[20:] == ["  and 46 more", f"  {advice}"]
