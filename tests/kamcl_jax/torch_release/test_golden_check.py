"""Our modules and our training step against what the PyTorch original computes."""

import math
from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util

from configs import rsicd
from kamcl_jax.config import build, recipe
from kamcl_jax.errors import ConfigError, GoldenFileError
from kamcl_jax.torch_release import command, golden_check, golden_file, golden_inputs
from kamcl_jax.torch_release.golden_check import compare_all
from kamcl_jax.torch_release.golden_file import COVERAGE_OF_MODE, quantity_names
from kamcl_jax.torch_release.our_program import NUM_TOKENS, OurProgram
from kamcl_jax.weights.release_layout import query_gradient_layout

GOLDEN_FILE = Path(__file__).parents[2] / "golden" / "parity_seed0.npz"
SMALL_FILE = Path(__file__).parents[2] / "golden" / "parity_seed11.npz"


@pytest.fixture(scope="module")
def golden():
    """The file of both momentum updates.

    What it would refuse is tried with its own numbers in the place of ours, which takes no time.
    """
    return golden_file.read(GOLDEN_FILE)


def rows_of(path, precision):
    """Computes the file's quantities as users do: optimised, by the release's config."""
    golden = golden_file.read(path)
    rows = golden_check.compute_and_compare(golden, rsicd.get_config("release"), precision)
    return {row.name: row for row in rows}


def failing(rows):
    return [row.name for row in rows if not row.passes]


def test_two_steps_are_met_in_float64_far_below_float32_noise():
    rows = rows_of(SMALL_FILE, "float64")
    assert not failing(rows.values())
    assert max(row.used for row in rows.values()) < 0.05
    assert rows["paper/losses"].max_relative < 1e-7
    assert rows["paper/step1/grad_norms"].max_relative < 1e-5
    assert rows["paper/after2/l2"].max_relative < 1e-7


def test_the_files_differ_in_seed_batch_and_caption_lengths(golden):
    small, large = golden_file.run_of(golden_file.read(SMALL_FILE)), golden_file.run_of(golden)
    assert (small.epochs, large.epochs) == ((10, 11), (0, 10, 11, 12))
    for field in ("seed", "batch_size", "caption_lengths"):
        assert getattr(small, field) != getattr(large, field)


@pytest.mark.long
def test_everything_in_the_file_is_met_in_float64(golden):
    rows = rows_of(GOLDEN_FILE, "float64")
    assert not failing(rows.values())
    for mode in ("release", "paper"):
        assert rows[f"{mode}/losses"].max_relative < 1e-7
        assert rows[f"{mode}/step3/grad_norms"].max_relative < 1e-5
        assert rows[f"{mode}/after4/l2"].max_relative < 1e-7


@pytest.mark.long
def test_float32_stays_within_the_noise_of_float32(golden):
    kept = {name: value for name, value in golden.items() if not name.startswith("paper/")}
    config = rsicd.get_config("release")
    assert not failing(golden_check.compute_and_compare(kept, config, "float32"))


def test_the_file_has_all_quantities_of_both_momentum_updates(golden):
    names = {*quantity_names(golden)}
    evaluation = ("final", "low", "high", "skipthoughts_mean", "skipthoughts_head", "sentence")
    assert names >= {f"eval/{name}" for name in evaluation}
    assert names >= {f"eval/pool_weights_{n}" for n in (2, 6, 7, 15, 64, 192)}
    after = ("l2", "mean", "first4", "queue_image", "queue_text", "queue_pointer")
    training = {
        "losses",
        *(f"step{step}/grad_norms" for step in range(4)),
        *(f"step0/{name}" for name in ("grad_first4", "logits_image_head", "logits_text_head")),
        *(f"after{steps}/{name}" for steps in (1, 4) for name in after),
    }
    assert names >= {f"{mode}/{name}" for mode in ("release", "paper") for name in training}
    # Parameters and statistics of query and key encoders, all of them.
    assert golden["release/after4/l2"].shape == (392,)


@pytest.mark.parametrize("mode", ["release", "paper"])
def test_the_two_momentum_coverages_are_told_apart(golden, mode):
    """A step's momentum, which needs no compilation, against the file's first numbers after it."""
    config = rsicd.get_config("release")
    config.momentum_coverage = COVERAGE_OF_MODE[mode]
    mask = recipe.make_settings(config, steps_per_epoch=1).momentum_mask
    params = build.abstract_state(config, NUM_TOKENS, golden_inputs.NUM_CONCEPTS).params
    moves = traverse_util.flatten_dict(mask(params)) if mask else {}
    shapes = OurProgram(config, np.float32).tensor_shapes()
    rows = {str(name): row for row, name in enumerate(golden["tensor_names"])}
    met = dict.fromkeys(COVERAGE_OF_MODE, True)
    for query, place in query_gradient_layout(18).items():
        if math.prod(shapes[query]) > 1_000_000:
            continue  # drawing them takes most of the time
        names = query.replace("modelQ.", "modelK."), query
        key, start = (golden_inputs.draw_tensor(name, shapes[query], 0) for name in names)
        kept = config.momentum if moves.get(place.path[1:], True) else 1.0
        expected = np.resize(kept * key + (1 - kept) * start, 4)
        for name in met:
            recorded = golden[f"{name}/after1/first4"][rows[names[0]]]
            met[name] &= np.allclose(recorded, expected, rtol=1e-5, atol=1e-7)
    assert met == {name: name == mode for name in met}


def test_any_single_number_that_is_two_percent_off_is_refused(golden):
    assert not failing(compare_all(golden, golden, "float64"))
    generator = np.random.default_rng(0)
    for name in quantity_names(golden):
        if name.endswith("queue_pointer"):
            continue
        named = {n: value for n, value in golden.items() if n.endswith((name, "_names"))}
        # Off by its share of the magnitude that its noise is of: most numbers are themselves that.
        noise = golden.get(f"noise/{name}")
        shared = tuple(range(np.ndim(noise), golden[name].ndim))
        scale = np.broadcast_to(
            np.abs(golden[name]).max(axis=shared, keepdims=True), golden[name].shape
        )
        for index in generator.integers(0, golden[name].size, 5):
            place = np.unravel_index(index, golden[name].shape)
            off = golden[name].astype(np.float64)
            off[place] += 0.02 * scale[place]
            assert failing(compare_all({name: off}, named, "float64")) == [name], place


def test_one_tensor_that_is_two_percent_off_is_refused_and_named(golden):
    for index, name in [*enumerate(golden["tensor_names"])][::26]:
        off = golden["release/after1/l2"].copy()
        off[index] *= 1.02
        rows = compare_all({**golden, "release/after1/l2": off}, golden, "float64")
        (row,) = (row for row in rows if not row.passes)
        assert golden_check.name_failed_tensors(row, golden) == f"release/after1/l2: {name}"


def test_verdict_and_table(golden, monkeypatch, capsys):
    config = rsicd.get_config("release")
    monkeypatch.setattr(golden_check, "record", lambda *_: golden)
    assert command.against_golden_file(config, GOLDEN_FILE, "float64")
    printed = capsys.readouterr().out
    assert "| eval/pool_weights_192 " in printed
    assert "ok: all 59 quantities agree" in printed
    off = {**golden, "paper/step2/grad_norms": golden["paper/step2/grad_norms"] * 1.02}
    monkeypatch.setattr(golden_check, "record", lambda *_: off)
    assert not command.against_golden_file(config, GOLDEN_FILE, "float64")
    assert "FAIL: 1 of 59 quantities differ: paper/step2/grad_norms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        (lambda _: True, "cannot be read: No data left in file"),
        (lambda name: name == "seed", "has no entry 'seed'"),
        (lambda name: name == "paper/grad_names", "has no entry 'paper/grad_names'"),
        (lambda name: "/" in name, "has no quantity to compare"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(lacking, sentence, golden, tmp_path):
    path = tmp_path / "golden.npz"
    entries = {name: value for name, value in golden.items() if not lacking(name)}
    if entries:
        np.savez(path, **entries)
    else:
        path.touch()
    with pytest.raises(GoldenFileError, match=rf"the golden file .*golden.npz {sentence}"):
        golden_file.read(path)


def test_a_batch_that_the_config_cannot_take_is_refused(golden):
    changed = {**golden, "batch_size": np.array(8001)}
    sentence = r"queue_length 8000 is smaller than .*batch_size 8001"
    with pytest.raises(ConfigError, match=sentence):
        golden_check.compute_and_compare(changed, rsicd.get_config("release"), "float64")
