"""big_vision's files of SigLIP: what is read of them, and files that cannot be read."""

import random

import damaged_bytes
import ml_dtypes
import numpy as np
import pytest

from kamcl_jax.errors import PretrainedError
from kamcl_jax.weights.siglip import read_big_vision

STACKED = np.float32([[0.25, 3], [-1.5, 7]])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_layers_are_taken_apart_in_whatever_type_they_are_stored(dtype, tmp_path):
    arrays = {
        "params/t": np.array([2.5], dtype),
        "params/img/encoderblock/b": STACKED.astype(dtype),
    }
    np.savez(tmp_path / "weights.npz", **arrays)
    found = read_big_vision(tmp_path / "weights.npz")
    assert found.keys() == {"t", "img.encoderblock_0.b", "img.encoderblock_1.b"}
    np.testing.assert_array_equal(found["t"], [2.5])
    for number, row in enumerate(STACKED):
        np.testing.assert_array_equal(found[f"img.encoderblock_{number}.b"], row)
        assert found[f"img.encoderblock_{number}.b"].dtype.kind == "f"


def test_a_single_array_under_the_name_of_many_is_told(tmp_path):
    file = tmp_path / "weights.npz"
    with file.open("wb") as opened:
        np.save(opened, STACKED)
    with pytest.raises(PretrainedError, match=r"weights.npz is no whole file of NumPy arr"):
        read_big_vision(file)


def test_a_file_that_is_not_there_is_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_big_vision(tmp_path / "weights.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_told_or_read_whole(save, tmp_path):
    file, told = tmp_path / "weights.npz", 0
    save(file, **{"params/img/encoderblock/bias": STACKED})
    whole = file.read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        damage = draw.choice([damaged_bytes.cut, damaged_bytes.with_flipped_bits])
        file.write_bytes(damage(draw, whole))
        try:
            found = read_big_vision(file)
        except PretrainedError:
            told += 1
        else:
            np.testing.assert_array_equal([*found.values()], STACKED)
    assert told > 200
