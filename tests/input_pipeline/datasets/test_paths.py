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
    whole = [pictures / "images" / name for name in NAMES]
    write_captions(pictures / "captions.csv", [*whole, *NAMES])
    opened = datasets.open_prepared("caption_folder", pictures, prepared)
    texts = datasets.read_texts("caption_folder", pictures)
    assert texts == opened.texts()
    assert sorted(name for of in texts.values() for name in of.file_names) == sorted(NAMES)
    assert texts["test"].captions == [["a pond", "a pond"]]


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


def test_images_that_are_missing_are_listed_with_the_names_that_would_be_found(pictures, prepared):
    wrong = [f"images/{name}" for name in NAMES]
    write_captions(pictures / "captions.csv", [*wrong, *(f"{n}.png" for n in range(60))])
    first, *lines = refusal(sizes, pictures, prepared).splitlines()
    assert first.startswith("66 images of 'caption_folder'")
    assert lines[0] == f"  {wrong[0]}: missing"
    assert lines[19] == "  13.png: missing"
    advice = "6 of the 66 missing images would be found without 'images/'."
    assert lines[20:] == ["  and 46 more", f"  {advice}"]
