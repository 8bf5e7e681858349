"""`--mode=concepts`: from captions alone, with the choices of the config."""

import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from configs import rsicd
from input_pipeline.errors import DataError
from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import concepts

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Path(os.environ.get("KAMCL_REFERENCE_DATA", ROOT.parent / "shared" / "reference_data"))

CAPTIONS = [
    "the barn is near a pond. some barns are near the pond.",
    "a barn and the ponds",
    "a barn near the road",
    "a silo, a silo",
    "the barn",
]


@pytest.fixture
def config(tmp_path):
    """Five images with the captions above in turn, and no image file at all."""
    config = rsicd.get_config()
    config.data.dir = str(tmp_path)
    config.data.min_word_count = 1
    for split, images in (("train", 4), ("test", 1)):
        lines = [CAPTIONS[(image + k) % 5] for image in range(images) for k in range(5)]
        (tmp_path / f"{split}_caps.txt").write_text("\n".join(lines) + "\n")
        names = "".join(f"{split}_{image}.jpg\n" for image in range(images))
        (tmp_path / f"{split}_filename.txt").write_text(names)
    return config


def report(config, folder=None):
    concepts.report(config, folder)
    folder = folder or Path(config.data.dir) / "prepared" / "rsicd" / "concepts"
    return json.loads((folder / "concepts.json").read_text())


def test_concepts_are_counted(config, tmp_path, capsys):
    kept = report(config)
    # Three of the four images are trained on; each has the same five captions.
    assert kept["concepts"] == ["barn", "near", "pond", "silo"]
    assert kept["repeated_in_all"] == [12, 9, 6, 6]
    assert kept["images"] == [3, 3, 3, 3]
    assert kept["captions"] == [12, 6, 3, 3]
    assert kept["share_of_training_captions"] == 1
    printed = capsys.readouterr().out
    assert "4 concepts out of a vocabulary of" in printed
    assert "100.0% of the training captions name one" in printed
    out = tmp_path / "prepared" / "rsicd" / "concepts"
    labels = [json.loads(line) for line in (out / "labels.jsonl").open()]
    assert [line["filename"] for line in labels] == [f"train_{i}.jpg" for i in (0, 1, 2)]
    # The largest count is that of "the", five, though it is no concept.
    expected = {"barn": 0.8, "near": 0.6, "pond": 0.4, "silo": 0.4}
    assert labels[0]["concepts"] == pytest.approx(expected)
    assert "| barn " in (out / "concepts.md").read_text().replace("  ", " ")
    with Image.open(out / "concepts.png") as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_picture_has_the_concepts_that_most_captions_name_in_that_order(monkeypatch):
    monkeypatch.setattr(concepts, "DRAWN", 4)
    captions, images = np.array([3, 9, 1, 9, 5]), np.array([9, 2, 9, 4, 1])
    counts = SimpleNamespace(captions=captions, images=images)
    assert concepts.drawn_concepts(counts).tolist() == [3, 1, 4, 0]


def test_the_choices_of_the_paper_are_fields(config, tmp_path):
    def words_of(**changes):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
        return report(changed)["concepts"]

    assert words_of(num_concepts=2) == ["barn", "near"]
    assert words_of(**{"concepts.min_repeats": 4}) == ["barn"]
    everything = words_of(**{"concepts.stop_words": "none"})
    assert everything[:3] == ["the", "a", "barn"]
    (tmp_path / "stop.txt").write_text("barn\nthe\na\n")
    words = words_of(**{"concepts.stop_words": str(tmp_path / "stop.txt")})
    assert not {"barn", "the", "a"} & set(words)
    assert "near" in words
    pytest.importorskip("simplemma")
    # "barns" are barns: 5 of them in each of the three images, as many ponds as "near".
    assert words_of(**{"concepts.lemmatize": True}) == ["barn", "near", "pond", "silo"]
    config.concepts.lemmatize = True
    assert report(config)["repeated_in_all"] == [15, 9, 9, 6]


def test_mistakes_are_one_sentence(config, tmp_path):
    config.concepts.stop_words = "nowhere.txt"
    with pytest.raises(ConfigError, match=r"config\.concepts\.stop_words is 'nowhere\.txt'; .*No"):
        report(config, tmp_path / "out")
    config.concepts.stop_words = "english"
    (tmp_path / "train_caps.txt").unlink()
    with pytest.raises(DataError, match="train_caps"):
        report(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def released_files():
    """Data set -> its captions, released concepts and released words, where they are found."""
    originals = Path(os.environ.get("KAMCL_TORCH_CHECKOUT", "nowhere"))
    yield "rsicd", REFERENCE / "rsicd", "tag_vocab_512.json", REFERENCE / "rsicd" / "vocab.json"
    for name in ("rsicd", "rsitmd"):
        vocabulary = originals / "vocab" / f"{name}_splits_vocab.json"
        folder = originals / "data" / f"{name}_precomp"
        yield name, folder, "tags_label_th_1/tag_vocab_512.json", vocabulary


@pytest.mark.parametrize(("name", "folder", "concepts", "vocabulary"), released_files())
def test_the_released_concepts_and_words_are_found(name, folder, concepts, vocabulary, tmp_path):
    if not (folder / "train_caps.txt").is_file():
        pytest.skip(f"the comparison needs {folder}, for example of KAMCL_TORCH_CHECKOUT")
    config = importlib.import_module(f"configs.{name}").get_config("release")
    config.data.dir = str(folder)
    kept = report(config, tmp_path / "out")
    assert kept["concepts"] == json.loads((folder / concepts).read_text())
    words = json.loads((tmp_path / "out" / "vocabulary.json").read_text())["words"]
    ids = json.loads(vocabulary.read_text())["word2idx"]
    assert words == sorted(ids, key=ids.__getitem__)
