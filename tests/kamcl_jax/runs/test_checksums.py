from functools import partial

import jax
import numpy as np
import optax
from linear_towers import create_state

from kamcl_jax.parallel import mesh
from kamcl_jax.runs.checksums import checksums
from kamcl_jax.step.state import state_layout

make_state = jax.jit(partial(create_state, optax.adam(1e-3), queue_length=64))


def test_a_sum_is_that_of_a_plain_loop():
    array = np.array([[1.5, -2.0], [0.0, 3.25]], np.float32)
    words = [int(word) for word in array.ravel().view(np.uint32)]
    expected = sum(word * (2 * place + 1) for place, word in enumerate(words)) % 2**32
    assert checksums({"a": {"b": array}}) == {"a['b']": expected}


def test_what_changed_places_is_found():
    state = make_state()
    for change in (lambda x: x[::-1], lambda x: x.T.reshape(x.shape)):
        keys = change(state.text_queue.keys)
        changed = state.replace(text_queue=state.text_queue.replace(keys=keys))
        assert checksums(changed) != checksums(state)


def test_every_changed_bit_is_found_and_devices_do_not_matter():
    state = make_state()
    layout = state_layout(
        mesh.make_mesh(2, 4), jax.eval_shape(make_state), fsdp_min_size=64, queue="sharded"
    )
    expected = checksums(state)
    assert checksums(jax.device_put(state, layout.state)) == expected
    keys = np.array(state.text_queue.keys)
    keys.view(np.uint32)[3, 5] ^= 1 << 30
    changed = state.replace(text_queue=state.text_queue.replace(keys=keys))
    now = checksums(changed)
    assert {name for name in expected if now[name] != expected[name]} == {"text_queue.keys"}
