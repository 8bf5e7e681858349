"""Files and folders appear whole or not at all, and a lock ends with its process."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from input_pipeline import storage
from input_pipeline.errors import DataError


def test_files_and_folders_appear_when_their_block_has_ended(tmp_path):
    file_path, folder_path = tmp_path / "a.txt", tmp_path / "below" / "folder"
    file_path.write_text("old")
    with storage.replaced(file_path) as file, storage.written_folder(folder_path) as folder:
        file.write(b"new")
        file.flush()
        (folder / "file").write_text("content")
        assert file_path.read_text() == "old"
        assert not folder_path.exists()
    assert file_path.read_text() == "new"
    assert (folder_path / "file").read_text() == "content"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "below"]
    assert os.listdir(tmp_path / "below") == ["folder"]


def interrupt(path):
    with storage.replaced(path) as file, storage.written_folder(path.with_name("folder")) as folder:
        file.write(b"ne")
        (folder / "half").write_text("h")
        raise KeyboardInterrupt


def test_what_fails_midway_changes_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_who_waits_for_a_lock_says_so(tmp_path, capfd):
    held = threading.Event()

    def hold_shortly():
        with storage.lock(tmp_path):
            held.set()
            time.sleep(0.2)

    with ThreadPoolExecutor() as pool:
        pool.submit(hold_shortly)
        assert held.wait(30)
        with storage.lock(tmp_path):
            pass
    assert f"waiting for another process that writes into {tmp_path}" in capfd.readouterr().err


def hold(folder, held):
    with storage.lock(folder), storage.written_folder(folder / "made") as unfinished:
        (unfinished / "half").write_text("h")
        with storage.replaced(folder / "file"):
            held.set()
            time.sleep(60)


def test_a_killed_process_leaves_no_lock_and_nothing_to_trust(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    holder = spawn.Process(target=hold, args=(tmp_path, held))
    holder.start()
    assert held.wait(30)
    assert len(os.listdir(tmp_path)) == 3  # the lock and two things unfinished
    holder.kill()
    holder.join()
    with storage.lock(tmp_path):
        assert [name for name in os.listdir(tmp_path) if name != ".lock"] == []


def test_a_lock_leaves_alone_who_writes_without_it(tmp_path):
    with storage.replaced(tmp_path / "found.png", storage.PART) as file:
        file.write(b"found")
        with storage.lock(tmp_path):
            pass
    assert (tmp_path / "found.png").read_bytes() == b"found"


def test_a_folder_that_cannot_be_locked_is_named_with_what_to_do(tmp_path):
    (tmp_path / ".lock").mkdir()
    reason = f"Files can't be written into {tmp_path} .*: name another --index.$"
    with pytest.raises(DataError, match=reason), storage.lock(tmp_path, "name another --index"):
        pass
