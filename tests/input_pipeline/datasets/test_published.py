"""Published data sets: the same images and captions from whichever files a user has."""

import json

import pytest
from PIL import Image
from tiny_data_set import TEST, TRAIN, captions_of, write_lines

from input_pipeline import datasets
from input_pipeline.datasets import published
from input_pipeline.datasets.rsicd import Rsicd
from input_pipeline.errors import DataError

JSON_FILES = {
    "rsicd": ("dataset_rsicd.json", "RSICD_images"),
    "rsitmd": ("dataset_RSITMD.json", "images"),
    "ucm_captions": ("dataset.json", "imgs"),
    "sydney_captions": ("dataset.json", "imgs"),
    "nwpu_captions": ("dataset_nwpu.json", "NWPU_images"),
}


def records(opened):
    return [split[i] for split in opened.splits.values() for i in range(len(split))]


def check_records(opened, folder):
    for record in records(opened):
        name = record["filename"].decode()
        assert record["image"] == (folder / name).read_bytes()
        assert [caption.decode() for caption in record["captions"]] == captions_of([name])


@pytest.mark.parametrize("name", JSON_FILES)
def test_the_releases_files_are_read_in_order_with_the_images_copied_through(
    source, prepared, name
):
    opened = datasets.open_prepared(name, source, prepared)
    assert opened.sizes == {"train": 4, "test": 2}
    assert [record["image_id"] for record in records(opened)] == [0, 1, 2, 3, 4, 5]
    assert [record["filename"].decode() for record in records(opened)] == TRAIN + TEST
    assert opened.folder == prepared / name / opened.fingerprint
    check_records(opened, source / "images")


@pytest.mark.parametrize("name", ["rsicd", "rsitmd", "ucm_captions", "sydney_captions"])
def test_the_publishers_files_are_read_by_split(pictures, prepared, karpathy, name):
    file, folder = JSON_FILES[name]
    (pictures / file).write_text(karpathy)
    (pictures / "images").rename(pictures / folder)
    opened = datasets.open_prepared(name, pictures, prepared)
    assert opened.sizes == {"train": 3, "validation": 1, "test": 2}
    # An image's id is its place in the file, whatever its split.
    ids = {split: [record["image_id"] for record in of] for split, of in opened.splits.items()}
    assert ids == {"train": [0, 3, 4], "validation": [2], "test": [1, 5]}
    check_records(opened, pictures / folder)
    texts = opened.texts()
    assert texts["validation"].file_names == [TRAIN[1]]
    assert texts["validation"].captions == [captions_of([TRAIN[1]])]


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
        for split in ("train", "test"):
            (source / f"{split}_caps.txt").unlink()
            (source / f"{split}_filename.txt").unlink()
        (source / "dataset_nwpu.json").write_text(nwpu_json())
    if layout == "a folder a class":
        for name in TRAIN + TEST:
            folder = source / "images" / name.split("_")[0]
            folder.mkdir(exist_ok=True)
            (source / "images" / name).rename(folder / name)
    opened = datasets.open_prepared("nwpu_captions", source, prepared)
    assert opened.sizes == {"train": 4, "test": 2}
    colours = set()
    for split in opened.splits.values():
        for i in range(len(split)):
            name = split[i]["filename"].decode()
            assert [c.decode() for c in split[i]["captions"]] == captions_of([name])
            colours.add(split[i]["image"])
    assert len(colours) == 6


def test_names_may_have_folders(source, prepared):
    (source / "images" / "silo").mkdir()
    (source / "images" / "silo_1.png").rename(source / "images" / "silo" / "silo_1.png")
    write_lines(source / "train_filename.txt", ["silo/silo_1.png", *TRAIN[1:]])
    opened = datasets.open_prepared("rsicd", source, prepared)
    assert opened.splits["train"][0]["filename"] == b"silo/silo_1.png"


def test_text_files_go_first_and_an_option_names_the_other(source, prepared, karpathy):
    (source / "dataset_rsicd.json").write_text(karpathy)
    assert "validation" not in datasets.open_prepared("rsicd", source, prepared).sizes
    (source / "other.json").write_text(karpathy)
    for name in ("dataset_rsicd.json", "other.json"):
        opened = datasets.open_prepared("rsicd", source, prepared, captions=name)
        assert opened.sizes["validation"] == 1


def test_what_is_missing_is_named(pictures, prepared, tmp_path):
    with pytest.raises(DataError, match=r"no train_caps.txt .*nor dataset_rsicd.json in .*source"):
        datasets.open_prepared("rsicd", pictures, prepared)
    with pytest.raises(DataError, match=r"There is no a.json in .*source"):
        datasets.open_prepared("rsicd", pictures, prepared, captions="a.json")
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        datasets.open_prepared("rsicd", tmp_path / "nowhere", prepared)


def test_the_image_folder_is_named(source, prepared):
    with pytest.raises(DataError, match="pictures"):
        datasets.open_prepared("rsicd", source, prepared, images="pictures")
    (source / "images").rename(source / "elsewhere")
    with pytest.raises(DataError, match="RSICD_images"):
        datasets.open_prepared("rsicd", source, prepared)
    opened = datasets.open_prepared("rsicd", source, prepared, images="elsewhere")
    assert opened.num_images == 6
    absolute = str(source / "elsewhere")
    assert datasets.open_prepared("rsicd", source, prepared, images=absolute).num_images == 6


def test_both_splits_must_be_there(pictures, prepared, karpathy):
    (pictures / "dataset_rsicd.json").write_text(karpathy.replace('"test"', '"train"'))
    with pytest.raises(DataError, match=r"dataset_rsicd.json lists no image of the test split"):
        datasets.open_prepared("rsicd", pictures, prepared)
    fields = json.loads(karpathy)
    for image in fields["images"]:
        del image["split"]
    (pictures / "dataset_rsicd.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match="does not say which images"):
        datasets.open_prepared("rsicd", pictures, prepared)


def test_rsitmd_has_blank_captions(source, prepared):
    lines = captions_of(TRAIN)
    write_lines(source / "train_caps.txt", [*lines[:6], "", *lines[7:]])
    opened = datasets.open_prepared("rsitmd", source, prepared)
    assert opened.splits["train"][1]["captions"][1] == b""
    for name, options in (("nwpu_captions", {}), ("rsitmd", {"blank_captions": False})):
        with pytest.raises(DataError, match=r"train_caps.txt, line 7: a caption is empty"):
            datasets.open_prepared(name, source, prepared, **options)
    assert datasets.open_prepared("rsicd", source, prepared, blank_captions=True)


def test_captions_are_read_without_any_image(source):
    for path in (source / "images").iterdir():
        path.unlink()
    (source / "images").rmdir()
    texts = datasets.read_texts("rsicd", source, images="images")
    assert {split: of.file_names for split, of in texts.items()} == {"train": TRAIN, "test": TEST}
    assert texts["test"].captions == [captions_of([name]) for name in TEST]


def test_unknown_names_are_refused(source, prepared):
    with pytest.raises(DataError, match=r"no data set 'rsicdd', only .*rsicd"):
        datasets.open_prepared("rsicdd", source, prepared)
    with pytest.raises(DataError, match="no option 'image'"):
        datasets.open_prepared("rsicd", source, prepared, image="x")
    with pytest.raises(DataError, match="needs a source folder"):
        datasets.open_prepared("rsicd", None, prepared)


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
        ({"train": 8735, "validation": 1093, "test": 1093}, ["train", "validation split has 1093"]),
    ],
)
def test_split_sizes_are_compared_with_the_published_ones(sizes, words):
    sentences = published.size_mismatches(Rsicd.OFFICIAL_SIZES, sizes)
    assert len(sentences) == len(words)
    assert all(word in sentence for word, sentence in zip(words, sentences, strict=True))


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("rsicd", 10921),
        ("rsitmd", 4743),
        ("nwpu_captions", 31500),
        ("ucm_captions", 2100),
        ("sydney_captions", 613),
    ],
)
def test_published_sizes_add_up(name, total):
    assert sum(datasets.BUILDERS[name].OFFICIAL_SIZES.values()) == total


def test_nothing_is_published_of_ones_own_data():
    assert published.size_mismatches({}, {"train": 3, "test": 1}) == []


def test_an_image_that_decodes_is_copied_byte_by_byte(source, prepared):
    path = source / "images" / TRAIN[0]
    Image.open(path).convert("P").save(path)
    encoded = path.read_bytes()
    assert datasets.open_prepared("rsicd", source, prepared).splits["train"][0]["image"] == encoded
