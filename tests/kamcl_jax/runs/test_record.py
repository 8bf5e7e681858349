"""The checksums of a state, and the images that a run has lost; runs that go on test the rest."""

from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from linear_towers import create_state
from tiny_model import tiny_config

from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel import mesh
from kamcl_jax.runs import record
from kamcl_jax.runs.record import sums_of_bits
from kamcl_jax.step.state import state_layout

make_state = jax.jit(partial(create_state, optax.adam(1e-3), queue_length=64))


def test_a_sum_is_that_of_a_plain_loop():
    array = np.array([[1.5, -2.0], [0.0, 3.25]], np.float32)
    words = [int(word) for word in array.ravel().view(np.uint32)]
    expected = sum(word * (2 * place + 1) for place, word in enumerate(words)) % 2**32
    assert sums_of_bits({"a": {"b": array}}) == {"a['b']": expected}


def test_every_change_is_found_and_devices_do_not_matter():
    state = make_state()
    layout = state_layout(
        mesh.make_mesh(2, 4), jax.eval_shape(make_state), fsdp_min_size=64, queue="sharded"
    )
    expected = sums_of_bits(state)
    assert sums_of_bits(jax.device_put(state, layout.state)) == expected
    before = np.array(state.text_queue.keys)
    flipped = before.copy()
    flipped.view(np.uint32)[3, 5] ^= 1 << 30
    for keys in (flipped, before[::-1], before.T.reshape(before.shape)):
        now = sums_of_bits(state.replace(text_queue=state.text_queue.replace(keys=keys)))
        assert {name for name in expected if now[name] != expected[name]} == {"text_queue.keys"}


def test_images_that_are_gone_since_the_checkpoint_are_named(load_small, small_source, capsys):
    def experiment():
        data = load_small(bad_images="skip")
        return SimpleNamespace(config=tiny_config(), steps_per_epoch=1, data=data)

    def lose(*names):
        for name in names:
            (small_source / "images" / name).unlink()

    lose("0.png")
    stored = record.make(experiment(), record.History())
    record.check_same_run(experiment(), stored)
    assert capsys.readouterr().err == ""
    lose("12.png")  # of the test split: the training goes on, but is told
    record.check_same_run(experiment(), stored)
    told = "1 image used at that time can't be used now (12.png)."
    assert told in " ".join(capsys.readouterr().err.split())
    lose("1.png", "2.png", "3.png")
    named = r"vocabulary changed .*: 4 images used .* now \(1.png, 2.png, 3.png, ...\)$"
    with pytest.raises(ConfigError, match=named):
        record.check_same_run(experiment(), stored)
