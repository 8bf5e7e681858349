"""Files of weights in both formats: what is read and written, and every way to be refused."""

import os
import pickle
import re
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


def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / "new" / f"model{suffix}"
    columns_first = {**TENSORS, "weight": np.asfortranarray(TENSORS["weight"])}
    tensor_files.write(path, columns_first, epoch=12, score=41.25)
    stored = tensor_files.read(path)
    assert_same(stored.tensors)
    assert (stored.epoch, stored.score) == (12, 41.25)
    assert os.listdir(path.parent) == [path.name]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    tensor_files.write(path, TENSORS, epoch=1, score=1.0)
    with path.open("rb") as old:
        contents = path.read_bytes()
        tensor_files.write(path, TENSORS, epoch=2, score=2.0)
        assert old.read() == contents, "who has the old file open must keep all of it"
    with pytest.raises(ValueError, match="could not convert"):
        tensor_files.write(path, TENSORS, epoch=3, score="no number")
    assert tensor_files.read(path).epoch == 2
    assert os.listdir(tmp_path) == [path.name]


def test_where_no_file_can_be_written_is_told_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PretrainedError, match=r"cannot write .*a.safetensors: no permission in "):
        tensor_files.check_writable(tmp_path / "file" / "a.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(PretrainedError, match=r"cannot write .*folder.safetensors: it is a folder"):
        tensor_files.check_writable(tmp_path / "folder.safetensors")
    tensor_files.check_writable(tmp_path / "new" / "a.safetensors")


def test_a_file_without_a_record_has_neither_epoch_nor_score(tmp_path):
    save_file(TENSORS, tmp_path / "plain.safetensors")
    stored = tensor_files.read(tmp_path / "plain.safetensors")
    assert (stored.epoch, stored.score) == (None, None)
    assert_same(stored.tensors)


def test_short_floats_are_widened(tmp_path):
    path = tmp_path / "short.safetensors"
    short = {"a": np.float16([1.5, -2]), "b": np.array([0.25, 3], ml_dtypes.bfloat16)}
    save_file(short, path)
    assert_same(tensor_files.read(path).tensors, {k: v.astype("f4") for k, v in short.items()})


def test_the_prefix_of_data_parallel_is_taken_off_when_all_names_have_it(tmp_path):
    path = tmp_path / "parallel.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in TENSORS.items()}, path)
    assert_same(tensor_files.read(path).tensors)
    mixed = {"module.weight": TENSORS["weight"], "bias": TENSORS["bias"]}
    save_file(mixed, path)
    assert_same(tensor_files.read(path).tensors, mixed)


def test_a_missing_file_and_a_folder_are_named(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    assert refusal(path) == f"cannot read {path}: No such file or directory"
    path.mkdir()
    assert refusal(path) == f"cannot read {path}: Is a directory"


def test_a_damaged_or_empty_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    tensor_files.write(path, TENSORS, epoch=1, score=1.0)
    whole = path.read_bytes()
    for contents in (b"", whole[:4], whole[:20], whole[:-3], b"<!DOCTYPE html>\n" * 9):
        path.write_bytes(contents)
        assert "is no whole safetensors file" in refusal(path)
    save_file({}, path)
    assert refusal(path) == f"{path} holds no tensors"


def test_without_pytorch_its_files_are_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "model.pth.tar"
    path.write_bytes(b"anything")
    sentence = (
        f"{path} is in PyTorch's own format, which needs PyTorch (pip install torch); "
        "a .safetensors file does not"
    )
    assert refusal(path) == sentence
    with pytest.raises(PretrainedError, match=re.escape(sentence)):
        tensor_files.check_writable(path)
    with pytest.raises(PretrainedError, match=r"pip install torch"):
        tensor_files.write(tmp_path / "new" / "model.pth", TENSORS, epoch=1, score=1.0)
    assert os.listdir(tmp_path) == [path.name]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def as_torch(torch):
    return OrderedDict((n, torch.from_numpy(np.array(t))) for n, t in TENSORS.items())


@pytest.mark.filterwarnings("error")
def test_a_checkpoint_is_laid_out_as_the_releases(tmp_path, torch):
    path = tmp_path / "model.pth.tar"
    linear = torch.nn.Linear(3, 2)
    read_only = np.ones((2, 3), np.float32)
    read_only.flags.writeable = False
    tensor_files.write(path, {"weight": read_only, "bias": TENSORS["bias"]}, epoch=3, score=9.5)
    checkpoint = torch.load(path, weights_only=True)
    linear.load_state_dict(checkpoint.pop("model"), strict=True)
    assert torch.equal(linear.weight, torch.ones(2, 3))
    assert checkpoint == {
        "epoch": 3,
        "arch": "baseline",
        "best_rsum": 9.5,
        "options": {},
        "Eiters": 0,
    }


def rename_in_pickle(path, old, new):
    """Rewrites the pickle in a PyTorch file."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    assert any(old in entry for entry in entries.values())
    with zipfile.ZipFile(path, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry.replace(old, new))


@pytest.mark.parametrize("score", [np.float64(43.5), np.float32(43.5), 43.5])
@pytest.mark.parametrize("old_numpy", [False, True])
def test_a_checkpoint_of_the_release_is_read_whatever_its_score_is(
    tmp_path, torch, score, old_numpy
):
    path = tmp_path / "KAMCL_best.pth.tar"
    options = {"model": {"name": "KAMCL", "lr": 2e-4, "layers": [1, None]}, "k_fold": True}
    checkpoint = {"epoch": 5, "arch": "baseline", "model": as_torch(torch), "best_rsum": score}
    torch.save({**checkpoint, "options": options, "Eiters": 0}, path)
    if old_numpy and not isinstance(score, float):
        rename_in_pickle(path, b"numpy._core.multiarray", b"numpy.core.multiarray")
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
    short = torch.tensor([0.25, 3.0])
    torch.save({"p": parameter, "b": short.bfloat16(), "h": short.half()}, path)
    expected = {
        "p": np.float32([[1, 3], [2, 4]]),
        "b": np.float32([0.25, 3]),
        "h": np.float32([0.25, 3]),
    }
    assert_same(tensor_files.read(path).tensors, expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_pytorch_file_is_refused(tmp_path, torch, zipped):
    path = tmp_path / "model.pth"
    torch.save(as_torch(torch), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    cut = [whole[:kept] for kept in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1)]
    for contents in (*cut, b"<!DOCTYPE html>\n" * 9, b"hello world\n" * 9):
        path.write_bytes(contents)
        assert refusal(path) == f"{path} is damaged, or no PyTorch file of tensors alone"


class Malicious:
    """Unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_file_is_never_executed(tmp_path, torch, how):
    path, created = tmp_path / "model.pth", tmp_path / "created"
    stored = {"weight": Malicious(created)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(stored))
    else:
        torch.save(stored, path, _use_new_zipfile_serialization=how == "zip")
    message = refusal(path)
    assert not created.exists()
    if how != "pickle":
        assert "mkdir" in message
        assert "only tensors are ever loaded" in message
    pickle.loads(pickle.dumps(stored))
    assert created.exists(), "the file above must be one that executes"


def test_whole_modules_and_other_entries_are_named(tmp_path, torch):
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "torch.nn.modules.linear.Linear" in refusal(path)
    torch.save([torch.ones(2)], path)
    assert refusal(path) == f"{path} holds a list, not a state_dict"
    torch.save({"weight": torch.ones(2), "epoch": 3}, path)
    assert refusal(path) == f"the entry epoch of {path} is no tensor but of type int"
    torch.save({}, path)
    assert refusal(path) == f"{path} holds no tensors"
