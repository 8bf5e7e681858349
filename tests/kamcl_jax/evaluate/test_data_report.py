"""`--mode=prepare` says what is in a data set; tested on one made to have everything."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from configs import caption_folder
from input_pipeline.errors import DataError
from kamcl_jax.evaluate import concepts, data_report

CAPTIONS = {
    "a.png": ["a pond by a pond .", "a  pond by a pond .", "a barn"],
    "b.png": ["a barn", "the barn near a barn. some roads ."],
    "c.png": ["a road and a road and a road and a road"],
    "d.png": ["a barn", "a long road by a barn"],
}
SPLITS = {"a.png": "train", "b.png": "train", "c.png": "val", "d.png": "test"}


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "own"
    (folder / "images").mkdir(parents=True)
    with (folder / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "caption", "split"])
        for name, captions in CAPTIONS.items():
            Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "images" / name)
            table.writerows([name, caption, SPLITS[name]] for caption in captions)
    config = caption_folder.get_config()
    config.data.dir = str(folder)
    config.image_size = 8
    config.data.min_word_count = 1
    return config


def test_what_was_found_is_printed_and_kept(config, capsys, tmp_path):
    unused = [f"{name}.png" for name in "efgh"]
    for name in unused:
        (tmp_path / "own" / "images" / name).touch()
    data_report.prepare(config)
    printed = capsys.readouterr().out
    (path,) = (tmp_path / "own").rglob("findings.json")
    kept = json.loads(path.read_text())
    train, everything = kept["splits"]["train"], kept["splits"]["all"]
    assert (train["images"], train["captions"], train["fewest"], train["most"]) == (2, 5, 2, 3)
    assert train["repeated_within"] == 1
    # "a barn" is a caption of a.png and b.png; in all splits of d.png too.
    assert (train["shared_texts"], train["shared_captions"]) == (1, 2)
    assert (everything["shared_texts"], everything["shared_captions"]) == (1, 3)
    assert sum(count for _, _, count in everything["token_lengths"]) == 8
    assert (kept["trained_images"], kept["validation_images"]) == (2, 1)
    assert kept["concepts"] == 2  # barn, pond
    assert kept["left_out"] == []
    assert kept["without_caption"] == unused
    assert "| train      |      2 |        5 |            2 to 3 |" in printed
    assert "missing or unreadable images: none" in printed
    assert "4 images without a caption, not used (e.png, f.png, g.png, ...)" in printed
    assert "concepts: 2, named by 100.0%" in printed


def test_sizes_that_are_not_the_published_ones_are_refused_if_asked(config):
    config.data.name = "rsicd"
    config.data.options = {"captions": "captions.json"}
    images = [
        {"filename": name, "split": SPLITS[name], "sentences": [{"raw": c} for c in captions]}
        for name, captions in CAPTIONS.items()
    ]
    with open(f"{config.data.dir}/captions.json", "w") as file:
        json.dump({"images": images}, file)
    config.data.split_sizes = "require"
    with pytest.raises(DataError, match="the published one 8734"):
        data_report.prepare(config)


def test_concepts_are_those_of_the_images_that_are_trained_on(config, tmp_path):
    (tmp_path / "own" / "images" / "a.png").unlink()
    concepts.report(config, tmp_path / "all")
    config.data.bad_images = "skip"
    concepts.report(config, tmp_path / "some")
    words = [
        json.loads((tmp_path / folder / "concepts.json").read_text())["concepts"]
        for folder in ("all", "some")
    ]
    assert words == [["pond", "barn"], ["barn"]]
