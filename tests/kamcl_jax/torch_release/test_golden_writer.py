"""Files of what the original computes: what is in them, and what is refused before any work."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from fake_checkout import MODEL, write

from kamcl_jax.errors import GoldenFileError
from kamcl_jax.torch_release import command, golden_file, golden_inputs, golden_writer
from kamcl_jax.torch_release.original import TorchOriginal

CHECKOUT = os.environ.get("KAMCL_TORCH_CHECKOUT")
GOLDEN_FILE = Path(__file__).parents[2] / "golden" / "parity_seed0.npz"

BATCH, SEED, EPOCHS, MODES = 4, 3, ("0", "5", "11"), ("release", "paper")
KEPT = 0.9  # of a key tower in a step of the fake original's momentum
REACHED = 3  # tensors of its image tower that its momentum reaches: as many as its text tower has


def plan(seed=SEED, batch_size=BATCH, caption_lengths=("2", "5"), epochs=EPOCHS, modes=MODES):
    return golden_writer.plan(seed, batch_size, caption_lengths, epochs, modes)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    pytest.importorskip("torch")
    return write(tmp_path_factory.mktemp("checkout"), MODEL)


@pytest.fixture(scope="module")
def written(checkout, tmp_path_factory):
    """A file of the fake original, written and read as users' files are."""
    path = tmp_path_factory.mktemp("golden") / "below" / "golden.npz"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        command.write_golden_file(path, checkout, plan())
    assert f"python main.py --mode=parity --golden={path}" in printed.getvalue()
    assert [file.name for file in path.parent.iterdir()] == ["golden.npz"]
    return golden_file.read(path)


@pytest.fixture(scope="module")
def start(checkout):
    """Name -> the tensor that both modes start from."""
    shapes = TorchOriginal(checkout, golden_inputs.VOCABULARY_SIZE).tensor_shapes()
    drawn = {name: golden_inputs.draw_tensor(name, shapes[name], SEED) for name in shapes}
    return {name: tensor.astype(np.float64) for name, tensor in drawn.items()}


def test_the_file_says_what_it_was_made_from(written):
    run = golden_file.run_of(written)
    assert (run.seed, run.batch_size, run.epochs, run.modes) == (SEED, BATCH, (0, 5, 11), MODES)
    assert run.caption_lengths == (2, 5)
    assert run.pool_lengths == golden_writer.POOL_LENGTHS
    assert run.loss_columns == ("total", "triplet", "info_nce_sum", "concept_bce")
    assert len(run.tensor_names) == 2 * (8 + REACHED)
    # Both modes start from the same state, and the key towers move before they encode.
    norms = [written[f"{mode}/step0/grad_norms"] for mode in MODES]
    assert not np.array_equal(*norms)
    np.testing.assert_array_equal(written["release/step0/sims"], written["paper/step0/sims"])
    assert [*run.gradient_names] == [name for name in run.tensor_names if "modelQ." in name]


def test_every_quantity_has_its_noise_but_the_counts(written):
    names = golden_file.quantity_names(written)
    for mode in MODES:
        assert {f"{mode}/after1/l2", f"{mode}/after3/l2", f"{mode}/step2/grad_norms"} <= {*names}
        assert f"{mode}/after2/l2" not in names
    for name in names:
        noise = written.get(f"noise/{name}")
        assert (noise is None) == name.endswith("queue_pointer")
        if noise is not None:
            # Rounding to float32 is 6e-8 of a number; few operations follow on it here.
            assert noise.max() < 1e-3 * max(1, np.abs(written[name]).max())
    assert written["noise/release/losses"].shape == (3, 4)
    assert written["noise/release/losses"].max() > 0
    assert written["noise/release/after1/first4"].shape == written["release/after1/l2"].shape
    assert written["noise/eval/final"].shape == ()


def test_stages_and_weights_are_those_of_the_modules(written, start):
    for name in ("final", "low", "high", "sentence", "visual", "text"):
        assert written[f"eval/{name}"].shape == (BATCH, 8)
    words = start["textmodelQ.text_feature.seq2vec.weight"][plan().batch(0)["tokens"]]
    np.testing.assert_allclose(written["eval/skipthoughts_head"], words, rtol=1e-12)
    np.testing.assert_allclose(written["eval/sentence"], words.mean(1), rtol=1e-12)
    low, bias = (start[f"visualmodelQ.low_module.{kind}"] for kind in ("weight", "bias"))
    np.testing.assert_allclose(
        written["eval/low"], written["eval/final"] @ low.T + bias, rtol=1e-10
    )
    for length in golden_writer.POOL_LENGTHS:
        expected = np.exp(start["visualmodelQ.gpo.linear.weight"][0] * np.linspace(0, 1, length))
        weights = written[f"eval/pool_weights_{length}"]
        np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-10)


@pytest.mark.parametrize(("mode", "reached"), [("release", REACHED), ("paper", 8)])
def test_the_momentum_reaches_as_much_as_the_mode_says(written, start, mode, reached):
    names = [str(name) for name in written["tensor_names"]]
    after = dict(zip(names, written[f"{mode}/after1/mean"], strict=True))
    images = [name for name in names if name.startswith("visualmodelK.")]
    texts = [name for name in names if name.startswith("textmodelK.")]
    assert (len(images), len(texts)) == (8, REACHED)
    for name in images + texts:
        key, query = start[name].mean(), start[name.replace("K.", "Q.")].mean()
        moved = name not in images[reached:]
        expected = KEPT * key + (1 - KEPT) * query if moved else key
        assert after[name] == pytest.approx(expected, rel=1e-9)
        assert (after[name] != key) == moved


@pytest.mark.parametrize("mode", MODES)
def test_the_queues_have_each_steps_keys_and_one_batch_that_nobody_wrote(written, start, mode):
    for steps in (1, 3):
        end = steps * BATCH
        for short, long in (("im", "image"), ("tx", "text")):
            queue = written[f"{mode}/after{steps}/queue_{long}"]
            before = start[f"queue_{short}"][:, : end + BATCH]
            assert (queue.dtype, queue.shape) == (np.float32, before.shape)
            assert (queue[:, :end] != before[:, :end]).all()
            np.testing.assert_array_equal(queue[:, end:], before[:, end:])
        assert [*written[f"{mode}/after{steps}/queue_pointer"]] == [end] * 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": -1}, "seed is 0 or more, not -1"),
        ({"batch_size": 3}, "divide its queues of 8000 keys, and 3 does not"),
        ({"caption_lengths": ["14", "4"]}, "the shortest first, as 4,14, not 14,4"),
        ({"epochs": ["0", "1.5"]}, "as 0,10,11,12, not 0,1.5"),
        ({"modes": ["everything"]}, "the momentum is release or paper, or both, not everything"),
    ],
)
def test_what_the_original_cannot_run_is_one_sentence(changes, sentence):
    with pytest.raises(GoldenFileError, match=sentence):
        plan(**changes)


def test_a_file_that_is_there_is_never_written_over(tmp_path):
    path = tmp_path / "golden.npz"
    path.write_text("of somebody")
    with pytest.raises(GoldenFileError, match=r"golden.npz exists already"):
        golden_writer.check_target(path, tmp_path / "nowhere")
    assert path.read_text() == "of somebody"


@pytest.mark.skipif(not CHECKOUT, reason="KAMCL_TORCH_CHECKOUT names no checkout")
def test_the_file_of_seed_0_comes_out_again(tmp_path):
    old, path = golden_file.read(GOLDEN_FILE), tmp_path / "anew.npz"
    run = golden_writer.plan(0, 8, ["4", "14"], ["0", "10", "11", "12"], MODES)
    golden_writer.write(path, Path(str(CHECKOUT)), run)
    new = golden_file.read(path)
    assert new.keys() == old.keys()
    for name, expected in old.items():
        value = new[name]
        assert (value.shape, value.dtype) == (expected.shape, expected.dtype), name
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(value, expected, err_msg=name)
        elif name.startswith("noise/"):
            # Another PyTorch rounds otherwise. The norms and means of this old file were added up
            # in float32, which is most of their noise; ours are in float64, and have less.
            assert value.max() < 10 * expected.max(), name
            if not name.endswith(("/l2", "mean", "/grad_norms")):
                assert value.max() > 0.1 * expected.max(), name
        else:
            precision = 1e-6 if expected.dtype == np.float32 else 1e-10
            largest = np.abs(expected).max()
            np.testing.assert_allclose(value, expected, 0, precision * largest, err_msg=name)
