"""The published skip-thoughts encoder (Kiros et al. 2015, "uni-skip") as a starting point."""

import pickletools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from kamcl_jax.errors import PretrainedError
from kamcl_jax.parallel import hosts
from kamcl_jax.weights.tensor_files import damage_told
from kamcl_jax.weights.torch_layout import Tree, checked_tensor

DICTIONARY, TABLE, ENCODER = FILES = ("dictionary.txt", "utable.npy", "uni_skip.npz")
"""The words, one a line; their vectors in the same order; the GRU."""

URL = "http://www.cs.toronto.edu/~rkiros/models/"
UNKNOWN = "UNK"


def check_files(folder: str | Path) -> None:
    """Checks that a folder has the three published files; it reads none of them."""
    for name in FILES:
        path = Path(folder) / name
        try:
            path.open("rb").close()
        except OSError as error:
            raise PretrainedError(
                f"cannot read {path}: {error.strerror}; download {', '.join(FILES)} from {URL} "
                f"into {folder}"
            ) from error


def skip_thoughts_params(folder: str | Path, words: Sequence[str], like: Tree) -> Tree:
    """Reads the parameters of `models.skip_thoughts.SkipThoughts`, f32 NumPy arrays.

    It prints how many of the words the published dictionary has; the others start from the vector
    of its `UNK`. Row 0 of the embedding, the padding, is zero.

    Args:
      folder: The folder with the files `FILES` of Kiros et al.
      words: The words of the vocabulary; word i has the embedding's row i + 1.
      like: The parameters, arrays or `jax.ShapeDtypeStruct`s: embedding [1 + words, D],
        input_kernel [3, D, H], input_bias [3, H], recurrent_kernel [3, H, H].
    """
    folder = Path(folder)
    check_files(folder)
    width, hidden = like["input_kernel"].shape[1:]
    return {
        "embedding": _embedding(folder, words, width),
        **_gru(folder / ENCODER, width, hidden),
    }


def _embedding(folder: Path, words: Sequence[str], width: int) -> np.ndarray:
    row_of, lines = _read_dictionary(folder / DICTIONARY, {*words, UNKNOWN})
    if UNKNOWN not in row_of:
        raise PretrainedError(f"{folder / DICTIONARY} has no line {UNKNOWN}")
    vectors = _read_table(folder / TABLE, set(row_of.values()), width, lines)
    known = sum(word in row_of for word in words)
    hosts.say(
        f"skip-thoughts knows {known} of {len(words)} words; "
        f"the other {len(words) - known} take its {UNKNOWN} vector"
    )
    of_words = [vectors[row_of.get(word, row_of[UNKNOWN])] for word in words]
    return np.stack([np.zeros(width, np.float32), *of_words])


def _read_dictionary(path: Path, wanted: Collection[str]) -> tuple[dict[str, int], int]:
    """Returns the rows of the wanted words (of a word's lines the last counts) and all lines."""
    row_of, lines = {}, 0
    with path.open("rb") as file:
        for row, line in enumerate(file):
            # A line that is not UTF-8 still counts: it moves the rows after it.
            word = line.decode("utf-8", errors="replace").strip()
            if word:
                lines = row + 1
            if word in wanted:
                row_of[word] = row
    return row_of, lines


def _read_table(
    path: Path, wanted: Collection[int], width: int, lines: int
) -> dict[int, np.ndarray]:
    """Returns row -> f32[width] for the wanted rows; the rest, gigabytes, is not kept in memory.

    The published file is a pickle of one vector a word; a plain array [words, width] will do, too.
    """
    with damage_told(path), path.open("rb") as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if shape and shape[0] < lines:
            raise PretrainedError(
                f"{path.parent / DICTIONARY} has {lines} words, but {path} only {shape[0]} rows"
            )
        read = _read_pickled if dtype.hasobject else _read_plain
        vectors = read(file, shape, wanted, width)
    if vectors is None:
        raise PretrainedError(
            f"{path} is no table of {width} f32 numbers a word (config.text_encoder.word_width)"
        )
    return {
        row: checked_tensor(f"row {row}", vector, (width,), str(path))
        for row, vector in vectors.items()
    }


def _read_plain(
    file: BinaryIO, shape: tuple[int, ...], wanted: Collection[int], width: int
) -> dict[int, np.ndarray] | None:
    if len(shape) != 2 or shape[1] != width:
        return None
    table = np.load(file.name, mmap_mode="r", allow_pickle=False)
    return {row: np.array(table[row]) for row in sorted(wanted)}


def _read_pickled(
    file: BinaryIO, shape: tuple[int, ...], wanted: Collection[int], width: int
) -> dict[int, np.ndarray] | None:
    """Finds vectors in a pickled array of f32 vectors ([width] or [1, width]) without unpickling.

    Unpickling would run whatever the file says and hold all of it in memory. Its instructions, read
    one by one, name each vector's bytes, the only strings that long.
    """
    vectors, types, count = {}, set(), 0
    for opcode, argument, _ in pickletools.genops(file):
        if not isinstance(argument, str | bytes):
            continue
        if len(argument) <= 2:
            types.add(argument)
        elif opcode.name.endswith(("STRING", "BYTES")) and len(argument) == 4 * width:
            if count in wanted:
                # `pickletools` shows the strings of Python 2 as Latin-1.
                data = argument.encode("latin-1") if isinstance(argument, str) else argument
                vectors[count] = np.frombuffer(data, "<f4")
            count += 1
    is_f32 = "f4" in types and ">" not in types
    return vectors if is_f32 and shape == (count,) else None


def _gru(path: Path, width: int, hidden: int) -> dict[str, np.ndarray]:
    """Returns the parameters besides the embedding; the file's other entries are not read."""
    params = {}
    with damage_told(path), np.load(path, allow_pickle=False) as file:
        for param, letter, inputs in (
            ("input_kernel", "W", (width,)),
            ("input_bias", "b", ()),
            ("recurrent_kernel", "U", (hidden,)),
        ):
            arrays = []
            for name, outputs in (
                (f"encoder_{letter}", 2 * hidden),
                (f"encoder_{letter}x", hidden),
            ):
                if name not in file.files:
                    raise PretrainedError(f"{path} lacks the array {name}")
                arrays.append(checked_tensor(name, file[name], (*inputs, outputs), str(path)))
            # In the order of `GATES`: reset and update, which the file has in one, and candidate.
            params[param] = np.stack([*np.split(arrays[0], 2, axis=-1), arrays[1]])
    return params
