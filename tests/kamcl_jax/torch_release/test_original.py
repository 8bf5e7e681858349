"""The PyTorch original: what users are told, that nothing is left behind, the stand-ins."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_checkout import MODEL, write
from published_weights import shapes_of

from kamcl_jax.errors import TorchOriginalError
from kamcl_jax.torch_release.golden_file import GoldenRun
from kamcl_jax.torch_release.original import load_original
from kamcl_jax.weights.torch_layout import torch_shapes
from kamcl_jax.weights.torchvision import resnet_layout

WORDS, QUEUE, BATCH = 20, 4, 2
RUN = GoldenRun(seed=0, batch_size=BATCH, epochs=(0,), learning_rate=1e-3, epsilon=1e-3)


@pytest.fixture
def fake_checkout(tmp_path) -> Path:
    return write(tmp_path, MODEL)


def make_batch() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    concepts = (generator.random((BATCH, 512)) < 0.1).astype(np.float32)
    return {
        "image": generator.standard_normal((BATCH, 256, 256, 3)).astype(np.float32),
        "tokens": np.array([[3, 1, 2], [4, 5, 0]], np.int32),
        "lengths": np.array([3, 2], np.int32),
        "word_concepts": concepts,
        "image_concepts": concepts * np.float32(0.5),
    }


def files_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


class Surroundings:
    """What a run must leave as it was."""

    def __init__(self, checkout: Path):
        torch = pytest.importorskip("torch")
        self._checkout = checkout
        self._now = lambda: (
            [*sys.path],
            sys.dont_write_bytecode,
            torch.cuda.is_available,
            torch.Tensor.cuda,
            torch.nn.Module.cuda,
            {n: m for n, m in sys.modules.items() if n.partition(".")[0] in ("layers", "utils")},
            files_in(checkout),
        )
        self._before = self._now()

    def check(self, stand_ins):
        assert self._now() == self._before
        assert not [name for name in stand_ins if name in sys.modules]


def test_missing_checkout(tmp_path):
    with pytest.raises(TorchOriginalError, match=r"nowhere, is no folder"):
        load_original(tmp_path / "nowhere", WORDS)


def test_incomplete_checkout_names_the_file(fake_checkout):
    (fake_checkout / "layers/seq2vec.py").unlink()
    with pytest.raises(TorchOriginalError, match=r"is no checkout of .* has no layers/seq2vec.py"):
        load_original(fake_checkout, WORDS)


def test_failing_module_is_named_and_nothing_left_behind(fake_checkout):
    (fake_checkout / "layers/seq2vec.py").write_text("import no_such_package")
    surroundings = Surroundings(fake_checkout)
    with pytest.raises(
        TorchOriginalError, match=r"the module layers\.seq2vec of .*: No module named 'no_such_"
    ):
        load_original(fake_checkout, WORDS)
    surroundings.check(())


def test_failing_constructor_is_told(fake_checkout):
    pytest.importorskip("torch")
    with (fake_checkout / "layers/KAMCL.py").open("a") as file:
        file.write("\ndel BaseModel.__init__\n")
    with pytest.raises(TorchOriginalError, match=r"the model of the checkout .* cannot be built"):
        load_original(fake_checkout, WORDS)


def test_fake_original_runs_and_leaves_nothing_behind(fake_checkout, monkeypatch):
    pytest.importorskip("torch")
    # Modules of the same names, of somebody else.
    for name in ("utils", "layers", "layers.gpo"):
        monkeypatch.setitem(sys.modules, name, sys)
    surroundings = Surroundings(fake_checkout)
    original = load_original(fake_checkout, WORDS, QUEUE)
    surroundings.check(original.stand_ins)
    before = original.state_dict()
    original.load(before, RUN)
    step = original.train_step(5, make_batch())
    assert {loss.dtype for loss in step["losses"].values()} == {np.dtype(np.float32)}
    terms = step["losses"]
    np.testing.assert_allclose(terms["total"] - terms["triplet"], 5 * 0.2, rtol=1e-5)
    moved = {n for n, value in original.state_dict().items() if (value != before[n]).any()}
    gradients = step["gradients"].items()
    assert {name for name, gradient in gradients if np.abs(gradient).max() > 1e-4} <= moved
    surroundings.check(original.stand_ins)


def test_loading_starts_the_optimiser_afresh_and_refuses_what_does_not_fit(fake_checkout):
    pytest.importorskip("torch")
    original = load_original(fake_checkout, WORDS, QUEUE)
    start, runs = original.state_dict(), []
    for _ in range(2):
        original.load(start, RUN)
        for _ in range(2):
            original.train_step(0, make_batch())
        runs.append(original.state_dict())
    for name in start:
        np.testing.assert_allclose(runs[0][name], runs[1][name], atol=1e-6)
    with pytest.raises(TorchOriginalError, match=r"does not fit the PyTorch original: .*linear"):
        original.load({n: tensor for n, tensor in start.items() if "Q.linear" not in n}, RUN)


def test_stand_in_resnet_has_the_state_dict_of_torchvisions():
    pytest.importorskip("torch")
    from kamcl_jax.torch_release.stand_ins import ResNet18

    expected = torch_shapes(resnet_layout(18), shapes_of(18, 64))
    tensors = ResNet18().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    assert list(tensors) == list(expected)  # the original's momentum goes by the order


def numpy_gru(weights, x):
    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    def gate(name, value, state):
        from_input = value @ weights[f"gru_cell.weight_i{name}.weight"].T
        return (
            from_input + weights[f"gru_cell.weight_i{name}.bias"],
            state @ weights[f"gru_cell.weight_h{name}.weight"].T,
        )

    state, states = np.zeros((len(x), 5)), []
    for value in x.swapaxes(0, 1):
        reset, keep = (sigmoid(sum(gate(name, value, state))) for name in "ri")
        from_input, from_state = gate("n", value, state)
        state = (1 - keep) * np.tanh(from_input + reset * from_state) + keep * state
        states.append(state)
    return np.stack(states, 1)


@pytest.mark.parametrize("steps", [None, 3])
def test_stand_in_gru_is_the_skip_thoughts_one(steps):
    torch = pytest.importorskip("torch")
    from kamcl_jax.torch_release.stand_ins import GRU

    gru, x = GRU(3, 5), np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    weights = {name: tensor.numpy() for name, tensor in gru.state_dict().items()}
    with torch.no_grad():
        states, last = gru(torch.tensor(x), max_length=steps)
    np.testing.assert_allclose(states, numpy_gru(weights, x[:, :steps]), atol=1e-6)
    np.testing.assert_array_equal(states[:, -1], last)


def test_stand_in_gru_drops_the_same_entries_in_all_steps():
    torch = pytest.importorskip("torch")
    from kamcl_jax.torch_release.stand_ins import GRU

    x = torch.ones(64, 3, 4)
    gru, seen = GRU(4, 5, dropout=0.25), []
    gru.gru_cell.weight_ir.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    dropping = gru(x)[0]
    first, second, third = seen
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, third)
    assert first.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert 0.6 < float((first > 0).float().mean()) < 0.9
    assert not torch.equal(dropping, gru(x)[0])  # another sequence, another mask
    gru.eval()
    torch.testing.assert_close(gru(x)[0], gru(x)[0])


def test_stand_in_encoder_agrees_with_the_real_package(monkeypatch):
    torch = pytest.importorskip("torch")
    real = pytest.importorskip("skipthoughts").BayesianUniSkip
    from kamcl_jax.torch_release import stand_ins as torch_stand_ins

    for name, loader in torch_stand_ins.SKIP_THOUGHTS_LOADERS.items():
        monkeypatch.setattr(real, name, loader)
    words = [str(number) for number in range(WORDS)]
    theirs = real("", words, dropout=0)
    ours = torch_stand_ins.BayesianUniSkip("", words, dropout=0)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.tensor(make_batch()["tokens"], dtype=torch.int64)
    assert [int(n) for n in theirs._process_lengths(tokens)] == ours._process_lengths(tokens)
    with torch.no_grad():
        outputs = [model.rnn(model.embedding(tokens), max_length=3)[0] for model in (theirs, ours)]
    np.testing.assert_allclose(*outputs, atol=1e-6)
