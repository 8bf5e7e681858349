import sys

import pytest

from input_pipeline.errors import DataError
from input_pipeline.language import vocabulary_files
from input_pipeline.language.vocabulary_files import find_clip_vocabulary, find_siglip_vocabulary

OWN = "bpe_simple_vocab_16e6.txt.gz"


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def without_open_clip(monkeypatch):
    monkeypatch.setattr(vocabulary_files, "find_spec", lambda name: None)


def test_what_is_named_comes_first_then_beside_the_weights(tmp_path, without_open_clip):
    weights = touch(tmp_path / "weights", "RemoteCLIP.pt") / "RemoteCLIP.pt"
    named = touch(tmp_path / "named", OWN, "mine.json")
    touch(weights.parent, "vocab.json")  # which is half of one
    with pytest.raises(DataError, match="no vocabulary of CLIP beside"):
        find_clip_vocabulary(weights)
    touch(weights.parent, "merges.txt")
    for place in (weights, weights.parent):
        assert find_clip_vocabulary(place) == weights.parent / "vocab.json"
        assert find_clip_vocabulary(place, named) == named / OWN
        assert find_clip_vocabulary(place, named / "mine.json") == named / "mine.json"


def test_siglip_s_files(tmp_path):
    weights = touch(tmp_path, "model.safetensors", "spiece.model") / "model.safetensors"
    assert find_siglip_vocabulary(weights) == tmp_path / "spiece.model"
    touch(tmp_path, "tokenizer.json")
    assert find_siglip_vocabulary(weights) == tmp_path / "tokenizer.json"


def test_open_clip_is_found_without_an_import(tmp_path, monkeypatch):
    package = touch(tmp_path / "open_clip", OWN)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    assert find_clip_vocabulary(tmp_path / "weights.pt") == package / OWN


def test_none_is_said_in_one_sentence(tmp_path, without_open_clip):
    with pytest.raises(
        DataError, match=r"beside '.*weights.pt': put .*pip install --no-deps open_"
    ):
        find_clip_vocabulary(tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"beside the weights: put .*spiece\.model"):
        find_siglip_vocabulary()
    for find in (find_clip_vocabulary, find_siglip_vocabulary):
        with pytest.raises(DataError, match=r"no vocabulary at '.*elsewhere'"):
            find(tmp_path / "weights.pt", tmp_path / "elsewhere")
