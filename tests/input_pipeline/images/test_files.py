"""Image files are found only within their folder."""

import os
import socket

import pytest

from input_pipeline.errors import DataError
from input_pipeline.images.files import (
    FoundImage,
    UnreadableImageError,
    find_folder,
    locate,
    read_bytes,
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "images").mkdir(parents=True)
    return tmp_path / "root"


class TestFindFolder:
    def test_the_first_that_is_there(self, root):
        (root / "Images").write_text("a file, not a folder")
        assert find_folder(root, ["imgs", "Images", "images"]) == root / "images"
        (root / "imgs").mkdir()
        assert find_folder(root, ["imgs", "images"]) == root / "imgs"

    def test_none_is_there(self, root):
        with pytest.raises(DataError) as error:
            find_folder(root, ["imgs", "pictures"])
        expected = f"There is no image folder; tried: {root}/imgs, {root}/pictures."
        assert str(error.value) == expected

    def test_an_absolute_path_is_taken_as_it_is(self, root, tmp_path):
        assert find_folder(root, [str(tmp_path)]) == tmp_path
        (tmp_path / "link").symlink_to(root / "images")
        assert find_folder(root, [f"{tmp_path}/link"]) == tmp_path / "link"

    @pytest.mark.parametrize("name", ["..", "images/../..", "link", "images/link"])
    def test_a_relative_name_must_not_lead_out(self, root, tmp_path, name):
        (root / "link").symlink_to(tmp_path)
        (root / "images" / "link").symlink_to(tmp_path)
        with pytest.raises(DataError) as error:
            find_folder(root, [name, "images"])
        assert f"leads to {tmp_path.resolve()}, outside of {root}" in str(error.value)
        assert "absolute path" in str(error.value)

    def test_a_link_within_is_fine(self, root):
        (root / "link").symlink_to("images")
        assert find_folder(root, ["link"]) == root / "link"

    def test_the_root_may_itself_be_a_link(self, root, tmp_path):
        (tmp_path / "linked").symlink_to(root)
        assert find_folder(tmp_path / "linked", ["images"]) == tmp_path / "linked" / "images"


class TestLocate:
    def test_found_files_are_described(self, root):
        path = root / "images" / "a.jpg"
        path.write_bytes(b"12345")
        os.utime(path, ns=(1, 1_234_567_891))
        assert locate(root / "images", [["a.jpg"]]) == [FoundImage(path, 5, 1_234_567_891)]

    def test_the_first_candidate_that_is_there_counts(self, root):
        images = root / "images"
        (images / "class").mkdir()
        (images / "class" / "a.jpg").write_bytes(b"1")
        candidates = ["a.jpg", "class/a.jpg"]
        assert (
            locate(images, [candidates, candidates[::-1]])
            == [
                FoundImage(
                    images / "class" / "a.jpg", 1, os.stat(images / "class/a.jpg").st_mtime_ns
                )
            ]
            * 2
        )
        (images / "a.jpg").write_bytes(b"12")
        by_order = locate(images, [candidates, candidates[::-1]])
        assert [found.num_bytes for found in by_order] == [2, 1]

    def test_missing(self, root):
        (root / "images" / "a.jpg").write_bytes(b"1")
        names = [["b.jpg"], ["c/b.jpg", "d/b.jpg"], ["a.jpg/b.jpg"], ["a.jpg/"], []]
        assert locate(root / "images", names) == ["missing"] * 5

    def test_what_is_no_file(self, root, tmp_path, monkeypatch):
        images = root / "images"
        (images / "a.jpg").mkdir()
        os.mkfifo(images / "b.jpg")
        monkeypatch.chdir(images)  # the paths of sockets must be short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("c.jpg")
            names = [["a.jpg"], ["b.jpg"], ["c.jpg"], [""], ["."]]
            folder, other = "a folder, not a file", "not a regular file"
            assert locate(images, names) == [folder, other, other, folder, folder]
            for [name], reason in zip(names, [folder, other, other], strict=False):
                with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
                    read_bytes(images / name)

    @pytest.mark.parametrize("name", ["../a.jpg", "b/../../a.jpg", "/a.jpg", "..", "b/.."])
    def test_names_that_lead_out(self, root, name):
        (root / "images" / "b").mkdir()
        (root / "a.jpg").write_bytes(b"1")
        assert locate(root / "images", [[name]]) == ["a name that leads out of the image folder"]

    @pytest.mark.parametrize("name", ["a\0.jpg", "\0/a.jpg", "\ud800.jpg", "\ud800/a.jpg"])
    def test_what_cannot_be_a_name(self, root, name):
        assert locate(root / "images", [[name]]) == ["not a file name"]

    def test_a_name_that_is_too_long(self, root):
        assert locate(root / "images", [["a" * 300]]) == ["unreadable (File name too long)"]

    def test_links_within_are_followed(self, root):
        images = root / "images"
        (images / "class").mkdir()
        (images / "class" / "a.jpg").write_bytes(b"123")
        (images / "file.jpg").symlink_to("class/a.jpg")
        (images / "folder").symlink_to(images / "class")
        found = locate(images, [["file.jpg"], ["folder/a.jpg"]])
        assert [(each.path, each.num_bytes) for each in found] == [
            (images / "file.jpg", 3),
            (images / "folder/a.jpg", 3),
        ]

    def test_links_that_lead_out_or_nowhere(self, root, tmp_path):
        images = root / "images"
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "a.jpg").write_bytes(b"1")
        (images / "file.jpg").symlink_to(outside / "a.jpg")
        (images / "folder").symlink_to(outside)
        (images / "twice.jpg").symlink_to("folder/a.jpg")
        (images / "nothing.jpg").symlink_to("missing.jpg")
        (images / "circle.jpg").symlink_to("circle.jpg")
        (images / "pipe.jpg").symlink_to("pipe")
        os.mkfifo(images / "pipe")
        names = ["file.jpg", "folder/a.jpg", "twice.jpg", "nothing.jpg", "circle.jpg", "pipe.jpg"]
        out = "a link out of the image folder"
        nothing, circle = "a link to nothing", "a link in a circle"
        expected = [out, out, out, nothing, circle, "not a regular file"]
        assert locate(images, [[name] for name in names]) == expected

    def test_a_folder_with_a_longer_name_is_outside(self, root):
        (root / "images2").mkdir()
        (root / "images2" / "a.jpg").write_bytes(b"1")
        (root / "images" / "a.jpg").symlink_to(root / "images2" / "a.jpg")
        assert locate(root / "images", [["a.jpg"]]) == ["a link out of the image folder"]

    def test_the_image_folder_may_itself_be_a_link(self, root, tmp_path):
        (root / "images" / "a.jpg").write_bytes(b"1")
        (tmp_path / "link").symlink_to(root / "images")
        [found] = locate(tmp_path / "link", [["a.jpg"]])
        assert found.path == tmp_path / "link" / "a.jpg"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_no_permission(self, root):
        folder = root / "images" / "closed"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"1")
        (root / "images" / "b.jpg").write_bytes(b"1")
        (root / "images" / "b.jpg").chmod(0)
        folder.chmod(0)
        try:
            assert locate(root / "images", [["closed/a.jpg"]]) == ["no permission"]
            with pytest.raises(UnreadableImageError, match=r"^no permission$"):
                read_bytes(root / "images" / "b.jpg")
        finally:
            folder.chmod(0o700)
