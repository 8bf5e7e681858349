"""Indexing a folder: what is embedded, kept, dropped, left out, and left by an interruption."""

import contextlib
import dataclasses
import errno
import os
import shutil
import time

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny_index import IMAGES, changed, fill, noise

from input_pipeline.errors import DataError
from input_pipeline.images import files
from input_pipeline.images.bands import BandChoice
from kamcl_jax.inference import model as trained_model
from kamcl_jax.search import command
from kamcl_jax.search import index as image_index
from kamcl_jax.search.image_folder import find_images, read_images
from kamcl_jax.search.index import open_index
from kamcl_jax.search.update_index import index_images


@pytest.fixture
def read_files(monkeypatch):
    """The names of the image files that are read."""
    names, read_bytes = [], files.read_bytes
    monkeypatch.setattr(
        files, "read_bytes", lambda path: names.append(path.name) or read_bytes(path)
    )
    return names


def rows_by_name(folder):
    index = open_index(folder)
    rows = zip(index.files, index.embeddings, index.concepts, strict=True)
    return {name: (one.tobytes(), other.tobytes()) for name, one, other in rows}


def generations(folder):
    return [path.name for path in folder.glob("generation_*")]


def other_model(model):
    variables = jax.tree.map(lambda leaf: np.asarray(leaf) * 1.01, model.variables)
    return trained_model.assemble(9, model.config, model.words, variables)


def test_an_index_holds_its_model_and_what_it_says_of_each_file(tiny_index, tiny_model):
    assert tiny_index.files == sorted(tiny_index.files)
    assert len(tiny_index.files) == IMAGES
    paths = [tiny_index.path_of(row) for row in range(IMAGES)]
    encoded = tiny_model.encode_images_with_concepts(paths, batch_size=8)
    np.testing.assert_allclose(tiny_index.embeddings, encoded.embeddings, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tiny_index.concepts, encoded.concepts, rtol=0, atol=1e-3)
    assert tiny_index.concepts.dtype == np.float16
    assert tiny_index.concepts.shape == (IMAGES, len(tiny_model.concepts.words))
    caption = ["a plane over the pond"]
    of_index, of_model = (one.encode_texts(caption) for one in (tiny_index.model, tiny_model))
    np.testing.assert_array_equal(of_index, of_model)


def test_only_new_and_changed_files_are_read(copied_index, tiny_model, read_files):
    images, folder = copied_index
    before = rows_by_name(folder)
    images = images.rename(images.with_name("moved"))
    assert index_images(tiny_model, images, folder).embedded == []
    assert read_files == []
    assert open_index(folder).path_of(0).parent == images

    opened = open_index(folder)
    rows = opened.generation / image_index.EMBEDDINGS
    inode, start = rows.stat().st_ino, rows.read_bytes()
    noise(50).save(images / "more/new.png")
    index_images(tiny_model, images, folder)
    assert rows.stat().st_ino == inode  # appended: nothing is written again
    assert rows.read_bytes()[: len(start)] == start
    assert len(opened.embeddings) == IMAGES  # what was open has not changed
    assert open_index(folder).files == [*opened.files, "more/new.png"]

    read_files.clear()
    os.utime(images / "00.png", ns=(1, 1))
    noise(51).save(images / "02.png")
    (images / "04.png").unlink()
    done = index_images(tiny_model, images, folder)
    assert sorted(read_files) == sorted(done.embedded) == ["00.png", "02.png"]
    assert done.gone == ["04.png"]
    after = rows_by_name(folder)
    assert after.keys() == (before.keys() | {"more/new.png"}) - {"04.png"}
    assert {name for name in before.keys() & after if after[name] != before[name]} == {"02.png"}
    assert generations(folder) == ["generation_2"]


def test_images_are_read_in_order_and_no_further_ahead_than_told(tmp_path, read_files):
    fill(tmp_path, 20)
    states = sorted(find_images(tmp_path, tmp_path / "index").images.values())
    images = read_images(tmp_path, states, 8, BandChoice(), ahead=5)
    read = [next(images) for _ in range(3)]
    time.sleep(0.1)
    assert len(read_files) <= 5 + 3
    read += images
    assert [image.state for image in read] == states
    assert read[-1].pixels.shape == (8, 8, 3)
    assert read[-1].original_size == (50, 40)


def test_with_other_bands_all_are_embedded_anew(copied_index, tiny_model, capsys):
    (images, folder), choice = copied_index, BandChoice((5, 1, 2), (2, 98))
    bands = np.random.default_rng(0).normal(size=(30, 30, 5)).astype(np.float32)
    tifffile.imwrite(images / "a.tif", bands, photometric="minisblack", planarconfig="contig")
    unread = index_images(tiny_model, images, folder)
    assert "made with a stretch" in unread.unreadable["a.tif"]
    assert len(index_images(tiny_model, images, folder, choice).embedded) == IMAGES + 1
    assert f"{folder} was made with other --bands" in capsys.readouterr().err
    index = open_index(folder)
    assert index.settings.choice == choice
    assert generations(folder) == ["generation_2"]
    row = index.files.index("a.tif")
    expected = tiny_model.encode_images([index.read_image(row)])
    np.testing.assert_allclose(index.embeddings[row], expected[0], rtol=0, atol=1e-6)


def test_another_setting_of_captions_replaces_the_model_and_keeps_the_rows(
    copied_index, tiny_model, capsys, read_files
):
    (images, folder), captions = copied_index, ["planes", "a pond beside a road and a field"]
    before, other = rows_by_name(folder), changed(tiny_model, {"data.max_tokens": 3})
    done = index_images(other, images, folder)
    assert (done.embedded, len(done.kept), read_files) == ([], IMAGES, [])
    assert "made with another text encoder or settings of it" in capsys.readouterr().err
    assert rows_by_name(folder) == before
    expected = other.encode_texts(captions)
    assert np.abs(expected - tiny_model.encode_texts(captions)).max() > 1e-3
    found = open_index(folder).model.encode_texts(captions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert index_images(other, images, folder).embedded == []
    assert capsys.readouterr().err == ""
    assert generations(folder) == ["generation_2"]


class Killed(BaseException):
    """What no code catches."""


@contextlib.contextmanager
def killed_in_batch(number):
    """Ends the work, as a signal does, in a batch of images (from 1)."""
    encode, batches = trained_model.TrainedModel.encode_images_with_concepts, iter(range(number))

    def counted(*arguments):
        if next(batches) == number - 1:
            raise Killed
        return encode(*arguments)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(trained_model.TrainedModel, "encode_images_with_concepts", counted)
        yield
        pytest.fail("there were fewer batches")


def test_a_first_indexing_goes_on_where_it_was_killed(tiny_model, tmp_path, read_files):
    images, folder = tmp_path / "images", tmp_path / "index"
    fill(images, 21)
    with killed_in_batch(3):
        index_images(tiny_model, images, folder)
    assert len(open_index(folder).files) == 16  # and can be searched
    read_files.clear()
    done = index_images(tiny_model, images, folder)
    assert (len(done.kept), len(done.embedded), len(read_files)) == (16, 5, 5)
    index_images(tiny_model, images, tmp_path / "at once")
    found, expected = open_index(folder), open_index(tmp_path / "at once")
    assert found.files == expected.files
    # Batches of other sizes are other programs, which round differently.
    np.testing.assert_allclose(found.embeddings, expected.embeddings, rtol=0, atol=1e-6)


def test_an_index_stays_as_it_was_until_another_model_has_embedded_all(
    copied_index, tiny_model, read_files, capsys
):
    images, folder = copied_index
    before, model = rows_by_name(folder), other_model(tiny_model)
    noise(50).save(images / "02.png")
    with killed_in_batch(2):
        index_images(model, images, folder)
    assert f"{folder} was made with another model" in capsys.readouterr().err
    assert rows_by_name(folder) == before
    read_files.clear()
    done = index_images(model, images, folder)
    assert (len(done.kept), len(done.embedded), len(read_files)) == (8, 4, 4)
    assert len(open_index(folder).files) == IMAGES
    assert open_index(folder).model.step == model.step
    assert generations(folder) == ["generation_2"]


def test_what_a_killed_writer_left_half_written_does_not_count(copied_index, tiny_model):
    images, folder = copied_index
    before, generation = rows_by_name(folder), open_index(folder).generation
    for torn in ("files.jsonl", "embeddings.f32", "concepts.f16"):
        with (generation / torn).open("ab") as file:
            file.write(b'["half')
    (generation / ".faiss.index.abc.unfinished").write_bytes(b"half")  # a killed search's
    assert rows_by_name(folder) == before
    noise(50).save(images / "new.png")
    index_images(tiny_model, images, folder)
    after = rows_by_name(folder)
    fresh = open_index(folder).model.encode_images([images / "new.png"])
    np.testing.assert_allclose(np.frombuffer(after["new.png"][0], "<f4"), fresh[0], atol=1e-6)
    assert {name: after[name] for name in before} == before
    assert not list(generation.glob(".*"))


def test_a_kill_while_a_generation_is_removed_breaks_nothing(copied_index, tiny_model):
    images, folder = copied_index
    before = rows_by_name(folder)
    # Left by an indexing with other --bands that was killed; now it is of no use.
    with killed_in_batch(2):
        index_images(tiny_model, images, folder, BandChoice((3, 2, 1)))
    assert (folder / "generation_2").is_dir()

    def remove_half(path, ignore_errors):
        (path / "rows.json").unlink()
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_half)
        with pytest.raises(Killed):
            index_images(tiny_model, images, folder)
    assert index_images(tiny_model, images, folder).embedded == []
    assert rows_by_name(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "generation_1", "index.json"]


def test_an_index_can_be_opened_while_an_indexing_ends(copied_index, tiny_model, monkeypatch):
    images, folder = copied_index
    model, read_pointer = other_model(tiny_model), image_index.read_pointer

    def read_and_wait(folder):
        pointer = read_pointer(folder)
        monkeypatch.setattr(image_index, "read_pointer", read_pointer)
        index_images(model, images, folder)
        return pointer

    monkeypatch.setattr(image_index, "read_pointer", read_and_wait)
    index = open_index(folder, with_model=True)
    assert index.generation.name == "generation_2"
    shutil.rmtree(index.generation)
    assert index.model.step == model.step


def test_what_is_there_but_unreadable_is_not_called_gone(copied_index, tiny_model, monkeypatch):
    images, folder = copied_index
    scandir = os.scandir

    def refusing(path):
        if path == str(images / "more"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (images / "00.png").replace(images.parent / "00.png")
    (images / "00.png").symlink_to(images.parent / "00.png")
    (images / "02.png").unlink()
    done = index_images(tiny_model, images, folder)
    assert (done.gone, len(done.kept)) == (["02.png"], IMAGES // 2 - 2)
    assert done.unreadable == {
        "00.png": "a link out of the image folder",
        "more/": "unreadable (Permission denied)",
    }


def test_what_is_left_out_or_badly_seen_is_told(copied_index, tiny_model, tmp_path):
    images, outside, (_, other_index) = tmp_path / "new", tmp_path / "outside", copied_index
    fill(images, 2)
    fill(outside, 2)
    (images / ".hidden").mkdir()
    noise(0).save(images / ".hidden/a.png")
    noise(0).save(images / ".b.png")
    (images / "notes.txt").write_text("no image")
    (images / "README").write_text("no image")
    (images / "damaged.png").write_bytes((images / "00.png").read_bytes()[:200])
    (images / "folder.jpg").mkdir()
    (images / "folder.jpg/index.json").write_text("{}")  # alone it makes no index
    (images / "linked.png").symlink_to(outside / "00.png")
    (images / "again.png").symlink_to("00.png")
    (images / "linked folder").symlink_to(outside)
    Image.new("L", (8, 8), 3).save(images / "dark.tif")
    side = tiny_model.config.image_size
    noise(1, height=30 * side, width=20).save(images / "tall.png")
    # The pictures in an index do not count, be it this one or another.
    folder = images / "index"
    folder.mkdir()
    shutil.copytree(other_index, images / "other index")
    for index in (folder, images / "other index"):
        noise(0).save(index / "found.png")
    done = index_images(tiny_model, images, folder)
    expected = ["00.png", "again.png", "dark.tif", "more/01.png", "tall.png"]
    assert open_index(folder).files == expected
    assert command.report(done) == [
        "5 images in the index: 5 embedded now, 0 there already, 0 gone and dropped",
        "other files, left out: 3 (without suffix 1, .json 1, .txt 1)",
        "links to folders, not entered: 1",
        "almost black: 1 image (dark.tif); --stretch=2,98 shows what is in TIFF files of 11 or 12 "
        "bits",
        f"1 image is 30 times higher than the model's {side} px; small things vanish in it "
        "(tall.png)",
        "unreadable, left out: 2",
        "  damaged.png: it is truncated",
        "  linked.png: a link out of the image folder",
    ]
    sizes = {f"{n}.png": (9 * 64 + n, 9) for n in range(6)}
    report = command.report(dataclasses.replace(done, much_larger=sizes, image_size=64))
    assert report[4].startswith("6 images are up to 9 times wider than the model's 64 px; small")
    assert report[4].endswith(" (0.png, 1.png, 2.png, 3.png, 4.png, ...)")


def test_any_name_is_kept_as_it_is(tiny_model, tmp_path):
    images, names = tmp_path / "images", ["=1.png", "ligne\nbreak.png", "港口.png", "\udcff.png"]
    images.mkdir()
    try:
        for number, name in enumerate(names):
            noise(number).save(images / name)
    except (OSError, UnicodeError):
        pytest.skip("not names on this file system")
    index_images(tiny_model, images, tmp_path / "index")
    index = open_index(tmp_path / "index")
    assert index.files == sorted(names)
    for row, name in enumerate(index.files):
        assert index.path_of(row).name == name
        assert index.read_image(row).size == (50, 40)


def test_a_file_that_is_gone_or_leads_out_is_told(copied_index, tmp_path):
    images, folder = copied_index
    index = open_index(folder)
    noise(0).save(tmp_path / "secret.png")
    (images / "00.png").unlink()
    with pytest.raises(DataError, match=r"The image .*00\.png cannot be read: missing"):
        index.path_of(index.files.index("00.png"))
    (images / "00.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="a link out of the image folder"):
        index.read_image(index.files.index("00.png"))
    lines = index.generation / "files.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b'"04.png"', b'"../secret.png"'))
    index = open_index(folder)
    with pytest.raises(DataError, match="leads out of the image folder"):
        index.read_image(index.files.index("../secret.png"))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("index.json", None, "is no index of images: --mode=index makes one"),
        ("index.json", b"{}", r"index\.json is damaged, or was written by another version"),
        ("rows.json", b"{}", "if one of its files is damaged, delete the folder and make it anew"),
        ("embeddings.f32", b"short", r"index cannot be read \(.*file size"),
        ("files.jsonl", b'["a", 1, 2]\n{}\n', r"index cannot be read \("),
    ],
)
def test_a_damaged_index_is_told_in_a_sentence(copied_index, tiny_model, file, content, reason):
    images, folder = copied_index
    path = folder / file if file == "index.json" else open_index(folder).generation / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        open_index(folder)
    if file != "index.json" or content is not None:
        with pytest.raises(DataError, match=reason):
            index_images(tiny_model, images, folder)


def test_what_cannot_be_indexed_is_refused(copied_index, tiny_model, tmp_path):
    (images, folder), empty = copied_index, tmp_path / "empty"
    empty.mkdir()
    for wrong_images, wrong_folder, reason in (
        (tmp_path / "nowhere", folder, r"There is no folder .*nowhere of images"),
        (empty, folder, r"index is an index of .*images, not of .*empty: name"),
        (images, images / "00.png", r"The index .*00\.png is a file, not a folder"),
        (images, images / "more/..", "The index needs a folder of its own"),
    ):
        with pytest.raises(DataError, match=reason):  # before a model is loaded
            command.index_images(tmp_path / "no run", wrong_images, wrong_folder, BandChoice())
    with pytest.raises(DataError, match=r"There are no images in .*empty"):
        index_images(tiny_model, empty, tmp_path / "new")
    (empty / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"There are 1 files, but no images in .*empty"):
        index_images(tiny_model, empty, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_a_sentence_and_what_was_written_counts(
    copied_index, tiny_model, monkeypatch
):
    images, folder = copied_index
    before = rows_by_name(folder)
    noise(50).save(images / "new.png")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=r"index .* cannot be written: No space left on device"):
            index_images(tiny_model, images, folder)
    assert rows_by_name(folder) == before
    assert index_images(tiny_model, images, folder).embedded == ["new.png"]
