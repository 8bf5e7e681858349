"""The published skip-thoughts files, made small: words to rows, arrays to gates, and refusals."""

import os
import pickle
import tracemalloc
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib import format as npy
from published_weights import (
    HIDDEN,
    LINES,
    WIDTH,
    encoder_arrays,
    random,
    write_skip_thoughts,
)

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.skip_thoughts import SkipThoughts
from kamcl_jax.weights import skip_thoughts
from kamcl_jax.weights.skip_thoughts import skip_thoughts_params

WORDS = ["runway", "sea", "heliport", "caf\u00e9", "<unk>"]
ROWS = len(WORDS) + 1


def like(rows=ROWS, width=WIDTH, hidden=HIDDEN):
    module = SkipThoughts(rows, width, hidden)
    tokens, lengths = jnp.ones((1, 2), jnp.int32), jnp.ones(1, jnp.int32)
    key = jax.random.key(0)
    return jax.eval_shape(lambda: module.init(key, tokens, lengths, train=False))["params"]


class Malicious:
    """Unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def folder(tmp_path):
    """The three files; what else the encoder's holds must not be touched."""
    history = np.array([Malicious(tmp_path / "created")], object)
    return write_skip_thoughts(tmp_path / "skip-thoughts", Wemb=np.ones(9), history_errs=history)


def read(folder, **sizes):
    return skip_thoughts_params(folder, WORDS, like(**sizes))


def refusal(folder, **sizes):
    with pytest.raises(PretrainedError) as error:
        read(folder, **sizes)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_words_take_their_rows_and_unknown_ones_that_of_unk(folder, tmp_path, capsys):
    params = read(folder)
    table = np.load(folder / "utable.npy")
    # Of the two lines of "sea" the last counts.
    np.testing.assert_array_equal(params["embedding"][1:], table[[6, 4, 2, 3, 2]])
    assert not params["embedding"][0].any()
    printed = "skip-thoughts knows 3 of 5 words; the other 2 take its UNK vector\n"
    assert capsys.readouterr().out == printed
    assert not (tmp_path / "created").exists()
    jax.tree.map(lambda a, b: a.shape == b.shape or pytest.fail(f"{a} {b}"), params, like())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def test_the_gru_computes_what_kiros_equations_do(folder):
    p = {name: array.astype(np.float64) for name, array in encoder_arrays().items()}
    params = read(folder)
    tokens = np.array([[2, 1, 4], [3, 5, 0]], np.int32)
    lengths = np.array([3, 2], np.int32)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def states(words):
        h = np.zeros(HIDDEN)
        for x in words:
            gates = sigmoid(x @ p["encoder_W"] + p["encoder_b"] + h @ p["encoder_U"])
            reset, update = gates[:HIDDEN], gates[HIDDEN:]
            inputs = x @ p["encoder_Wx"] + p["encoder_bx"]
            h = update * h + (1 - update) * np.tanh(inputs + reset * (h @ p["encoder_Ux"]))
            yield h

    ours = SkipThoughts(ROWS, WIDTH, HIDDEN).apply({"params": params}, tokens, lengths, train=False)
    for caption in range(2):
        words = params["embedding"][tokens[caption, : lengths[caption]]]
        expected = np.stack(list(states(words)))
        np.testing.assert_allclose(ours[caption, : lengths[caption]], expected, atol=1e-6)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as the strings of Python 2, as in the published table."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        size = len(value)
        opcode = b"T" + size.to_bytes(4, "little") if size > 255 else b"U" + bytes([size])
        self.write(opcode + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def save_pickled(path, vectors, python2=True):
    array = np.empty(len(vectors), object)
    array[:] = vectors
    if not python2:
        np.save(path, array, allow_pickle=True)
        return
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
        Python2Pickler(file, protocol=2).dump(array)


@pytest.mark.parametrize("python2", [True, False])
@pytest.mark.parametrize("width", [WIDTH, 100])  # short strings and long ones in the pickle
def test_a_table_of_pickled_vectors_is_read_as_published(folder, python2, width):
    table = random(len(LINES), width)
    # Words of the vocabulary's expansion have [1, width].
    save_pickled(
        folder / "utable.npy", [row[None] if i % 3 else row for i, row in enumerate(table)], python2
    )
    arrays = {**encoder_arrays(), "encoder_W": random(width, 10), "encoder_Wx": random(width, 5)}
    np.savez(folder / "uni_skip.npz", **arrays)
    params = read(folder, width=width)
    np.testing.assert_array_equal(params["embedding"][1:], table[[6, 4, 2, 3, 2]])


def test_a_pickled_table_is_never_executed(folder, tmp_path):
    vectors = [*random(len(LINES) - 1, WIDTH), Malicious(tmp_path / "created")]
    save_pickled(folder / "utable.npy", vectors)
    assert "utable.npy is no table of 6 f32 numbers a word" in refusal(folder)
    assert not (tmp_path / "created").exists()
    np.load(folder / "utable.npy", allow_pickle=True, encoding="latin1")
    assert (tmp_path / "created").exists(), "the file above must be one that executes"


def test_a_line_that_is_not_utf8_keeps_its_row(folder):
    path = folder / "dictionary.txt"
    path.write_bytes(path.read_bytes().replace(b"the\n", b"caf\xe9\x85 \xff\n"))
    table = np.load(folder / "utable.npy")
    np.testing.assert_array_equal(read(folder)["embedding"][1], table[6])


@pytest.mark.parametrize("pickled", [False, True])
def test_a_large_table_is_not_held_in_memory(folder, pickled):
    rows, width = 20_000 if pickled else 300_000, 620
    if pickled:
        save_pickled(folder / "utable.npy", list(np.zeros((rows, width), np.float32)))
    else:
        # Sparse: only the rows that are written take space on the disk.
        table = npy.open_memmap(folder / "utable.npy", "w+", np.float32, (rows, width))
        table[rows - 1] = 3
        del table
    lines = [*("x" for _ in range(rows - 2)), "UNK", "runway"]
    (folder / "dictionary.txt").write_text("\n".join(lines))
    tracemalloc.start()
    embedding = skip_thoughts._embedding(folder, WORDS, width)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6  # of 744 MB, or of 50
    np.testing.assert_array_equal(embedding[1], np.full(width, 0 if pickled else 3))


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


SINGULAR = np.full((len(LINES), WIDTH), np.inf, np.float32)
NO_TABLE = "{}/utable.npy is no table of 6 f32 numbers a word (config.text_encoder.word_width)"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "utable.npy").unlink(), "cannot read {}/utable.npy: No such file or dir"),
        (lambda f: cut(f / "utable.npy"), "{}/utable.npy is no whole file of NumPy arrays"),
        (lambda f: cut(f / "uni_skip.npz"), "{}/uni_skip.npz is no whole file of NumPy arr"),
        (lambda f: (f / "dictionary.txt").write_text("sea\n"), "{}/dictionary.txt has no line UNK"),
        (
            lambda f: np.save(f / "utable.npy", random(3, WIDTH)),
            "{}/dictionary.txt has 7 words, but {}/utable.npy only 3 rows",
        ),
        (lambda f: np.save(f / "utable.npy", random(7, WIDTH + 1)), NO_TABLE),
        (lambda f: save_pickled(f / "utable.npy", list(random(7, WIDTH).astype("f8"))), NO_TABLE),
        (
            lambda f: np.save(f / "utable.npy", SINGULAR),
            "of {}/utable.npy holds values that are no",
        ),
        (lambda f: np.savez(f / "uni_skip.npz"), "{}/uni_skip.npz lacks the array encoder_W"),
        (
            lambda f: np.savez(f / "uni_skip.npz", encoder_W=np.ones((4, 10), "f")),
            "encoder_W of {}/uni_skip.npz has the shape [4, 10]; the model needs [6, 10]",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_named(folder, damage, sentence):
    damage(folder)
    assert sentence.replace("{}", str(folder)) in refusal(folder)
