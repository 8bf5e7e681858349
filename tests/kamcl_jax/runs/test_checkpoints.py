import errno
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import small_disks
from jax.sharding import PartitionSpec
from linear_towers import create_state

from kamcl_jax.errors import CheckpointError, DamagedCheckpointError
from kamcl_jax.parallel.mesh import make_mesh
from kamcl_jax.runs import record
from kamcl_jax.runs.checkpoints import Checkpoints
from kamcl_jax.step.state import state_layout

make_state = jax.jit(partial(create_state, optax.adam(1e-3), queue_length=64))
RECORD = {"epoch": 1, "words": ["größe"]}
TENSORSTORE = "DATA_LOSS: Error reading {}: {} [os_error_code='{}']"


def layout_on(data, fsdp=1, queue="replicated"):
    mesh = make_mesh(data, fsdp)
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
        assert checkpoints.best_first == [2, 5, 4]
        assert checkpoints.best_or_latest == 2
        assert checkpoints.score(2) == 30
        assert checkpoints.score(4) is None
        assert checkpoints.record(4) == {**RECORD, "epoch": 4}


def test_the_fields_that_retrieve_come_back_alone(written):
    layout, abstract = layout_on(2, 2), jax.eval_shape(make_state)
    fields = {"params": "params", "statistics": "key_batch_stats", "step": "step"}
    with Checkpoints(written, read_only=True) as checkpoints:
        restored = checkpoints.restore_fields(4, abstract, layout.state, fields)
    expected = state_after(4, layout_on(1))
    assert restored.keys() == fields.keys()
    equal(restored, {name: getattr(expected, field) for name, field in fields.items()})
    assert restored["params"]["text"]["kernel"].sharding.spec == PartitionSpec("fsdp")


def test_a_state_comes_back_bit_for_bit_on_any_mesh(tmp_path):
    """As a run that moves from machine to machine."""
    abstract = jax.eval_shape(make_state)
    state = expected = state_after(1, layout_on(4, 2, "sharded"))
    for step, place in enumerate([(1, 2, "sharded"), (1, 1), (1, 8, "sharded"), (8, 1), (2, 4)]):
        layout = layout_on(*place)
        with Checkpoints(tmp_path / str(step)) as checkpoints:
            checkpoints.save(state, {"mR": 1.0}, RECORD)
            checkpoints.wait()
            restored = checkpoints.restore(1, abstract, layout.state)
        assert restored.record == RECORD
        state = restored.state
        equal(state, expected)
        lies = jax.tree.map(lambda leaf: leaf.sharding.spec, state)
        assert lies == jax.tree.map(lambda where: where.spec, layout.state)


def test_a_checkpoint_that_can_be_read_but_is_another_is_found(copied, monkeypatch):
    original = record._sums
    monkeypatch.setattr(record, "_sums", lambda leaves: [x + 1 for x in original(leaves)])
    with (
        Checkpoints(copied, read_only=True) as checkpoints,
        pytest.raises(DamagedCheckpointError, match=r"step 5 in .* is damaged: \S+ is not what"),
    ):
        checkpoints.restore(5, jax.eval_shape(make_state), layout_on(1).state)


def rewritten(change):
    def damage(folder):
        for path in filter(Path.is_file, folder.rglob("*")):
            path.write_bytes(change(path.read_bytes()))

    return damage


zeros = rewritten(lambda content: bytes(len(content)))
cut = rewritten(lambda content: content[: len(content) // 2])


@pytest.mark.parametrize("content", ["", '{"mR": "x"}'])
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


@pytest.mark.parametrize(
    ("error", "reason", "damaged"),
    [
        (OSError(errno.ENOENT, "gone", "a/b"), "No such file or directory", True),
        (ValueError(TENSORSTORE.format("a/b", "it is full", 28)), "No space left on device", True),
        (ValueError(TENSORSTORE.format("a/b", "no", 13)), "Permission denied", False),
        (ValueError("RESOURCE_EXHAUSTED: no memory\nmore"), "RESOURCE_EXHAUSTED: no memory", False),
        (KeyError(), "KeyError", True),
        (ValueError("x" * 1000), "x" * 300, True),
    ],
)
def test_the_reason_is_one_line_and_what_another_try_may_read_is_not_called_damaged(
    written, monkeypatch, error, reason, damaged
):
    def fail(*_, **__):
        raise error

    with Checkpoints(written, read_only=True) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", fail)
        what = "is damaged" if damaged else "cannot be read"
        with pytest.raises(CheckpointError, match=f"{what}: {reason}$") as caught:
            checkpoints.record(5)
        assert isinstance(caught.value, DamagedCheckpointError) == damaged


@pytest.mark.parametrize(
    ("damage", "item"),
    [(shutil.rmtree, "record"), (zeros, "state"), (cut, "state"), (cut, "record")],
)
def test_damage_is_told_in_one_sentence_and_the_one_before_is_whole(copied, damage, item):
    damage(copied / "5" / item)
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


UNTIL_FULL = """
import sys
from functools import partial
from pathlib import Path
import jax
import numpy as np
import optax
from linear_towers import create_state
from kamcl_jax.errors import CheckpointError
from kamcl_jax.parallel import mesh
from kamcl_jax.runs.checkpoints import Checkpoints

folder = Path(sys.argv[1]) / "checkpoints"
make = partial(create_state, optax.adam(1e-3), embedding_size=32, queue_length=2000)
place = mesh.replicated(mesh.make_mesh()).whole
state = jax.device_put(make(), place)
try:
    with Checkpoints(folder) as checkpoints:
        for step in range(1, 100):
            state = state.replace(step=state.step + 1)
            checkpoints.save(state, {"mR": float(-step)}, {"step": step})
            checkpoints.wait()
            whole = step
except CheckpointError as error:
    print(error)
print(whole)
# The next start finds the last whole one, and can go on once there is space.
with Checkpoints(folder) as checkpoints:
    print(checkpoints.latest)
    restored = checkpoints.restore(whole, jax.eval_shape(make), place)
    np.testing.assert_array_equal(restored.state.text_queue.keys, state.text_queue.keys)
(folder.parent / "filled").unlink()
with Checkpoints(folder) as checkpoints:
    checkpoints.save(state.replace(step=whole + 1), {"mR": 0.0}, {})
    checkpoints.wait()
    print(checkpoints.latest)
"""


def test_a_full_disk_is_told_and_loses_no_checkpoint(tmp_path):
    mount = 'mount -t tmpfs -o size=2560k tmpfs "$2"; head -c 900000 /dev/zero > "$2/filled"'
    told, whole, latest, afterwards = small_disks.run(mount, UNTIL_FULL, tmp_path)
    assert told == (
        f"a checkpoint cannot be written to {tmp_path}/checkpoints: No space left on device; "
        f"the last one is of step {whole}"
    )
    assert latest == whole
    assert int(afterwards) == int(whole) + 1
