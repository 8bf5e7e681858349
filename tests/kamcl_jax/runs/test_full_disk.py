"""Checkpoints on a disk that runs full: one sentence, and what was whole stays whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

WRITE = """
import sys
from functools import partial
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
import numpy as np
import optax
from linear_towers import create_state
from kamcl_jax.parallel import mesh as sharding
from kamcl_jax.errors import CheckpointError
from kamcl_jax.runs.checkpoints import Checkpoints

folder = Path(sys.argv[1])
make = partial(create_state, optax.adam(1e-3), embedding_size=32, queue_length=2000)
place = sharding.replicated(sharding.make_mesh()).whole
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

ON_A_SMALL_DISK = """
mount -t tmpfs -o size=2560k tmpfs "$2" &&
head -c 900000 /dev/zero > "$2/filled" &&
exec "$0" -c "$1" "$2/checkpoints"
"""


def test_a_full_disk_is_told_and_loses_no_checkpoint(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "fixtures")])
    try:
        done = subprocess.run(
            [
                *("unshare", "--map-root-user", "--mount", "sh", "-c"),
                *(ON_A_SMALL_DISK, sys.executable, WRITE, str(tmp_path)),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode and ("unshare:" in done.stderr or "mount:" in done.stderr):
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    told, whole, latest, afterwards = done.stdout.splitlines()
    assert told == (
        f"a checkpoint cannot be written to {tmp_path}/checkpoints: No space left on device; "
        f"the last one is of step {whole}"
    )
    assert latest == whole
    assert int(afterwards) == int(whole) + 1
