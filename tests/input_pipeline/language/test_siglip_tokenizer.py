"""SigLIP's tokens, against a vocabulary of a few pieces, and against transformers and open_clip.

No real vocabulary can be part of the project, so those libraries read one that is trained here.
"""

import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from input_pipeline.errors import DataError
from input_pipeline.language.siglip_tokenizer import SiglipTokenizer, open_pieces
from input_pipeline.language.vocabulary_files import find_siglip_vocabulary

PIECES = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581a", "\u2581pier", "pi", "er", "s", ",", "_"]
IDS = {piece: index for index, piece in enumerate(PIECES)}
CAPTIONS = [
    "Two long piers, many boats and a small harbor .",
    "a baseball field is near some green trees",
    "There's a T-shaped pier!  (It is white.)",
    "many planes are parked next to a long terminal building in an airport " * 4,
    "A \u00c9cole \u5b66\u6821 123 & more",
    "",
    "  ",
    ".",
]


def write_tokenizer_json(folder):
    scores = [0, 0, 0, -3, -1, -1, -2, -2, -2, -2, -2]
    pieces = [(piece, float(score)) for piece, score in zip(PIECES, scores, strict=True)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(PIECES[:3])
    tokenizer.enable_truncation(3)  # a file may say so, and padding, too: neither is SigLIP's
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return open_pieces(write_tokenizer_json(tmp_path_factory.mktemp("siglip")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sentencepiece file, trained on a few captions as that of SigLIP was on the web."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentencepiece")
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS[:4] * 5),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )
    return folder / "spiece.model"


@pytest.mark.parametrize(
    ("clean", "caption", "pieces"),
    [
        (
            "canonicalize",
            "A  Pier, piers_ a.",
            ["\u2581a", "\u2581pier", "\u2581pier", "s", "\u2581a"],
        ),
        ("canonicalize", "pi\u00df</s>", ["\u2581", "pi", "<unk>", "s"]),
        ("canonicalize", " ", []),
        ("lower", "Pier, a_", ["\u2581pier", ",", "\u2581a", "_"]),
    ],
)
def test_a_caption_is_its_pieces_and_ends(tiny, clean, caption, pieces):
    tokens, lengths = SiglipTokenizer(tiny, 8, clean).encode([caption])
    assert (tokens.dtype, lengths.dtype) == (np.int32, np.int32)
    ids = [IDS[piece] for piece in pieces]
    assert tokens.tolist() == [ids + [IDS["</s>"]] * (8 - len(ids))]
    assert lengths.tolist() == [len(ids) + 1]


def test_a_caption_that_is_too_long_ends_with_the_end_token(tiny):
    tokenizer = SiglipTokenizer(tiny, 4)
    tokens, lengths = tokenizer.encode(["a a a", "a a a a"])
    assert tokens.tolist() == [[4, 4, 4, 1], [4, 4, 4, 1]]
    assert lengths.tolist() == [4, 4]
    assert list(map(tokenizer.is_cut, ["", "a a a", "a a a a"])) == [False, False, True]


def test_whatever_changes_tokens_changes_the_identity(tiny, tmp_path):
    file = write_tokenizer_json(tmp_path)
    file.write_text(file.read_text().replace("pier", "port"))
    made = [
        SiglipTokenizer(tiny),
        SiglipTokenizer(tiny, 16),
        SiglipTokenizer(tiny, clean="lower"),
        SiglipTokenizer(open_pieces(file)),
    ]
    assert len({tokenizer.identity for tokenizer in made}) == 4


def test_other_files_are_refused(tmp_path):
    bpe = tmp_path / "bpe.json"
    Tokenizer(models.BPE({"</s>": 0}, [])).save(str(bpe))
    endless = tmp_path / "endless.json"
    Tokenizer(models.Unigram([("a", -1.0)])).save(str(endless))
    damaged = tmp_path / "damaged.json"
    damaged.write_text(bpe.read_text()[:-9])
    missing = tmp_path / "missing.json"
    sentences = ["another model", "another model", "Cannot instantiate", "No such file"]
    for file, said in zip([bpe, endless, damaged, missing], sentences, strict=True):
        with pytest.raises(DataError, match=rf"(?s){file.name}.*{said}"):
            open_pieces(file)


def test_a_sentencepiece_file_asks_for_its_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    file = tmp_path / "spiece.model"
    file.touch()
    with pytest.raises(DataError, match=r"spiece\.model' needs .*pip install sentencepiece"):
        open_pieces(file)


def test_a_damaged_sentencepiece_file_is_refused(trained, tmp_path):
    damaged = tmp_path / "damaged.model"
    damaged.write_bytes(trained.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"damaged\.model"):
        open_pieces(damaged)


def test_a_sentencepiece_file_as_transformers(trained):
    transformers = pytest.importorskip("transformers")
    reference = transformers.SiglipTokenizer(str(trained))
    rows = reference(CAPTIONS, padding="max_length", truncation=True, max_length=64).input_ids
    tokens, _ = SiglipTokenizer(open_pieces(trained)).encode(CAPTIONS)
    np.testing.assert_array_equal(tokens, rows)


def test_a_tokenizer_json_as_open_clip_and_as_its_sentencepiece_file(trained, tmp_path):
    open_clip, transformers = map(pytest.importorskip, ("open_clip", "transformers"))
    transformers.T5TokenizerFast.from_pretrained(
        str(trained.parent), vocab_file=str(trained), extra_ids=0, legacy=False, pad_token="</s>"
    ).save_pretrained(tmp_path)
    reference = open_clip.tokenizer.HFTokenizer(str(tmp_path), 64, clean="canonicalize")
    captions = [*CAPTIONS, "a high_rise &amp; a caf\u00c3\u00a9 </s> pier"]
    for file in (tmp_path / "tokenizer.json", trained):
        tokens, _ = SiglipTokenizer(open_pieces(file)).encode(captions)
        np.testing.assert_array_equal(tokens, reference(captions).numpy())


def test_what_is_written_is_the_same_tokenizer(tiny, tmp_path):
    made = SiglipTokenizer(tiny, 8, "lower")
    made.write(tmp_path / "written")
    found = find_siglip_vocabulary(tmp_path / "written")
    assert SiglipTokenizer(open_pieces(found), 8, "lower").identity == made.identity


def test_a_row_has_all_places_as_siglip_sees_the_padding(tiny):
    for multiple in (1, 5, 16):
        assert SiglipTokenizer(tiny, 8).encode(["a"], multiple)[0].shape == (1, 8)
