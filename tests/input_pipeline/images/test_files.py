"""Image files are found only within their folder."""

import os

import pytest

from input_pipeline.errors import DataError
from input_pipeline.images.files import (
    FoundImage,
    UnreadableImageError,
    find_folder,
    locate,
    naming_advice,
    read_bytes,
)

LINK_OUT = "a link out of the image folder"


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


class TestFindFolder:
    def test_the_first_that_is_there(self, root):
        write(root, "Images")  # a file, not a folder
        assert find_folder(root, ["imgs", "Images", "images"]) == root / "images"
        (root / "imgs").mkdir()
        assert find_folder(root, ["imgs", "images"]) == root / "imgs"
        with pytest.raises(DataError) as error:
            find_folder(root, ["pics", "pictures"])
        expected = f"There is no image folder; tried: {root}/pics, {root}/pictures."
        assert str(error.value) == expected

    def test_an_absolute_path_is_taken_as_it_is(self, images, tmp_path):
        (tmp_path / "link").symlink_to(images)
        assert find_folder(images, [f"{tmp_path}/link"]) == tmp_path / "link"

    @pytest.mark.parametrize("name", ["..", "images/../..", "link", "images/link"])
    def test_a_relative_name_that_leads_out_is_refused_with_the_flag_to_write(
        self, root, tmp_path, name
    ):
        (root / "link").symlink_to(tmp_path)
        (root / "images" / "link").symlink_to(tmp_path)
        with pytest.raises(DataError) as error:
            find_folder(root, [name, "images"])
        target = tmp_path.resolve()
        assert str(error.value) == (
            f"The image folder {root / name} leads to {target}, outside of {root}. If you mean "
            f"that folder, write --config.data.options.images={target}."
        )
        assert find_folder(root, [str(target)]) == target

    def test_links_within_are_fine_and_so_is_a_root_that_is_one(self, root, tmp_path):
        (root / "link").symlink_to("images")
        (tmp_path / "linked").symlink_to(root)
        assert find_folder(tmp_path / "linked", ["link"]) == tmp_path / "linked" / "link"


class TestLocate:
    def test_found_files_are_described(self, images):
        write(images, "a.jpg", content=b"12345")
        os.utime(images / "a.jpg", ns=(1, 1_234_567_891))
        assert locate(images, [["a.jpg"]]) == [FoundImage(images / "a.jpg", 5, 1_234_567_891)]

    def test_the_first_candidate_that_is_there_counts(self, images):
        candidates = ["a.jpg", "class/a.jpg"]

        def sizes():
            located = locate(images, [candidates, candidates[::-1]])
            return [found.num_bytes for found in located]

        write(images, "class/a.jpg")
        assert sizes() == [1, 1]
        write(images, "a.jpg", content=b"12")
        assert sizes() == [2, 1]

    def test_missing(self, images):
        write(images, "a.jpg")
        names = [["b.jpg"], ["c/b.jpg", "d/b.jpg"], ["a.jpg/b.jpg"], ["a.jpg/"], []]
        assert locate(images, names) == ["missing"] * 5

    def test_what_is_no_file(self, images):
        (images / "a.jpg").mkdir()
        os.mkfifo(images / "b.jpg")
        folder, other = "a folder, not a file", "not a regular file"
        assert locate(images, [["a.jpg"], ["b.jpg"], [""]]) == [folder, other, folder]
        with pytest.raises(UnreadableImageError, match=f"^{folder}$"):
            read_bytes(images / "a.jpg")

    @pytest.mark.parametrize("name", ["../a.jpg", "b/../../a.jpg", "/a.jpg", "..", "b/.."])
    def test_names_that_lead_out(self, root, images, name):
        write(root, "a.jpg", "images/b/b.jpg")
        assert locate(images, [[name]]) == ["a name that leads out of the image folder"]

    @pytest.mark.parametrize("name", ["a\0.jpg", "\0/a.jpg", "\ud800.jpg", "\ud800/a.jpg"])
    def test_what_cannot_be_a_name(self, images, name):
        assert locate(images, [[name]]) == ["not a file name"]
        assert locate(images, [["a" * 300]]) == ["unreadable (File name too long)"]

    def test_links_within_are_followed(self, images):
        write(images, "class/a.jpg", content=b"123")
        (images / "file.jpg").symlink_to("class/a.jpg")
        (images / "folder").symlink_to(images / "class")
        found = locate(images, [["file.jpg"], ["folder/a.jpg"]])
        assert [(each.path, each.num_bytes) for each in found] == [
            (images / "file.jpg", 3),
            (images / "folder/a.jpg", 3),
        ]

    def test_links_that_lead_out_or_nowhere(self, root, images, tmp_path):
        # A folder whose name begins as that of the images does is outside, too.
        write(root, "images2/a.jpg")
        links = {
            "file.jpg": (root / "images2" / "a.jpg", LINK_OUT),
            "folder": (root / "images2", LINK_OUT),
            "twice.jpg": ("folder/a.jpg", LINK_OUT),
            "nothing.jpg": ("missing.jpg", "a link to nothing"),
            "circle.jpg": ("circle.jpg", "a link in a circle"),
        }
        for name, (target, _) in links.items():
            (images / name).symlink_to(target)
        reasons = [reason for _, reason in links.values()]
        assert locate(images, [[name] for name in links]) == reasons
        assert locate(images, [["folder/a.jpg"]]) == [LINK_OUT]

    def test_the_image_folder_may_itself_be_a_link(self, images, tmp_path):
        write(images, "a.jpg")
        (tmp_path / "link").symlink_to(images)
        [found] = locate(tmp_path / "link", [["a.jpg"]])
        assert found.path == tmp_path / "link" / "a.jpg"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_no_permission(self, images):
        write(images, "closed/a.jpg", "b.jpg")
        (images / "b.jpg").chmod(0)
        (images / "closed").chmod(0)
        try:
            assert locate(images, [["closed/a.jpg"]]) == ["no permission"]
            with pytest.raises(UnreadableImageError, match=r"^no permission$"):
                read_bytes(images / "b.jpg")
        finally:
            (images / "closed").chmod(0o700)


@pytest.mark.parametrize(
    ("missing", "count", "change"),
    [
        (["images/1.jpg", "images/sub/2.JPG"], 2, "without 'images/'"),
        (["data/images/1.jpg", "images/1.jpg"], 1, "without 'data/images/'"),
        (["1", "sub/2"], 1, "with '.jpg'"),
        (["gone", "sub/2"], 1, "with '.JPG'"),
        (["images/1", "gone"], 1, "without 'images/' and with '.jpg'"),
    ],
)
def test_it_is_told_how_missing_images_would_be_found(images, missing, count, change):
    write(images, "1.jpg", "1.json.jpg", "10.jpg", "sub/2.JPG")
    expected = f"{count} of the {len(missing)} missing images would be found {change}."
    assert naming_advice(images, missing) == expected


@pytest.mark.parametrize("missing", ["2.jpg", "1.png", "sub", "*", "images/2.jpg", "1.jp"])
def test_there_is_no_advice_where_no_other_name_would_do(images, missing):
    write(images, "1.jpg", "sub/1.jpg")
    assert naming_advice(images, [missing]) == ""
