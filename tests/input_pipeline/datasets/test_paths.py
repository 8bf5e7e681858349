"""Where captions and images of one's own may lie, and how their names may be written."""

from refusals import refusal
from tiny_data_set import TEST, TRAIN

from input_pipeline import datasets

NAMES = [*TRAIN, *TEST]


def write_captions(path, names):
    path.write_text("filename,caption\n" + "".join(f"{name},a pond\n" for name in names))


def sizes(pictures, prepared, **options):
    return datasets.open_prepared("caption_folder", pictures, prepared, **options).sizes


def test_absolute_paths_may_name_images_in_the_image_folder(pictures, prepared):
    write_captions(pictures / "captions.csv", [pictures / "images" / name for name in NAMES])
    opened = datasets.open_prepared("caption_folder", pictures, prepared)
    texts = datasets.read_texts("caption_folder", pictures)
    assert texts == opened.texts()
    assert sorted(name for of in texts.values() for name in of.file_names) == sorted(NAMES)


def test_a_linked_image_folder_is_refused_with_the_option_that_names_it(
    pictures, prepared, tmp_path
):
    write_captions(pictures / "captions.csv", NAMES)
    elsewhere = tmp_path / "elsewhere"
    (pictures / "images").rename(elsewhere)
    (pictures / "images").symlink_to(elsewhere)
    sentence = refusal(sizes, pictures, prepared)
    assert f"write --config.data.options.images={elsewhere.resolve()}." in sentence
    assert sizes(pictures, prepared, images=str(elsewhere)) == {"train": 5, "test": 1}


def test_a_linked_caption_file_is_refused_with_the_option_that_names_it(
    pictures, prepared, karpathy, tmp_path
):
    elsewhere = tmp_path / "elsewhere.csv"
    write_captions(elsewhere, NAMES)
    (pictures / "captions.csv").symlink_to(elsewhere)
    sentence = refusal(sizes, pictures, prepared)
    assert f"write --config.data.options.captions={elsewhere.resolve()}." in sentence
    assert sizes(pictures, prepared, captions=str(elsewhere)) == {"train": 5, "test": 1}
    (tmp_path / "elsewhere.json").write_text(karpathy)
    texts = datasets.read_texts("rsicd", pictures, captions=str(tmp_path / "elsewhere.json"))
    assert set(texts) == {"train", "validation", "test"}


def test_names_that_would_be_found_if_written_otherwise_are_told(pictures, prepared):
    write_captions(pictures / "captions.csv", [f"images/{name}" for name in NAMES])
    count = f"{len(NAMES)} of the {len(NAMES)} missing images"
    first, *_, last = refusal(sizes, pictures, prepared).splitlines()
    assert first.startswith(f"{len(NAMES)} images of 'caption_folder'")
    assert last.strip() == f"{count} would be found without 'images/'."


def test_of_many_missing_images_the_first_are_listed(pictures, prepared):
    write_captions(pictures / "captions.csv", [*NAMES, *(f"{n}.png" for n in range(60))])
    lines = refusal(sizes, pictures, prepared).splitlines()
    assert lines[1] == "  0.png: missing"
    assert lines[20:] == ["  19.png: missing", "  and 40 more"]
    write_captions(pictures / "captions.csv", [*NAMES, "gone.png"])
    assert refusal(sizes, pictures, prepared).endswith(
        "missing; data.bad_images='skip' leaves it out."
    )
