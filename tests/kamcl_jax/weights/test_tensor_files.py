"""Files of weights in both formats: what is read and written, and how they are refused."""

import os
import pickle
import sys
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from kamcl_jax.errors import PretrainedError
from kamcl_jax.weights import tensor_files

TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.float32([0.5, -1]),
    "count": np.array(7, np.int64),
}


@pytest.fixture(params=[".safetensors", ".pth"])
def suffix(request):
    if request.param != ".safetensors":
        pytest.importorskip("torch")
    return request.param


def assert_same(tensors, expected=TENSORS):
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor, strict=True)


def refusal(path):
    """The sentence with which a file is refused."""
    with pytest.raises(PretrainedError) as error:
        tensor_files.read(path)
    message = str(error.value)
    assert path.name in message
    assert len(message.splitlines()) == 1
    return message


def test_what_is_written_is_read_and_replaced_as_a_whole_or_not_at_all(tmp_path, suffix):
    path = tmp_path / "new" / f"model{suffix}"
    columns_first = {**TENSORS, "weight": np.asfortranarray(TENSORS["weight"])}
    tensor_files.write(path, columns_first, epoch=12, score=41.25)
    stored = tensor_files.read(path)
    assert_same(stored.tensors)
    assert (stored.epoch, stored.score) == (12, 41.25)
    with path.open("rb") as old:
        contents = path.read_bytes()
        tensor_files.write(path, TENSORS, epoch=2, score=2.0)
        assert old.read() == contents, "who has the old file open must keep all of it"
    with pytest.raises(ValueError, match="could not convert"):
        tensor_files.write(path, TENSORS, epoch=3, score="no number")
    assert tensor_files.read(path).epoch == 2
    assert os.listdir(path.parent) == [path.name]


def test_short_floats_are_widened(tmp_path):
    path = tmp_path / "short.safetensors"
    short = {"a": np.float16([1.5, -2]), "b": np.array([0.25, 3], ml_dtypes.bfloat16)}
    save_file(short, path)
    stored = tensor_files.read(path)
    assert_same(stored.tensors, {k: v.astype("f4") for k, v in short.items()})
    assert (stored.epoch, stored.score) == (None, None)


def test_the_prefix_of_data_parallel_is_taken_off_when_all_names_have_it(tmp_path):
    path = tmp_path / "parallel.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in TENSORS.items()}, path)
    assert_same(tensor_files.read(path).tensors)
    mixed = {"module.weight": TENSORS["weight"], "bias": TENSORS["bias"]}
    save_file(mixed, path)
    assert_same(tensor_files.read(path).tensors, mixed)


@pytest.mark.parametrize("contents", [None, b"", b"<!DOCTYPE html>\n" * 9, "cut"])
def test_a_missing_or_damaged_file_is_named(tmp_path, suffix, contents):
    path = tmp_path / f"model{suffix}"
    if contents is None:
        with pytest.raises(FileNotFoundError, match=path.name):
            tensor_files.read(path)
        return
    tensor_files.write(path, TENSORS, epoch=1, score=1.0)
    path.write_bytes(path.read_bytes()[:-1] if contents == "cut" else contents)
    kind = "is no whole safetensors" if suffix == ".safetensors" else "is damaged, or no PyTorch"
    assert f"{path} {kind} file" in refusal(path)


def test_files_of_pytorch_need_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "new" / "model.pth.tar"
    assert refusal(path) == (
        f"{path} is in PyTorch's own format, which needs PyTorch (pip install torch); "
        "a .safetensors file does not"
    )
    with pytest.raises(PretrainedError, match=r"pip install torch"):
        tensor_files.write(path, TENSORS, epoch=1, score=1.0)
    assert not path.parent.exists()


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def as_torch(torch):
    return OrderedDict((n, torch.from_numpy(np.array(t))) for n, t in TENSORS.items())


@pytest.mark.filterwarnings("error")
def test_a_checkpoint_is_laid_out_as_the_releases(tmp_path, torch):
    path = tmp_path / "model.pth.tar"
    read_only = np.ones((2, 3), np.float32)
    read_only.flags.writeable = False
    tensor_files.write(path, {"weight": read_only, "bias": TENSORS["bias"]}, epoch=3, score=9.5)
    checkpoint = torch.load(path, weights_only=True)
    torch.nn.Linear(3, 2).load_state_dict(checkpoint.pop("model"), strict=True)
    others = {"epoch": 3, "arch": "baseline", "best_rsum": 9.5, "options": {}, "Eiters": 0}
    assert checkpoint == others


@pytest.mark.parametrize("score", [np.float64(43.5), np.float32(43.5), 43.5])
@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_a_checkpoint_of_the_release_is_read_whatever_its_score_is(tmp_path, torch, score, module):
    path = tmp_path / "KAMCL_best.pth.tar"
    options = {"model": {"name": "KAMCL", "lr": 2e-4, "layers": [1, None]}, "k_fold": True}
    checkpoint = {"epoch": 5, "arch": "baseline", "model": as_torch(torch), "best_rsum": score}
    torch.save({**checkpoint, "options": options, "Eiters": 0}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:  # as NumPy 2, or an older one, names its numbers
        for name, entry in entries.items():
            archive.writestr(name, entry.replace(b"numpy._core.multiarray", module))
    stored = tensor_files.read(path)
    assert_same(stored.tensors)
    assert (stored.epoch, stored.score) == (5, 43.5)


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_and_nested_state_dicts_are_read_in_either_format(tmp_path, torch, zipped):
    for number, stored in enumerate((as_torch(torch), {"state_dict": as_torch(torch)})):
        path = tmp_path / f"{number}.pt"
        torch.save(stored, path, _use_new_zipfile_serialization=zipped)
        assert_same(tensor_files.read(path).tensors)


def test_parameters_and_short_floats_become_f32(tmp_path, torch):
    path = tmp_path / "model.bin"
    parameter = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T)
    torch.save({"p": parameter, "b": torch.tensor([0.25, 3.0]).bfloat16()}, path)
    expected = {"p": np.float32([[1, 3], [2, 4]]), "b": np.float32([0.25, 3])}
    assert_same(tensor_files.read(path).tensors, expected)


class Malicious:
    """Unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_is_never_executed(tmp_path, torch, zipped):
    path, created = tmp_path / "model.pth", tmp_path / "created"
    stored = {"weight": Malicious(created)}
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "mkdir; only tensors are ever loaded" in message
    assert not created.exists()
    pickle.loads(pickle.dumps(stored))
    assert created.exists(), "the file above must be one that executes"


def test_other_entries_are_named(tmp_path, torch):
    path = tmp_path / "model.pth"
    torch.save([torch.ones(2)], path)
    assert refusal(path) == f"{path} holds a list, not a state_dict"
    torch.save({"weight": torch.ones(2), "epoch": 3}, path)
    assert refusal(path) == f"the entry epoch of {path} is no tensor but of type int"
    torch.save({}, path)
    assert refusal(path) == f"{path} holds no tensors"
