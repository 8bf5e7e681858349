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
from published_weights import HIDDEN, LINES, WIDTH, encoder_arrays, random

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
    folder = tmp_path / "skip-thoughts"
    folder.mkdir()
    (folder / "dictionary.txt").write_text("".join(f"{w}\n" for w in LINES), "utf-8")
    np.save(folder / "utable.npy", random(len(LINES), WIDTH))
    history = np.array([Malicious(tmp_path / "created")], object)
    np.savez(folder / "uni_skip.npz", **encoder_arrays(), Wemb=np.ones(9), history_errs=history)
    return folder


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


@pytest.mark.parametrize(("python2", "width"), [(True, WIDTH), (True, 100), (False, WIDTH)])
def test_a_table_of_pickled_vectors_is_read_as_published(folder, python2, width):
    table = random(len(LINES), width)
    # Words of the vocabulary's expansion have [1, width].
    vectors = [row[None] if i % 3 else row for i, row in enumerate(table)]
    save_pickled(folder / "utable.npy", vectors, python2)
    if python2:
        stored = np.load(folder / "utable.npy", allow_pickle=True, encoding="latin1")
        np.testing.assert_array_equal(np.ravel(stored[1]), table[1])
    arrays = {**encoder_arrays(), "encoder_W": random(width, 10), "encoder_Wx": random(width, 5)}
    np.savez(folder / "uni_skip.npz", **arrays)
    params = read(folder, width=width)
    np.testing.assert_array_equal(params["embedding"][1:], table[[6, 4, 2, 3, 2]])


@pytest.mark.parametrize("python2", [True, False])
def test_a_pickled_table_is_never_executed(folder, tmp_path, python2):
    vectors = [*random(len(LINES) - 1, WIDTH), Malicious(tmp_path / "created")]
    save_pickled(folder / "utable.npy", vectors, python2)
    assert "utable.npy is no table of 6 f32 numbers a word" in refusal(folder)
    assert not (tmp_path / "created").exists()
    np.load(folder / "utable.npy", allow_pickle=True, encoding="latin1")
    assert (tmp_path / "created").exists(), "the file above must be one that executes"


@pytest.mark.parametrize(
    "vectors",
    [
        list(random(7, WIDTH).astype(np.float64)),
        list(random(7, WIDTH).view(np.int32)),
        list(random(7, WIDTH).astype(">f4")),
        list(random(7, WIDTH + 1)),
        [*random(6, WIDTH), np.ones(2)],
    ],
    ids=["f64", "i32", "big-endian", "width", "one width"],
)
def test_other_pickled_vectors_are_refused(folder, vectors):
    save_pickled(folder / "utable.npy", vectors)
    assert "utable.npy is no table of 6 f32 numbers a word" in refusal(folder)


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


def test_a_missing_file_is_told_with_where_to_get_it(folder):
    (folder / "utable.npy").unlink()
    sentence = (
        f"cannot read {folder / 'utable.npy'}: No such file or directory; download dictionary.txt, "
        f"utable.npy, uni_skip.npz from http://www.cs.toronto.edu/~rkiros/models/ into {folder}"
    )
    assert refusal(folder) == sentence
    with pytest.raises(PretrainedError, match="download"):
        skip_thoughts.check_files(folder)


@pytest.mark.parametrize("name", ["utable.npy", "uni_skip.npz"])
@pytest.mark.parametrize("pickled", [False, True])
def test_a_damaged_file_or_one_of_another_kind_is_named(folder, name, pickled):
    if pickled:
        save_pickled(folder / "utable.npy", list(random(len(LINES), WIDTH)))
    whole = (folder / name).read_bytes()
    for contents in (b"", whole[:40], whole[:-30], b"<!DOCTYPE html>\n" * 9):
        (folder / name).write_bytes(contents)
        assert f"{folder / name} is damaged, or no file of NumPy arrays" in refusal(folder)


def test_a_dictionary_that_does_not_fit_is_told(folder):
    dictionary, table = folder / "dictionary.txt", folder / "utable.npy"
    with dictionary.open("a") as file:
        file.write("one more\n\n")
    assert refusal(folder) == f"{dictionary} has 8 words, but {table} only 7 rows"
    dictionary.write_text("the\nsea\n")
    assert refusal(folder) == f"{dictionary} has no line UNK"


def test_a_table_of_another_width_is_refused(folder):
    np.save(folder / "utable.npy", random(len(LINES), WIDTH + 1))
    assert refusal(folder) == (
        f"{folder / 'utable.npy'} is no table of 6 f32 numbers a word "
        "(config.text_encoder.word_width)"
    )


def test_a_vector_that_is_not_finite_is_told_with_its_row_if_it_is_used(folder):
    table = random(len(LINES), WIDTH)
    table[0] = np.nan
    np.save(folder / "utable.npy", table)
    read(folder)
    table[4, 2] = np.inf
    np.save(folder / "utable.npy", table)
    assert f"row 4 of {folder / 'utable.npy'} holds values that are not finite" in refusal(folder)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (None, "{path} lacks the array encoder_Ux"),
        (np.ones((4, 5), "f"), "encoder_Ux of {path} has the shape [4, 5]; the config's model nee"),
        (np.full((5, 5), np.nan), "encoder_Ux of {path} holds values that are not finite"),
        (Malicious, "{path} is damaged, or no file of NumPy arrays"),
    ],
)
def test_an_array_of_the_gru_that_does_not_fit_is_named(folder, tmp_path, array, sentence):
    arrays = {**encoder_arrays(), "encoder_Ux": array}
    if array is None:
        del arrays["encoder_Ux"]
    elif array is Malicious:
        arrays["encoder_Ux"] = np.array([Malicious(tmp_path / "created")], object)
    np.savez(folder / "uni_skip.npz", **arrays)
    assert sentence.format(path=folder / "uni_skip.npz") in refusal(folder)
    assert not (tmp_path / "created").exists()
