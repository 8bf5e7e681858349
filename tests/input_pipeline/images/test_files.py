"""Image files are found only within their folder."""

import os
import re

import pytest
from refusals import refusal

from input_pipeline.images.files import (
    FoundImage,
    UnreadableImageError,
    find_folder,
    locate,
    naming_advice,
    read_bytes,
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "images").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def images(root):
    return root / "images"


def write(folder, *names, content=b"1"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_the_first_image_folder_that_is_there_is_found(root, tmp_path):
    write(root, "Images")  # a file, not a folder
    assert find_folder(root, ["imgs", "Images", "images"]) == root / "images"
    expected = f"There is no image folder; tried: {root}/pics, {root}/pictures."
    assert refusal(find_folder, root, ["pics", "pictures"]) == expected
    # Links within are fine, and so is a root that is one.
    (root / "link").symlink_to("images")
    (tmp_path / "linked").symlink_to(root)
    assert find_folder(tmp_path / "linked", ["link"]) == tmp_path / "linked" / "link"


@pytest.mark.parametrize("name", ["..", "images/../..", "link", "images/link"])
def test_a_relative_name_that_leads_out_is_refused_with_the_flag_to_write(root, tmp_path, name):
    (root / "link").symlink_to(tmp_path)
    (root / "images" / "link").symlink_to(tmp_path)
    assert refusal(find_folder, root, [name, "images"]) == (
        f"The image folder {root / name} leads to {tmp_path}, outside of {root}. If you mean "
        f"that folder, write --config.data.options.images={tmp_path}."
    )
    # An absolute path is taken as it is.
    assert find_folder(root, [f"{root}/link"]) == root / "link"


def test_the_first_candidate_that_is_there_counts(images):
    write(images, "class/a.jpg")
    os.utime(images / "class/a.jpg", ns=(1, 1_234_567_891))
    candidates = ["a.jpg", "class/a.jpg"]
    in_class = FoundImage(images / "class/a.jpg", 1, 1_234_567_891)
    assert locate(images, [candidates, candidates[::-1]]) == [in_class, in_class]
    write(images, "a.jpg", content=b"12")
    first, second = locate(images, [candidates, candidates[::-1]])
    assert (first.path, first.num_bytes, second) == (images / "a.jpg", 2, in_class)


FOLDER, LINK_OUT = "a folder, not a file", "a link out of the image folder"
NAME_OUT = "a name that leads out of the image folder"


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        (["b.jpg"], "missing"),
        (["c/b.jpg", "d/b.jpg"], "missing"),
        (["a.jpg/b.jpg"], "missing"),
        ([], "missing"),
        (["class"], FOLDER),
        ([""], FOLDER),
        (["pipe.jpg"], "not a regular file"),
        (["../a.jpg"], NAME_OUT),
        (["class/../../a.jpg"], NAME_OUT),
        (["/a.jpg"], NAME_OUT),
        (["class/.."], NAME_OUT),
        (["a\0.jpg"], "not a file name"),
        (["\ud800/a.jpg"], "not a file name"),
        (["a" * 300], "unreadable (File name too long)"),
        (["out.jpg"], LINK_OUT),
        (["out/a.jpg"], LINK_OUT),
        (["twice.jpg"], LINK_OUT),
        (["nothing.jpg"], "a link to nothing"),
        (["circle.jpg"], "a link in a circle"),
    ],
)
def test_why_an_image_is_not_found(root, images, candidates, reason):
    # A folder whose name begins as that of the images does is outside, too.
    write(root, "a.jpg", "images/a.jpg", "images/class/a.jpg", "images2/a.jpg")
    os.mkfifo(images / "pipe.jpg")
    links = {"out.jpg": root / "images2/a.jpg", "out": root / "images2", "twice.jpg": "out/a.jpg"}
    links |= {"nothing.jpg": "missing.jpg", "circle.jpg": "circle.jpg"}
    for name, target in links.items():
        (images / name).symlink_to(target)
    assert locate(images, [candidates]) == [reason]


def test_links_within_are_followed_and_so_is_an_image_folder_that_is_one(images, tmp_path):
    write(images, "class/a.jpg", content=b"123")
    (images / "file.jpg").symlink_to("class/a.jpg")
    (images / "folder").symlink_to(images / "class")
    (tmp_path / "link").symlink_to(images)
    for folder in (images, tmp_path / "link"):
        found = locate(folder, [["file.jpg"], ["folder/a.jpg"]])
        assert [each.path for each in found] == [folder / "file.jpg", folder / "folder/a.jpg"]
        assert [each.num_bytes for each in found] == [3, 3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(images):
    write(images, "closed/a.jpg")
    (images / "closed").chmod(0)
    try:
        assert locate(images, [["closed/a.jpg"]]) == ["no permission"]
        with pytest.raises(UnreadableImageError, match="no permission"):
            read_bytes(images / "closed/a.jpg")
    finally:
        (images / "closed").chmod(0o700)


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        (["images/1.jpg", "images/sub/2.JPG"], "2 of the 2 .* found without 'images/'."),
        (["data/images/1.jpg", "images/1.jpg"], "1 of the 2 .* found without 'data/images/'."),
        (["1", "sub/2"], "1 of the 2 .* found with '.jpg'."),
        (["gone", "sub/2"], "1 of the 2 .* found with '.JPG'."),
        (["images/1", "gone"], "1 of the 2 .* found without 'images/' and with '.jpg'."),
        # No other name would do.
        (["2.jpg", "1.png", "sub", "*", "images/2.jpg", "1.jp"], ""),
    ],
)
def test_it_is_told_how_missing_images_would_be_found(images, missing, advice):
    write(images, "1.jpg", "1.json.jpg", "10.jpg", "sub/2.JPG")
    assert re.fullmatch(advice, naming_advice(images, missing))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        read_bytes(tmp_path / "pipe.jpg")
