"""Published data sets: the same images and captions from whichever files a user has."""

import json

import pytest
from PIL import Image
from tiny_data_set import TEST, TRAIN, captions_of, write_lines

from input_pipeline.datasets import BUILDERS, open_prepared, read_texts
from input_pipeline.datasets.published import size_mismatches
from input_pipeline.datasets.rsicd import Rsicd
from input_pipeline.errors import DataError

JSON_FILES = {
    "rsicd": ("dataset_rsicd.json", "RSICD_images"),
    "rsitmd": ("dataset_RSITMD.json", "images"),
    "ucm_captions": ("dataset.json", "imgs"),
    "sydney_captions": ("dataset.json", "imgs"),
    "nwpu_captions": ("dataset_nwpu.json", "NWPU_images"),
}


def check_records(opened, folder):
    """Images and captions are those of their names; returns the names."""
    names = []
    for record in (record for records in opened.splits.values() for record in records):
        name = record["filename"].decode()
        (path,) = folder.rglob(name)
        assert record["image"] == path.read_bytes()
        assert [caption.decode() for caption in record["captions"]] == captions_of([name])
        names.append(name)
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


@pytest.mark.parametrize("layout", ["a folder a class", "one folder"])
@pytest.mark.parametrize("files", ["publisher", "release"])
def test_nwpu_images_lie_in_one_folder_or_in_one_a_class(source, prepared, files, layout):
    if files == "publisher":
        for path in source.glob("*.txt"):
            path.unlink()
        (source / "dataset_nwpu.json").write_text(nwpu_json())
    if layout == "a folder a class":
        for name in TRAIN + TEST:
            folder = source / "images" / name.split("_")[0]
            folder.mkdir(exist_ok=True)
            (source / "images" / name).rename(folder / name)
    opened = open_prepared("nwpu_captions", source, prepared)
    assert opened.sizes == {"train": 4, "test": 2}
    assert sorted(check_records(opened, source / "images")) == sorted(TRAIN + TEST)


def test_names_may_have_folders(source, open_rsicd):
    (source / "images" / "silo").mkdir()
    (source / "images" / "silo_1.png").rename(source / "images" / "silo" / "silo_1.png")
    write_lines(source / "train_filename.txt", ["silo/silo_1.png", *TRAIN[1:]])
    assert open_rsicd().splits["train"][0]["filename"] == b"silo/silo_1.png"


def test_text_files_go_first_and_an_option_names_the_other(source, karpathy):
    (source / "dataset_rsicd.json").write_text(karpathy)
    (source / "other.json").write_text(karpathy)
    assert "validation" not in read_texts("rsicd", source)
    for name in ("dataset_rsicd.json", "other.json"):
        assert "validation" in read_texts("rsicd", source, captions=name)


def test_what_is_missing_is_named(pictures, tmp_path):
    with pytest.raises(DataError, match=r"no train_caps.txt .*nor dataset_rsicd.json in .*source"):
        read_texts("rsicd", pictures)
    with pytest.raises(DataError, match=r"There is no a.json in .*source"):
        read_texts("rsicd", pictures, captions="a.json")
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        read_texts("rsicd", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"There is no folder .*nobody"):
        read_texts("rsicd", "~nobody_of_that_name/rsicd")


def test_the_image_folder_is_named(source, open_rsicd):
    with pytest.raises(DataError, match="pictures"):
        open_rsicd(images="pictures")
    (source / "images").rename(source / "elsewhere")
    with pytest.raises(DataError, match="RSICD_images"):
        open_rsicd()
    for images in ("elsewhere", str(source / "elsewhere")):
        assert open_rsicd(images=images).num_images == 6


def test_both_splits_must_be_there(pictures, karpathy):
    (pictures / "dataset_rsicd.json").write_text(karpathy.replace('"test"', '"train"'))
    with pytest.raises(DataError, match=r"dataset_rsicd.json lists no image of the test split"):
        read_texts("rsicd", pictures)
    fields = json.loads(karpathy)
    for image in fields["images"]:
        del image["split"]
    (pictures / "dataset_rsicd.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match="does not say which images"):
        read_texts("rsicd", pictures)


def test_rsitmd_has_blank_captions(source):
    lines = captions_of(TRAIN)
    write_lines(source / "train_caps.txt", [*lines[:6], "", *lines[7:]])
    assert read_texts("rsitmd", source)["train"].captions[1][1] == ""
    for name, options in (("nwpu_captions", {}), ("rsitmd", {"blank_captions": False})):
        with pytest.raises(DataError, match=r"train_caps.txt, line 7: a caption is empty"):
            read_texts(name, source, **options)
    assert read_texts("rsicd", source, blank_captions=True)


def test_captions_are_read_without_any_image(source):
    (source / "images").rename(source / "elsewhere")
    texts = read_texts("rsicd", source, images="images")
    assert {split: of.file_names for split, of in texts.items()} == {"train": TRAIN, "test": TEST}
    assert texts["test"].captions == [captions_of([name]) for name in TEST]


def test_unknown_names_are_refused(source, open_rsicd):
    with pytest.raises(DataError, match=r"no data set 'rsicdd', only .*rsicd"):
        read_texts("rsicdd", source)
    with pytest.raises(DataError, match="no option 'image'"):
        open_rsicd(image="x")
    with pytest.raises(DataError, match="needs a source folder"):
        read_texts("rsicd", None)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"train": 8734, "validation": 1094, "test": 1093}, []),
        ({"train": 9828, "test": 1093}, []),  # the release's files
        ({"train": 9827, "test": 1093}, ["train split has 9827 images, the published one 9828"]),
        (
            {"train": 8000, "validation": 1094, "test": 1000},
            ["train split has 8000 images, the published one 8734", "test split has 1000 images"],
        ),
    ],
)
def test_split_sizes_are_compared_with_the_published_ones(sizes, words):
    sentences = size_mismatches(Rsicd.OFFICIAL_SIZES, sizes)
    assert len(sentences) == len(words)
    assert all(word in sentence for word, sentence in zip(words, sentences, strict=True))
    assert size_mismatches({}, sizes) == []  # of one's own data, nothing is published


def test_published_sizes_add_up():
    totals = {name: sum(BUILDERS[name].OFFICIAL_SIZES.values()) for name in JSON_FILES}
    assert totals == {
        "rsicd": 10921,
        "rsitmd": 4743,
        "ucm_captions": 2100,
        "sydney_captions": 613,
        "nwpu_captions": 31500,
    }
