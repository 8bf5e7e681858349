import os
import signal
import socket
import subprocess
import sys

import pytest
import small_disks

from kamcl_jax.errors import ConfigError
from kamcl_jax.runs import folder

HOLD = """
import sys, time
from pathlib import Path
from kamcl_jax.runs import folder
with folder.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

ON_DISKS = """
import sys
from pathlib import Path
from kamcl_jax.runs import folder
from kamcl_jax.errors import ConfigError
def enter(workdir):
    with folder.lock(workdir):
        pass
for disk in map(Path, sys.argv[1:]):
    for call in (folder.check_writable, enter):
        for workdir in (disk, disk / "new"):
            try:
                call(workdir)
                print("passed")
            except ConfigError as error:
                print(error)
"""


def test_a_folder_must_be_one_or_can_be_made_and_nothing_is_left(tmp_path):
    for name in ("", "run", "deep/below/run"):
        folder.check_writable(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name, kind in (("file", "a file"), ("file/run", "a file"), ("link", "a link to nothing")):
        with pytest.raises(ConfigError, match=f"cannot be a folder: .* is {kind}"):
            folder.check_writable(tmp_path / name)


def test_a_file_in_the_place_of_a_run_s_folder_is_told_before_training(tmp_path):
    (tmp_path / "report").write_text("")
    with pytest.raises(ConfigError, match="report is a file; it must be a folder"):
        folder.check_writable(tmp_path)


def test_a_run_does_not_replace_an_exported_model(tmp_path):
    for name in ("config.json", "model.safetensors"):
        folder.check_writable(tmp_path)
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match="is an exported model; a run needs another folder"):
        folder.check_writable(tmp_path)


def test_a_second_training_refuses_and_a_killed_one_leaves_no_lock(tmp_path):
    workdir = tmp_path / "runs" / "one"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(small_disks.ROOT)},
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
    with pytest.raises(KeyError), folder.lock(workdir):
        raise KeyError
    with folder.lock(workdir):  # an error within gives the folder back
        pass
    assert [path.name for path in workdir.iterdir()] == ["training.lock"]


def test_a_read_only_and_a_full_disk_are_told():
    mount = """
    mount -t tmpfs disks /mnt
    mkdir /mnt/read /mnt/full
    mount -t tmpfs -o ro disk /mnt/read
    mount -t tmpfs -o size=64k disk /mnt/full
    head -c 99999 /dev/zero > /mnt/full/filled 2> /dev/null || true
    """
    assert small_disks.run(mount, ON_DISKS, "/mnt/read", "/mnt/full") == [
        f"--workdir=/mnt/{disk}{name} cannot be written: {reason}"
        for disk, reason in (
            ("read", "Read-only file system"),
            ("full", "No space left on device"),
        )
        for name in ("", "/new") * 2
    ]
