import errno
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from linear_towers import create_state

from kamcl_jax.errors import CheckpointError, DamagedCheckpointError
from kamcl_jax.parallel import mesh as sharding
from kamcl_jax.runs import checksums
from kamcl_jax.runs.checkpoints import Checkpoints
from kamcl_jax.step.state import state_layout

make_state = jax.jit(partial(create_state, optax.adam(1e-3), queue_length=64))
RECORD = {"epoch": 1, "words": ["größe"]}


def layout_on(data, fsdp=1, queue="replicated"):
    mesh = sharding.make_mesh(data, fsdp)
    abstract = jax.eval_shape(make_state)
    return state_layout(mesh, abstract, fsdp_min_size=64, queue=queue)


def state_after(step, layout):
    state = make_state()
    return jax.device_put(state.replace(step=state.step + step), layout.state)


def equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(left), jax.device_get(right))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Checkpoints of five steps; the second is the best, the fourth was not validated."""
    folder = tmp_path_factory.mktemp("checkpoints")
    layout = layout_on(4, 2, "sharded")
    with Checkpoints(folder, keep=2) as checkpoints:
        for step, recall in ((1, 10.0), (2, 30.0), (3, 20.0), (4, None), (5, 15.0)):
            metrics = None if recall is None else {"mR": recall}
            checkpoints.save(state_after(step, layout), metrics, {**RECORD, "epoch": step})
    return folder


@pytest.fixture
def copied(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "run" / "checkpoints"))


def test_the_latest_and_the_best_are_kept(written):
    with Checkpoints(written, read_only=True) as checkpoints:
        assert checkpoints.steps == [2, 4, 5]
        assert checkpoints.latest == 5
        assert checkpoints.best == checkpoints.best_or_latest == 2
        assert checkpoints.score(2) == 30
        assert checkpoints.score(4) is None
        assert checkpoints.record(4) == {**RECORD, "epoch": 4}


@pytest.mark.parametrize("place", [(1, 1), (2, 1), (1, 2, "sharded"), (8, 1), (1, 8, "sharded")])
def test_a_state_comes_back_bit_for_bit_on_any_mesh(written, place):
    layout = layout_on(*place)
    with Checkpoints(written, read_only=True) as checkpoints:
        restored = checkpoints.restore(5, jax.eval_shape(make_state), layout.state)
    assert restored.step == restored.state.step == 5
    assert restored.record["epoch"] == 5
    equal(restored.state, state_after(5, layout_on(1)))
    lies = jax.tree.map(lambda leaf: leaf.sharding.spec, restored.state)
    assert lies == jax.tree.map(lambda where: where.spec, layout.state)


def test_the_fields_that_retrieve_come_back_alone(written):
    layout, abstract = layout_on(2, 2), jax.eval_shape(make_state)
    fields = ("params", "batch_stats", "step")
    with Checkpoints(written, read_only=True) as checkpoints:
        restored = checkpoints.restore_fields(4, abstract, layout.state, fields)
    expected = state_after(4, layout_on(1))
    assert restored.keys() == set(fields)
    equal(restored, {field: getattr(expected, field) for field in fields})
    assert restored["params"]["text"]["kernel"].sharding.spec == PartitionSpec("fsdp")


def test_who_has_written_can_read(tmp_path):
    layout, abstract = layout_on(2), jax.eval_shape(make_state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_after(1, layout), None, RECORD)
        checkpoints.wait()
        fields = checkpoints.restore_fields(1, abstract, layout.state, ("params",))
        whole = checkpoints.restore(1, abstract, layout.state).state
    equal(fields["params"], whole.params)
    equal(whole, state_after(1, layout))


def test_from_eight_devices_to_two_to_one(tmp_path):
    """As a run that moves from machine to machine."""
    abstract = jax.eval_shape(make_state)
    state = state_after(1, layout_on(4, 2, "sharded"))
    for step, place in ((1, (1, 2, "sharded")), (2, (1, 1)), (3, (2, 4))):
        folder = tmp_path / str(step)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(state, {"mR": 1.0}, RECORD)
        with Checkpoints(folder, read_only=True) as checkpoints:
            restored = checkpoints.restore(1, abstract, layout_on(*place).state)
        equal(restored.state, state)
        state = restored.state


def test_a_checkpoint_that_can_be_read_but_is_another_is_found(copied, monkeypatch):
    original = checksums._sums_of_bits
    monkeypatch.setattr(
        checksums, "_sums_of_bits", lambda leaves: [x + 1 for x in original(leaves)]
    )
    with (
        Checkpoints(copied, read_only=True) as checkpoints,
        pytest.raises(DamagedCheckpointError, match=r"step 5 in .* is damaged: \S+ is not what"),
    ):
        checkpoints.restore(5, jax.eval_shape(make_state), layout_on(1).state)


def damage(folder, how):
    """Damages all files of a checkpoint's state, or those of its record."""
    files = [path for path in (folder / "state").rglob("*") if path.is_file()]
    if how == "no record":
        shutil.rmtree(folder / "record")
    elif how == "no state":
        shutil.rmtree(folder / "state")
    elif how == "zeros":
        for path in files:
            path.write_bytes(bytes(path.stat().st_size))
    elif how == "cut":
        for path in files:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "record cut":
        for path in (folder / "record").rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:30])


@pytest.mark.parametrize("content", ["", '{"mR": 1', "[1]", '{"mR": "x"}'])
def test_damaged_metrics_of_one_step_leave_the_others_usable(copied, content):
    (copied / "5" / "metrics" / "metrics").write_text(content)
    with pytest.raises(
        DamagedCheckpointError, match=r"step 5 in .* has damaged metrics; --mode=tr"
    ):
        Checkpoints(copied, read_only=True)
    with Checkpoints(copied) as checkpoints:
        assert checkpoints.steps == [2, 4]
        assert checkpoints.best_first == [2, 4]
    assert (copied.parent / "damaged_checkpoints" / "5").is_dir()


def test_what_another_try_may_read_is_not_called_damaged(copied, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "somewhere")

    with Checkpoints(copied, read_only=True) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", denied)
        with pytest.raises(CheckpointError, match="cannot be read: Permission denied") as caught:
            checkpoints.record(5)
        assert not isinstance(caught.value, DamagedCheckpointError)


@pytest.mark.parametrize("how", ["no record", "no state", "zeros", "cut", "record cut"])
def test_damage_is_told_in_one_sentence_and_the_one_before_is_whole(copied, how):
    damage(copied / "5", how)
    abstract, where = jax.eval_shape(make_state), layout_on(1).state
    with Checkpoints(copied) as checkpoints:
        with pytest.raises(DamagedCheckpointError, match=r"^the checkpoint of step 5 in .+: .+$"):
            checkpoints.restore(5, abstract, where)
        equal(checkpoints.restore(4, abstract, where).state, state_after(4, layout_on(1)))
        aside = checkpoints.set_aside([5])
        assert [path.name for path in aside.iterdir()] == ["5"]
        assert checkpoints.latest == 4
        # The step can be written again.
        checkpoints.save(state_after(5, layout_on(1)), {"mR": 1.0}, RECORD)
        checkpoints.wait()
        equal(checkpoints.restore(5, abstract, where).state, state_after(5, layout_on(1)))


def test_a_state_of_another_shape_is_damaged_or_foreign(copied):
    other = jax.eval_shape(partial(create_state, optax.adam(1e-3), queue_length=60))
    with (
        Checkpoints(copied, read_only=True) as checkpoints,
        pytest.raises(DamagedCheckpointError, match="step 5"),
    ):
        checkpoints.restore(5, other, layout_on(1).whole)


def test_what_a_killed_process_left_is_removed_by_the_next_writer_only(copied):
    left = copied / "9.orbax-checkpoint-tmp"
    shutil.copytree(copied / "5", left)
    with Checkpoints(copied, read_only=True) as checkpoints:
        assert checkpoints.latest == 5
    assert left.exists()
    with Checkpoints(copied) as checkpoints:
        assert checkpoints.latest == 5
        checkpoints.save(state_after(9, layout_on(1)), None, RECORD)
    assert not left.exists()


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.latest is None
        assert checkpoints.best is None
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            _ = checkpoints.best_or_latest
