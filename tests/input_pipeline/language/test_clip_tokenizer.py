"""CLIP's tokens, against a vocabulary of a few pieces, and against open_clip where it is there."""

import gzip
import json

import numpy as np
import pytest
from clip_vocabulary import END, IDS, START, write_own_file, write_tokenizer_json, write_vocab_json

from input_pipeline.errors import DataError
from input_pipeline.language.clip_tokenizer import ClipTokenizer, open_byte_pairs
from input_pipeline.language.vocabulary_files import find_clip_vocabulary

HOSTILE = [
    "",
    " \t\n ",
    "&amp;amp;lt;b&gt; &eacute; &#x1F600; &nbsp;x &#0; &#xD800; &bogus;",
    "\U0001f600\U0001f680 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "caf\u00c3\u00a9 \u00e2\u20ac\u0153quoted\u00e2\u20ac\x9d sch\u00c3\u00b6n",
    "a\x00b\x07c\x1b[31m d\x1ce\x85f\u2028g \u200b\ufeff",
    "a" * 500,
    "word " * 75,
    "word " * 76,
    "\u4e00\u5ea7\u673a\u573a \u98de\u673a\u3002 \u3072\u3089\u304c\u306a \ud55c\uad6d\uc5b4",
    "12345 3.14159 \u00bd \u00b2 \u2167 \u0661\u0662",
    "it's they're I'VE we'll I'd can't I'm '''s 's't o'clock don`t",
    "\u2019s \u2019re \u201cx\u201d \u02bcs",
    "'\u017f '\u017ft it'\u017f <\u017ftart_of_text>",  # a long s is an s where case is ignored
    "<start_of_text>",
    "a <START_OF_TEXT> b<end_of_text>c !<start_of_text>! 's<end_of_text><start_of_text>",
    "<|startoftext|> <|endoftext|> </w> a</w>b &lt;start_of_text&gt; <start_of_text",
    "\u0130stanbul \u1e9e \u00df \ufb01 \ufb06 \u01c4 e\u0301 \u212a \u212b",
    "\ud83d\ude00 \ud800",
    "http://x.y/?a=1&b=2#frag_underscored__ !!!???...---___***",
    "\U00010940\U000107bb letters of recent versions of Unicode",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return ClipTokenizer(open_byte_pairs(write_own_file(tmp_path_factory.mktemp("clip"))), 8)


@pytest.fixture(scope="module")
def real():
    try:
        return ClipTokenizer(open_byte_pairs(find_clip_vocabulary()))
    except DataError:
        pytest.skip("CLIP's vocabulary comes with open_clip_torch, which is not installed")


@pytest.mark.parametrize(
    ("caption", "pieces"),
    [
        ("The  PIER", ["the</w>", "pier</w>"]),
        ("a pit.", ["a</w>", "pi", "t</w>", ".</w>"]),
        ("path 42", ["p", "a", "t", "h</w>", "4</w>", "2</w>"]),
        ("pier's", ["pier</w>", "'", "s</w>"]),
        ("models", ["model", "s</w>"]),
        ("\u00e9", ["\u00c3", "\u00a9</w>"]),
        ("", []),
    ],
)
def test_a_caption_is_its_pieces_between_start_and_end(tiny, caption, pieces):
    tokens, lengths = tiny.encode([caption], multiple=8)
    assert (tokens.dtype, lengths.dtype) == (np.int32, np.int32)
    ids = [START, *(IDS[piece] for piece in pieces), END]
    assert lengths.tolist() == [len(ids)]
    assert tokens.tolist() == [ids + [0] * (8 - len(ids))]


def test_a_caption_that_is_too_long_ends_with_the_end_token(tiny):
    tokens, lengths = tiny.encode(["the " * 6, "the " * 7, "a" * 50])
    the = [START, *[IDS["the</w>"]] * 6, END]
    assert tokens.tolist() == [the, the, [START, *[IDS["a"]] * 6, END]]
    assert lengths.tolist() == [8, 8, 8]
    assert list(map(tiny.is_cut, ["", "the " * 6, "the " * 7, "a" * 50])) == [0, 0, 1, 1]


def test_a_name_of_start_or_end_in_a_caption_is_that_token(tiny):
    tokens, _ = tiny.encode(["<Start_of_text>a<end_of_text>"])
    assert tokens[0, :5].tolist() == [START, START, IDS["a</w>"], END, END]
    assert tiny.encode(["!<end_of_text>"])[0].tolist()[0].count(END) == 1  # at the last place


def test_all_files_of_a_vocabulary_are_one_tokenizer(tiny, tmp_path):
    files = [
        write_vocab_json(tmp_path),
        write_tokenizer_json(tmp_path),
        write_tokenizer_json(tmp_path, joined=True),
    ]
    for tokenizer in [ClipTokenizer(open_byte_pairs(file), 8) for file in files]:
        assert tokenizer.identity == tiny.identity
        for ours, theirs in zip(tokenizer.encode(HOSTILE), tiny.encode(HOSTILE), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_rows_are_as_long_as_the_longest_caption_rounded_up_to_what_fits(tiny):
    captions = ["pier", "the pier"]
    whole, lengths = tiny.encode(captions, multiple=8)
    for multiple, width in [(1, 4), (3, 6), (4, 4), (5, 5), (7, 7), (9, 8)]:
        tokens, same = tiny.encode(captions, multiple)
        np.testing.assert_array_equal(tokens, whole[:, :width])
        np.testing.assert_array_equal(same, lengths)
    assert tiny.encode([])[0].shape == (0, 0)


def test_what_is_written_is_the_same_tokenizer(tiny, tmp_path):
    tiny.write(tmp_path / "written")
    found = find_clip_vocabulary(tmp_path / "written")
    assert ClipTokenizer(open_byte_pairs(found), 8).identity == tiny.identity


def test_another_length_or_vocabulary_is_another_tokenizer(tiny, tmp_path):
    file = tmp_path / "other.txt.gz"
    file.write_bytes(gzip.compress(b"version\np i\ne r</w>"))
    others = [ClipTokenizer(tiny.byte_pairs, 9), ClipTokenizer(open_byte_pairs(file), 8)]
    assert len({tiny.identity, *(other.identity for other in others)}) == 3


def test_other_files_are_refused(tmp_path):
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"version\n" + b"a b\n" * 99)[:-20])
    for name, content in (("list.json", "[]"), ("text.json", '"a"')):
        (tmp_path / name).write_text(content)
    unigram = tmp_path / "tokenizer.json"
    unigram.write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    alone = write_vocab_json(tmp_path)
    (tmp_path / "merges.txt").unlink()
    for file, said in [
        (cut, "EOFError"),
        (unigram, "another model"),
        (tmp_path / "list.json", "no JSON object"),
        (tmp_path / "text.json", "no JSON object"),
        (alone, "merges.txt"),
        (tmp_path / "missing.json", "No such file"),
    ]:
        with pytest.raises(DataError, match=rf"(?s){file.name}.*{said}"):
            open_byte_pairs(file)


@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("A large airport with many planes .", [320, 3638, 3259, 593, 1346, 12581, 269]),
        (
            "There's a baseball field &amp; 2 tennis courts, isn't it?",
            [997, 568, 320, 3470, 1570, 261, 273, 5298, 13514, 267, 2923, 713, 585, 286],
        ),
    ],
)
def test_tokens_of_clip_itself(real, caption, ids):
    tokens, [length] = real.encode([caption], multiple=77)
    assert tokens.shape == (1, 77)
    assert tokens[0, :length].tolist() == [49406, *ids, 49407]


@pytest.mark.parametrize("context_length", [77, 5])
def test_hostile_captions_as_open_clip(real, context_length):
    open_clip = pytest.importorskip("open_clip")
    tokenizer = ClipTokenizer(real.byte_pairs, context_length)
    theirs = open_clip.SimpleTokenizer(context_length=context_length)
    tokens, lengths = tokenizer.encode(HOSTILE, context_length)
    np.testing.assert_array_equal(tokens, theirs(HOSTILE).numpy())
    needed = [len(theirs.encode(caption)) + 2 for caption in HOSTILE]
    assert lengths.tolist() == [min(length, context_length) for length in needed]
    assert list(map(tokenizer.is_cut, HOSTILE)) == [length > context_length for length in needed]
