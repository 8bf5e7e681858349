"""Image files are found only within their folder and checked wholly."""

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from handmade_images import colours, encode, png, tiff
from PIL import Image
from tqdm import tqdm

from input_pipeline import image_bar, image_conversion, image_files
from input_pipeline.errors import DataError
from input_pipeline.image_files import (
    FoundImage,
    UnreadableImageError,
    check,
    check_all,
    find_folder,
    locate,
    read_rgb,
    resize,
)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_resizing_is_bilinear_and_does_not_keep_proportions(size):
    image = Image.fromarray(colours(20, 33))
    resized = resize(encode(image, "PNG"), size)
    assert resized.dtype == np.uint8
    expected = image.resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected))


class TestRefusals:
    @pytest.mark.parametrize(
        ("encoded", "reason"),
        [
            (b"", "it is empty (0 bytes)"),
            (b"P", "its format is not known"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "its format is not known"),
            (b"%PDF-1.7\n", "its format is not known"),
            (b"\xff\xd8\xff", "it is a JPEG file, damaged or of an unknown kind"),
            (png(40000, 40000, 8, 2, []), "it has more than 100000000 pixels"),
            (png(10001, 10000, 8, 2, []), "it has more than 100000000 pixels"),
            (encode(Image.new("RGB", (64, 64)), "BMP")[:-1], "it is truncated"),
            (
                tiff("<", [8], 1, b"1234", t322=[46000], t323=[46000]),
                "it has tiles of more than 100000000 pixels",
            ),
        ],
    )
    def test_reasons(self, encoded, reason):
        with pytest.raises(UnreadableImageError) as refused:
            read_rgb(encoded)
        assert str(refused.value) == reason

    def test_postscript_starts_no_program(self, monkeypatch):
        encoded = encode(Image.fromarray(colours()), "EPS")
        monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program started"))
        with pytest.raises(UnreadableImageError, match=r"^its format is not known$"):
            read_rgb(encoded)

    def test_memory_that_runs_out_is_a_reason(self, monkeypatch):
        def convert(image):
            raise MemoryError

        monkeypatch.setattr(image_conversion, "to_rgb", convert)
        with pytest.raises(UnreadableImageError, match=r"^there is not enough memory for it$"):
            read_rgb(encode(Image.fromarray(colours()), "PNG"))

    def test_interruptions_go_through(self, monkeypatch):
        def convert(image):
            raise KeyboardInterrupt

        monkeypatch.setattr(image_conversion, "to_rgb", convert)
        with pytest.raises(KeyboardInterrupt):
            read_rgb(encode(Image.fromarray(colours()), "PNG"))

    def test_the_reason_is_one_printable_line(self, monkeypatch):
        def convert(image):
            raise OSError("one\ntwo\x1b[31m" + "x" * 1000)

        monkeypatch.setattr(image_conversion, "to_rgb", convert)
        with pytest.raises(UnreadableImageError) as refused:
            read_rgb(encode(Image.fromarray(colours()), "PNG"))
        assert str(refused.value).startswith("it is damaged (one two [31mxxx")
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 150


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
            assert [check(images / name) for [name] in names[:3]] == [folder, other, other]

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
            assert check(root / "images" / "b.jpg") == "no permission"
        finally:
            folder.chmod(0o700)


class TestCheck:
    def test_images_pass_and_others_have_a_reason(self, tmp_path, capsys):
        whole = encode(Image.fromarray(colours(64, 64)), "JPEG")
        contents = {"a.jpg": whole, "b.jpg": whole[:-200], "c.jpg": b"", "d.jpg": b"text"}
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        paths = [tmp_path / name for name in [*contents, "missing.jpg"]] * 30
        expected = [None, "it is truncated", "it is empty (0 bytes)", "its format is not known"]
        assert check_all(paths, "checking") == [*expected, "missing"] * 30
        assert [check(path) for path in paths[:5]] == [*expected, "missing"]
        assert capsys.readouterr().out == ""

    def test_the_name_does_not_decide_the_format(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(encode(Image.fromarray(colours()), "PNG"))
        assert check(tmp_path / "a.jpg") is None

    def test_no_files(self):
        assert check_all([], "checking") == []

    def test_large_files_are_not_read(self, tmp_path):
        path = tmp_path / "a.jpg"
        with path.open("wb") as file:
            file.truncate(2**30 + 1)  # takes no space
        assert check(path) == "it has 1073741825 bytes, more than 1073741824"

    def test_the_progress_bar_is_on_stderr(self, tmp_path, monkeypatch, capsys):
        at_once = lambda *args, delay, **options: tqdm(*args, **options)  # noqa: E731
        monkeypatch.setattr(image_bar, "tqdm", at_once)
        path = tmp_path / "a.png"
        path.write_bytes(encode(Image.fromarray(colours()), "PNG"))
        assert check_all([path] * 3, "checking images") == [None] * 3
        printed = capsys.readouterr()
        assert "checking images" in printed.err
        assert "3/3" in printed.err
        assert printed.out == ""

    def test_an_interruption_does_not_wait_for_the_other_files(self, monkeypatch):
        begun = []

        def slow_check(path):
            begun.append(path)
            time.sleep(0.001)

        def interrupted_bar(label, total, checked):
            yield next(checked)
            raise KeyboardInterrupt

        monkeypatch.setattr(image_files, "check", slow_check)
        monkeypatch.setattr(image_files, "image_bar", interrupted_bar)
        paths = [Path(str(number)) for number in range(2000)]
        with pytest.raises(KeyboardInterrupt):
            check_all(paths, "checking")
        assert 0 < len(begun) < len(paths) / 2
