"""Our modules and our training step against what the PyTorch original computes."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_config

from configs import rsicd
from kamcl_jax.errors import ConfigError, GoldenFileError
from kamcl_jax.torch_release import command, golden_check, golden_inputs, quantities
from kamcl_jax.torch_release.golden_check import compare_all, quantity_names

EVALUATION = ("final", "low", "high", "skipthoughts_mean", "skipthoughts_head", "sentence")
TRAINING = (
    "losses",
    *(f"step{step}/grad_norms" for step in range(4)),
    *(f"step0/{name}" for name in ("grad_first4", "logits_image_head", "logits_text_head")),
    *(f"after{step}/{name}" for step in (1, 4) for name in ("l2", "mean", "first4")),
    *(f"after{step}/queue_{name}" for step in (1, 4) for name in ("image", "text", "pointer")),
)
GOLDEN_FILE = Path(__file__).parents[2] / "golden" / "parity_seed0.npz"
SMALL_FILE = Path(__file__).parents[2] / "golden" / "parity_seed11.npz"


@pytest.fixture(scope="module")
def golden():
    return golden_check.read(GOLDEN_FILE)


@pytest.fixture(scope="module")
def compute(golden):
    """Computes the file's quantities as users do: optimised, by the release's config."""

    def compute(dtype, **changes):
        run = dataclasses.replace(golden_check.run_of(golden), **changes)
        return quantities.compute(run, rsicd.get_config("release"), dtype)

    return compute


@pytest.fixture(scope="module")
def ours(compute):
    return compute(np.float64)


def failing(rows):
    return [row.name for row in rows if not row.passes]


def test_everything_in_the_file_is_met_in_float64(ours, golden):
    rows = compare_all(ours, golden, "float64")
    assert not failing(rows)
    names = {row.name for row in rows}
    assert names >= {f"eval/{name}" for name in EVALUATION}
    assert names >= {f"eval/pool_weights_{n}" for n in (2, 6, 7, 15, 64, 192)}
    assert names >= {f"{mode}/{name}" for mode in ("release", "paper") for name in TRAINING}
    # Parameters and statistics of query and key encoders, all of them.
    assert golden["release/after4/l2"].shape == (392,)


def test_another_seed_batch_and_caption_lengths_are_met_in_float64():
    golden = golden_check.read(SMALL_FILE)
    rows = golden_check.check(golden, rsicd.get_config("release"), "float64")
    assert not failing(rows)
    assert max(row.used for row in rows) < 0.05
    run = golden_check.run_of(golden)
    assert run.seed != 0
    assert run.batch_size != 8
    assert run.caption_lengths != golden_inputs.CAPTION_LENGTHS


def test_the_mathematics_is_the_same_far_below_float32_noise(ours, golden):
    rows = {row.name: row for row in compare_all(ours, golden, "float64")}
    for mode in ("release", "paper"):
        assert rows[f"{mode}/losses"].max_relative < 1e-7
        assert rows[f"{mode}/step3/grad_norms"].max_relative < 1e-5
        assert rows[f"{mode}/after4/l2"].max_relative < 1e-7


def test_float32_stays_within_the_noise_of_float32(compute, golden):
    ours = compute(np.float32, modes=("release",))
    rows = compare_all(ours, golden, "float32")
    assert not [name for name in failing(rows) if not name.startswith("paper/")]


def test_every_quantity_is_refused_when_it_is_two_percent_off(ours, golden):
    for name in quantity_names(golden):
        off = {**ours, name: ours[name] * 1.02}
        assert failing(compare_all(off, golden, "float64")) == [name]


def test_any_single_number_that_is_two_percent_off_is_refused(ours, golden):
    generator = np.random.default_rng(0)
    for name in quantity_names(golden):
        if name.endswith("queue_pointer"):
            continue
        # Off by its share of the magnitude that its noise is of: most numbers are themselves that.
        noise = golden.get(f"noise/{name}")
        shared = tuple(range(np.ndim(noise), golden[name].ndim))
        scale = np.broadcast_to(
            np.abs(golden[name]).max(axis=shared, keepdims=True), golden[name].shape
        )
        for index in generator.integers(0, golden[name].size, 5):
            place = np.unravel_index(index, golden[name].shape)
            off = ours[name].astype(np.float64)
            off[place] += 0.02 * scale[place]
            assert failing(compare_all({**ours, name: off}, golden, "float64")) == [name], place


@pytest.mark.parametrize("mode", ["release", "paper"])
def test_one_tensor_that_is_two_percent_off_is_refused_and_named(ours, golden, mode):
    norms = ours[f"{mode}/after1/l2"].copy()
    names = [str(name) for name in golden["tensor_names"]]
    for index in range(0, len(names), 13):
        off = norms.copy()
        off[index] *= 1.02
        rows = compare_all({**ours, f"{mode}/after1/l2": off}, golden, "float64")
        row = next(row for row in rows if not row.passes)
        assert golden_check.explain(row, golden) == f"{mode}/after1/l2: {names[index]}"


def test_the_two_momentum_coverages_are_told_apart(ours, golden):
    mistaken = {
        **ours,
        **{f"paper/{n}": ours[f"release/{n}"] for n in TRAINING},
    }
    assert set(failing(compare_all(mistaken, golden, "float64"))) >= {
        "paper/after1/first4",
        "paper/after4/l2",
        "paper/after4/queue_image",
        "paper/losses",
    }


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_missing_or_new_quantity_is_a_failure(ours, golden, precision):
    lacking = {name: value for name, value in ours.items() if name != "eval/low"}
    assert "eval/low" in failing(compare_all(lacking, golden, precision))
    more = {**golden, "eval/unheard_of": np.ones(3)}
    assert "eval/unheard_of" in failing(compare_all(ours, more, precision))


def test_verdict_and_table(ours, golden, monkeypatch, capsys):
    config = rsicd.get_config("release")
    path = golden_check.__file__  # read is replaced
    monkeypatch.setattr(golden_check, "read", lambda _: golden)
    monkeypatch.setattr(quantities, "compute", lambda *_: ours)
    assert command.against_golden_file(config, path, "float64")
    printed = capsys.readouterr().out
    assert "| eval/pool_weights_192 " in printed
    assert "ok: all 59 quantities agree" in printed
    off = {**ours, "paper/step2/grad_norms": ours["paper/step2/grad_norms"] * 1.02}
    monkeypatch.setattr(quantities, "compute", lambda *_: off)
    assert not command.against_golden_file(config, path, "float64")
    assert "FAIL: 1 of 59 quantities differ: paper/step2/grad_norms" in capsys.readouterr().out


def test_the_config_drives_the_step(golden):
    run = golden_check.run_of(golden)
    config = quantities.config_of_run(tiny_config(), run, "release")
    assert config.optimizer.epsilon == 1e-3
    assert config.momentum_coverage == "release"
    assert config.text_encoder.dropout == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"the golden file .*golden.npz cannot be read: .*No such file"),
        (b"", r"the golden file .*golden.npz cannot be read: "),
        (b"not an archive", r"the golden file .*golden.npz cannot be read: "),
        (b"PK\x03\x04 cut short", r"the golden file .*golden.npz cannot be read: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content, sentence, tmp_path):
    path = tmp_path / "golden.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GoldenFileError, match=sentence):
        golden_check.read(path)


def test_a_file_without_its_inputs_is_refused(golden, tmp_path):
    path = tmp_path / "golden.npz"
    np.savez(path, **{name: value for name, value in golden.items() if name != "seed"})
    with pytest.raises(GoldenFileError, match=r"has no entry 'seed'"):
        golden_check.read(path)


@pytest.mark.parametrize(
    ("entry", "value", "sentence"),
    [
        ("tensor_names", ["visualmodelQ.nowhere"], "has the tensor 'visualmodelQ.nowhere'"),
        ("loss_columns", ["regret"], "has the loss 'regret'"),
        ("release/grad_names", ["x"], "list different gradients"),
    ],
)
def test_a_file_that_asks_for_what_is_not_there_is_refused(entry, value, sentence, golden):
    with pytest.raises(GoldenFileError, match=sentence):
        golden_check.check(
            {**golden, entry: np.array(value)}, rsicd.get_config("release"), "float64"
        )


@pytest.mark.parametrize(
    ("entry", "value", "sentence"),
    [
        ("epochs", np.zeros(0, int), "'epochs' that are empty or out of range"),
        ("epochs", np.array([2**40]), "'epochs' that are empty or out of range"),
        ("epochs", np.array(3), "an entry 'epochs' that is no integer of 1 axes"),
        ("seed", np.array("a"), "an entry 'seed' that is no integer of 0 axes"),
        ("seed", np.array(-1), "a negative 'seed'"),
        ("batch_size", np.array(8.5), "an entry 'batch_size' that is no integer"),
        ("learning_rate", np.array([1.0]), "an entry 'learning_rate' that is no number of 0 axes"),
        ("caption_lengths", np.array([14, 4]), "'caption_lengths' that are not a shortest and a"),
        ("caption_lengths", np.array([0, 4]), "'caption_lengths' that are not a shortest and a"),
        ("caption_lengths", np.array([4]), "'caption_lengths' that are not a shortest and a"),
        ("eval/sims", np.full((8, 8), np.inf), "'eval/sims' that is not made of finite numbers"),
        ("eval/sims", np.zeros((0, 4)), "'eval/sims' that is not made of finite numbers"),
        ("release/losses", np.array([["a"]]), "'release/losses' that is not made of finite"),
        ("release/losses", np.ones((2, 4)), "'release/losses' of [2, 4], not one loss a step"),
        ("release/after4/l2", np.ones(3), "'release/after4/l2' of [3] for 392 tensors"),
        ("release/after1/queue_pointer", np.array([8.0, 8.0]), "made of finite integers"),
        ("noise/release/losses", np.full((4, 4), np.inf), "a noise of 'release/losses'"),
        ("noise/release/losses", np.ones(3), "a noise of 'release/losses'"),
    ],
)
def test_a_damaged_entry_is_named(entry, value, sentence, golden, tmp_path):
    path = tmp_path / "golden.npz"
    np.savez(path, **{**golden, entry: value})
    with pytest.raises(GoldenFileError, match=re.escape(sentence)):
        golden_check.read(path)


def test_a_file_with_nothing_to_compare_is_refused(golden, tmp_path):
    inputs = ("seed", "batch_size", "epochs", "learning_rate", "adam_epsilon", "loss_columns")
    path = tmp_path / "golden.npz"
    np.savez(path, **{name: golden[name] for name in (*inputs, "tensor_names")})
    with pytest.raises(GoldenFileError, match="has no quantity to compare"):
        golden_check.read(path)


def test_a_batch_that_does_not_fit_into_the_queue_is_refused(golden):
    with pytest.raises(ConfigError, match=r"queue_length 8000 is smaller than .*batch_size 8001"):
        golden_check.check(
            {**golden, "batch_size": np.int64(8001)}, rsicd.get_config("release"), "float64"
        )


def test_pickled_objects_are_never_loaded(golden, tmp_path):
    path = tmp_path / "golden.npz"
    np.savez(path, **{**golden, "eval/low": np.array([print], dtype=object)})
    with pytest.raises(GoldenFileError, match="cannot be read"):
        golden_check.read(path)
