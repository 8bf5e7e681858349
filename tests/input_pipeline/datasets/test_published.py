"""Published data sets: the same images and captions from whichever files a user has."""

import json

import pytest
from PIL import Image
from refusals import refusal
from tiny_data_set import TEST, TRAIN, captions_of, write_lines

from input_pipeline.datasets import open_prepared, read_texts
from input_pipeline.datasets.published import size_mismatches
from input_pipeline.datasets.rsicd import Rsicd

JSON_FILES = {
    "rsicd": ("dataset_rsicd.json", "RSICD_images"),
    "rsitmd": ("dataset_RSITMD.json", "images"),
    "ucm_captions": ("dataset.json", "imgs"),
    "sydney_captions": ("dataset.json", "imgs"),
    "nwpu_captions": ("dataset_nwpu.json", "NWPU_images"),
}


def check_records(opened, folder):
    """Images and captions are those of their names, which are returned."""
    records = [record for of in opened.splits.values() for record in of]
    names = [record["filename"].decode() for record in records]
    for record, name in zip(records, names, strict=True):
        (path,) = folder.rglob(name)
        assert record["image"] == path.read_bytes()
        assert [caption.decode() for caption in record["captions"]] == captions_of([name])
    return names


@pytest.mark.parametrize("name", JSON_FILES)
def test_the_releases_files_are_read_in_order_with_the_images_copied_through(
    source, prepared, name
):
    Image.open(source / "images" / TRAIN[0]).convert("P").save(source / "images" / TRAIN[0])
    opened = open_prepared(name, source, prepared)
    assert opened.sizes == {"train": 4, "test": 2}
    assert check_records(opened, source / "images") == TRAIN + TEST
    assert opened.folder == prepared / name / opened.fingerprint
    assert opened.builder.images_without_caption() == []


@pytest.mark.parametrize("name", ["rsicd", "rsitmd", "ucm_captions", "sydney_captions"])
def test_the_publishers_files_are_read_by_split(pictures, prepared, karpathy, name):
    file, folder = JSON_FILES[name]
    (pictures / file).write_text(karpathy)
    (pictures / "images").rename(pictures / folder)
    opened = open_prepared(name, pictures, prepared)
    # An image's id is its place in the file, whatever its split.
    ids = {split: [record["image_id"] for record in of] for split, of in opened.splits.items()}
    assert ids == {"train": [0, 3, 4], "validation": [2], "test": [1, 5]}
    check_records(opened, pictures / folder)
    assert opened.texts()["validation"].captions == [captions_of([TRAIN[1]])]


def nwpu_json():
    classes = {}
    for name in TRAIN + TEST:
        texts = captions_of([name])
        entry = {"filename": name, "split": "test" if name in TEST else "train", "raw": texts[0]}
        entry |= {f"raw_{k}": text for k, text in enumerate(texts[1:], start=1)}
        classes.setdefault(name.split("_")[0], []).append(entry)
    return json.dumps(classes)


@pytest.mark.parametrize("files", ["publisher", "release"])
def test_nwpu_images_lie_in_one_folder_or_in_one_a_class(source, prepared, files):
    if files == "publisher":
        for path in source.glob("*.txt"):
            path.unlink()
        (source / "dataset_nwpu.json").write_text(nwpu_json())
    one_folder = open_prepared("nwpu_captions", source, prepared)
    for name in TRAIN + TEST:
        folder = source / "images" / name.split("_")[0]
        folder.mkdir(exist_ok=True)
        (source / "images" / name).rename(folder / name)
    for opened in (one_folder, open_prepared("nwpu_captions", source, prepared / "of classes")):
        assert opened.sizes == {"train": 4, "test": 2}
        assert sorted(check_records(opened, source / "images")) == sorted(TRAIN + TEST)


def test_text_files_go_first_and_an_option_names_the_other(source, karpathy):
    (source / "dataset_rsicd.json").write_text(karpathy)
    (source / "other.json").write_text(karpathy)
    assert "validation" not in read_texts("rsicd", source)
    for name in ("dataset_rsicd.json", "other.json", str(source / "other.json")):
        assert "validation" in read_texts("rsicd", source, captions=name)


@pytest.mark.parametrize(
    ("folder", "captions", "sentence"),
    [
        ("", "", "There is no train_caps.txt with its companions, nor dataset_rsicd.json in "),
        ("", "a.json", "There is no a.json in "),
        ("nowhere", "", "There is no folder "),
        ("~nobody_of_that_name/rsicd", "", "There is no folder ~nobody_of_that_name/rsicd."),
    ],
)
def test_what_is_missing_is_named(pictures, monkeypatch, folder, captions, sentence):
    monkeypatch.chdir(pictures)
    assert refusal(read_texts, "rsicd", folder, captions=captions).startswith(sentence)


def test_the_image_folder_is_named(source, open_rsicd):
    assert "pictures" in refusal(open_rsicd, images="pictures")
    (source / "images").rename(source / "elsewhere")
    assert "RSICD_images" in refusal(open_rsicd)
    for images in ("elsewhere", str(source / "elsewhere")):
        assert open_rsicd(images=images).num_images == 6


def test_both_splits_must_be_there(pictures, karpathy):
    file = pictures / "dataset_rsicd.json"
    file.write_text(karpathy.replace('"test"', '"train"'))
    sentence = refusal(read_texts, "rsicd", pictures)
    assert sentence.endswith("dataset_rsicd.json lists no image of the test split.")
    file.write_text(karpathy.replace('"split"', '"part"'))
    assert "does not say which images" in refusal(read_texts, "rsicd", pictures)


def test_rsitmd_has_blank_captions(source):
    lines = captions_of(TRAIN)
    write_lines(source / "train_caps.txt", [*lines[:6], "", *lines[7:]])
    assert read_texts("rsitmd", source)["train"].captions[1][1] == ""
    for name, options in (("nwpu_captions", {}), ("rsitmd", {"blank_captions": False})):
        sentence = refusal(read_texts, name, source, **options)
        assert sentence.endswith("train_caps.txt, line 7: a caption is empty.")
    assert read_texts("rsicd", source, blank_captions=True)


def test_captions_are_read_without_any_image(source):
    (source / "images").rename(source / "elsewhere")
    texts = read_texts("rsicd", source, images="images")
    assert {split: of.file_names for split, of in texts.items()} == {"train": TRAIN, "test": TEST}
    assert texts["test"].captions == [captions_of([name]) for name in TEST]


def test_unknown_names_are_refused(source, open_rsicd):
    assert "no data set 'rsicdd', only " in refusal(read_texts, "rsicdd", source)
    assert "no option 'image'" in refusal(open_rsicd, image="x")
    assert "needs a source folder" in refusal(read_texts, "rsicd", None)


RELEASE = {"train": 9828, "test": 1093}


@pytest.mark.parametrize(
    ("sizes", "sentences"),
    [
        (Rsicd.OFFICIAL_SIZES, []),
        (RELEASE, []),
        (RELEASE | {"train": 9827}, ["the train split has 9827 images, the published one 9828"]),
        (
            Rsicd.OFFICIAL_SIZES | {"test": 1000},
            ["the test split has 1000 images, the published one 1093"],
        ),
    ],
)
def test_split_sizes_are_compared_with_the_published_ones(sizes, sentences):
    assert size_mismatches(Rsicd.OFFICIAL_SIZES, sizes) == sentences
    assert size_mismatches({}, sizes) == []  # of one's own data, nothing is published
