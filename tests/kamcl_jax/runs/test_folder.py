import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kamcl_jax.errors import ConfigError
from kamcl_jax.runs import folder

ROOT = Path(__file__).resolve().parents[3]

HOLD = """
import sys, time
from pathlib import Path
from kamcl_jax.runs import folder as run_folder
with run_folder.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

ON_DISKS = """
import sys
from pathlib import Path
from kamcl_jax.runs import folder as run_folder
from kamcl_jax.errors import ConfigError
def enter(workdir):
    with run_folder.lock(workdir):
        pass
for disk in map(Path, sys.argv[1:]):
    for call in (run_folder.check, enter):
        for workdir in (disk, disk / "new"):
            try:
                call(workdir)
                print("passed")
            except ConfigError as error:
                print(error)
"""

ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("name", ["", "run", "deep/below/run"])
def test_a_folder_that_can_be_made_passes_and_nothing_is_left(tmp_path, name):
    folder.check(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"cannot be (a folder|written)"):
            folder.check(workdir)


def test_a_link_to_nothing_is_no_folder(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="run is a link to nothing"):
        folder.check(tmp_path / "run")


def test_a_second_training_refuses_and_a_killed_one_leaves_no_lock(tmp_path):
    workdir = tmp_path / "runs" / "one"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        sentence = (
            f"another training runs in {workdir} (process {holder.pid} on {socket.gethostname()})"
        )
        for _ in range(2):  # who was refused takes nothing from the holder
            with pytest.raises(ConfigError) as caught, folder.lock(workdir):
                pass
            assert str(caught.value) == sentence
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with folder.lock(workdir):
        # A record of one that was killed would name the wrong one.
        (workdir / "training.process").write_text(
            f'{{"process": {holder.pid}, "host": "{socket.gethostname()}"}}'
        )
        with pytest.raises(ConfigError) as caught, folder.lock(workdir):
            pass
        assert str(caught.value) == f"another training runs in {workdir}"
    assert [path.name for path in workdir.iterdir()] == ["training.lock"]


def test_an_error_within_gives_the_folder_back(tmp_path):
    with pytest.raises(KeyError), folder.lock(tmp_path):
        raise KeyError
    with folder.lock(tmp_path):
        pass


def test_a_read_only_and_a_full_disk_are_told():
    # Mounted where only the script sees them.
    script = """
    mount -t tmpfs disks /mnt && mkdir /mnt/read /mnt/full &&
    mount -t tmpfs -o ro disk /mnt/read && mount -t tmpfs -o size=64k disk /mnt/full &&
    (head -c 99999 /dev/zero > /mnt/full/filled 2> /dev/null || true) &&
    exec "$0" -c "$1" /mnt/read /mnt/full
    """
    try:
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script, sys.executable, ON_DISKS],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode and ("unshare:" in done.stderr or "mount:" in done.stderr):
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"--workdir=/mnt/{disk}{name} cannot be written: {reason}"
        for disk, reason in (
            ("read", "Read-only file system"),
            ("full", "No space left on device"),
        )
        for name in ("", "/new") * 2
    ]
