"""The PyTorch original: what users are told, that nothing is left behind, the stand-ins."""

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from fake_checkout import MODEL, write
from published_weights import shapes_of

from kamcl_jax.errors import TorchOriginalError
from kamcl_jax.models.skip_thoughts import SkipThoughts
from kamcl_jax.torch_release.golden_file import GoldenRun
from kamcl_jax.torch_release.original import PRECISIONS, TorchOriginal
from kamcl_jax.weights.release_layout import text_layout
from kamcl_jax.weights.torch_layout import from_torch, torch_shapes
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


BORROWED = ("layers", "utils", "skipthoughts", "torchvision", "xlwt")


def surroundings(checkout):
    """What a run must leave as it was."""
    torch = pytest.importorskip("torch")
    return (
        [*sys.path],
        sys.dont_write_bytecode,
        torch.cuda.is_available,
        torch.Tensor.cuda,
        torch.nn.Module.cuda,
        {n: m for n, m in sys.modules.items() if n.partition(".")[0] in BORROWED},
        {path: path.stat().st_mtime_ns for path in checkout.rglob("*")},
    )


def test_a_folder_that_is_no_checkout_is_told(fake_checkout):
    (fake_checkout / "layers/seq2vec.py").unlink()
    with pytest.raises(TorchOriginalError, match=r"is no checkout of .* has no layers/seq2vec.py"):
        TorchOriginal(fake_checkout, WORDS)
    with pytest.raises(TorchOriginalError, match=r"nowhere, is no folder"):
        TorchOriginal(fake_checkout / "nowhere", WORDS)


def test_failing_module_is_named_and_nothing_left_behind(fake_checkout):
    (fake_checkout / "layers/seq2vec.py").write_text("import no_such_package")
    before = surroundings(fake_checkout)
    with pytest.raises(
        TorchOriginalError, match=r"the module layers\.seq2vec of .*: No module named 'no_such_"
    ):
        TorchOriginal(fake_checkout, WORDS)
    assert surroundings(fake_checkout) == before


def test_fake_original_runs_and_leaves_nothing_behind(fake_checkout, monkeypatch):
    # Modules of the same names, of somebody else.
    for name in ("utils", "layers", "layers.gpo"):
        monkeypatch.setitem(sys.modules, name, sys)
    around = surroundings(fake_checkout)
    original = TorchOriginal(fake_checkout, WORDS, QUEUE)
    assert surroundings(fake_checkout) == around
    before, after = original.state_dict(), []
    for _ in range(2):  # loading starts the optimiser afresh
        original.load(before, RUN)
        steps = [original.train_step(5, make_batch()) for _ in range(2)]
        after.append(original.state_dict())
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), *after)
    terms = steps[0]["losses"]
    assert {loss.dtype for loss in terms.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(terms["total"] - terms["triplet"], 5 * 0.2, rtol=1e-5)
    moved = {name for name, value in after[0].items() if (value != before[name]).any()}
    gradients = steps[0]["gradients"].items()
    assert {name for name, gradient in gradients if np.abs(gradient).max() > 1e-4} <= moved
    assert surroundings(fake_checkout) == around
    with pytest.raises(TorchOriginalError, match=r"does not fit the PyTorch original: .*linear"):
        original.load({n: tensor for n, tensor in before.items() if "Q.linear" not in n}, RUN)


def test_precisions_change_the_arithmetic_and_nothing_else(fake_checkout):
    torch = pytest.importorskip("torch")
    original = TorchOriginal(fake_checkout, WORDS, QUEUE)
    before, products, found = original.state_dict(), torch.get_float32_matmul_precision(), {}
    for precision in PRECISIONS:
        original.load(before, RUN)
        with original.computing_in(precision):
            assert (torch.get_float32_matmul_precision() == "high") == (precision == "TF32")
            found[precision] = original.train_step(5, make_batch())
        assert torch.get_float32_matmul_precision() == products
    exact = found["float32"]
    np.testing.assert_array_equal(found["TF32"]["sims"], exact["sims"])  # on a CPU
    rounded = found["bfloat16"]
    assert rounded["sims"].dtype == np.float32
    assert 0 < np.abs(rounded["sims"] - exact["sims"]).max() < 0.05
    assert all(gradient.dtype == np.float32 for gradient in rounded["gradients"].values())
    original.load(before, RUN)
    np.testing.assert_array_equal(original.train_step(5, make_batch())["sims"], exact["sims"])


def test_the_learning_rate_is_lowered_by_the_originals_own_code(fake_checkout, capsys):
    pytest.importorskip("torch")
    original = TorchOriginal(fake_checkout, WORDS, QUEUE)
    original.start_adam(1.0)
    rates = []
    for epoch in range(4):
        original.adjust_learning_rate(epoch, decay_factor=0.5, every_epochs=2)
        rates.append(original._optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 0.5, 0.5, 0.25]
    assert capsys.readouterr().out == ""


def test_stand_in_resnet_has_the_state_dict_of_torchvisions():
    pytest.importorskip("torch")
    from kamcl_jax.torch_release.stand_ins import ResNet18

    expected = torch_shapes(resnet_layout(18), shapes_of(18, 64))
    tensors = ResNet18().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    assert list(tensors) == list(expected)  # the original's momentum goes by the order


def test_stand_in_encoder_computes_what_ours_does(monkeypatch):
    torch = pytest.importorskip("torch")
    from kamcl_jax.torch_release import stand_ins

    monkeypatch.setattr(stand_ins, "WORD_WIDTH", 3)
    monkeypatch.setattr(stand_ins, "HIDDEN_WIDTH", 5)
    theirs = stand_ins.BayesianUniSkip("", [str(number) for number in range(WORDS)])
    tensors = {f"seq2vec.{n}": tensor.numpy() for n, tensor in theirs.state_dict().items()}
    layout = {
        name.removeprefix("text_feature."): place
        for name, place in text_layout().items()
        if ".seq2vec." in name
    }
    ours, batch = SkipThoughts(WORDS + 1, 3, 5), make_batch()
    inputs = batch["tokens"], batch["lengths"]
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), *inputs, train=False))
    params = from_torch(tensors, layout, {"params": {"skip_thoughts": shapes["params"]}}, "it")
    states = ours.apply({"params": params["params"]["skip_thoughts"]}, *inputs, train=False)
    with torch.no_grad():
        expected, last = theirs.rnn(theirs.embedding(torch.tensor(batch["tokens"]).long()), 2)
    np.testing.assert_allclose(states[:, :2], expected, atol=1e-6)
    np.testing.assert_array_equal(expected[:, -1], last)


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
