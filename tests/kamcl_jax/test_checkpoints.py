import jax
import numpy as np
import pytest

from kamcl_jax import sharding
from kamcl_jax.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def written(tiny, one_device, tmp_path_factory):
    """Three checkpoints, of which the second is the best."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder)
    state = jax.device_put(tiny.state(), sharding.replicated(one_device))
    for step, recall in ((1, 10.0), (2, 30.0), (3, 20.0)):
        state = state.replace(step=state.step + 1)
        checkpoints.save(state, {"mR": recall}, {"epoch": step})
    checkpoints.close()
    return folder


def test_latest_and_best_are_kept(written):
    checkpoints = Checkpoints(written)
    assert checkpoints.latest == 3
    assert checkpoints.best == 2
    assert checkpoints.record(2) == {"epoch": 2}
    assert sorted(path.name for path in written.iterdir() if path.name.isdigit()) == ["2", "3"]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_state_comes_back_equal_on_any_number_of_devices(written, tiny, devices):
    checkpoints = Checkpoints(written)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    state = checkpoints.restore(3, jax.eval_shape(tiny.state), sharding.replicated(mesh))
    expected = tiny.state()
    assert int(state.step) == 3
    assert len(state.params["text"]["gpo"]["score"]["kernel"].sharding.device_set) == devices
    jax.tree.map(np.testing.assert_array_equal, state.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, expected.opt_state)
    np.testing.assert_array_equal(state.rng, expected.rng)


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.latest is None
    assert checkpoints.best is None
