"""Indexing a folder: what is embedded, kept, dropped, left out, and left by an interruption."""

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny_index import IMAGES, changed, fill, noise

from input_pipeline.errors import DataError
from input_pipeline.images import files
from input_pipeline.images.bands import BandChoice
from kamcl_jax.errors import ExportError
from kamcl_jax.inference import model as trained_model
from kamcl_jax.search import found_files, index_command, index_rows, update_index
from kamcl_jax.search import index as image_index
from kamcl_jax.search.index import open_index
from kamcl_jax.search.read_ahead import read_ahead


@pytest.fixture
def made(tiny_index, tmp_path):
    """A copy of the tiny index and its images, that a test may change."""
    shutil.copytree(tiny_index.images_root, tmp_path / "images", copy_function=shutil.copy2)
    shutil.copytree(tiny_index.folder, tmp_path / "index")
    pointer = json.loads((tmp_path / "index/index.json").read_text())
    pointer["images"] = str(tmp_path / "images")
    (tmp_path / "index/index.json").write_text(json.dumps(pointer))
    return tmp_path / "images", tmp_path / "index"


@pytest.fixture
def read_files(monkeypatch):
    """Names of the image files that are read."""
    names, read_bytes = [], files.read_bytes
    monkeypatch.setattr(
        files, "read_bytes", lambda path: names.append(path.name) or read_bytes(path)
    )
    return names


def rows_by_name(folder):
    index = open_index(folder)
    return {
        name: (embedding.tobytes(), concepts.tobytes())
        for name, embedding, concepts in zip(
            index.files, index.embeddings, index.concepts, strict=True
        )
    }


def other_model(model):
    variables = jax.tree.map(lambda leaf: np.asarray(leaf) * 1.01, model.variables)
    return trained_model.assemble(9, model.config, model.words, variables)


def test_rows_are_what_the_model_says_of_each_file(tiny_index, tiny_model):
    assert tiny_index.files == sorted(tiny_index.files)
    assert len(tiny_index.files) == IMAGES
    paths = [tiny_index.path_of(row) for row in range(IMAGES)]
    encoded = tiny_model.encode_images_with_concepts(paths, batch_size=8)
    np.testing.assert_allclose(tiny_index.embeddings, encoded.embeddings, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tiny_index.concepts, encoded.concepts, rtol=0, atol=1e-3)
    assert tiny_index.concepts.dtype == np.float16
    assert tiny_index.concepts.shape == (IMAGES, len(tiny_model.concepts.words))


def test_the_index_brings_its_model(tiny_index, tiny_model):
    caption = ["a plane over the pond"]
    np.testing.assert_array_equal(
        tiny_index.model.encode_texts(caption), tiny_model.encode_texts(caption)
    )


def test_a_second_run_reads_new_and_changed_files_only(made, tiny_model, read_files):
    images, folder = made
    before = rows_by_name(folder)
    noise(50).save(images / "more/new.png")
    noise(51).save(images / "02.png")
    (images / "04.png").unlink()
    done = update_index.index_images(tiny_model, images, folder)
    assert sorted(read_files) == ["02.png", "new.png"]
    assert sorted(done.embedded) == ["02.png", "more/new.png"]
    assert done.gone == ["04.png"]
    after = rows_by_name(folder)
    assert after.keys() == (before.keys() | {"more/new.png"}) - {"04.png"}
    for name in done.kept:
        assert after[name] == before[name]
    assert after["02.png"] != before["02.png"]
    assert [path.name for path in folder.glob("generation_*")] == ["generation_2"]


def test_new_images_are_appended_and_nothing_is_written_again(made, tiny_model):
    images, folder = made
    index = open_index(folder)
    rows = index.generation / index_rows.EMBEDDINGS
    inode, start = rows.stat().st_ino, rows.read_bytes()
    noise(50).save(images / "new.png")
    update_index.index_images(tiny_model, images, folder)
    assert rows.stat().st_ino == inode
    assert rows.read_bytes()[: len(start)] == start
    assert len(index.embeddings) == IMAGES  # what was open has not changed
    assert open_index(folder).files == [*index.files, "new.png"]


def test_a_touched_file_is_read_again_and_an_untouched_folder_not(made, tiny_model, read_files):
    images, folder = made
    assert update_index.index_images(tiny_model, images, folder).embedded == []
    assert read_files == []
    os.utime(images / "00.png", ns=(1, 1))
    assert update_index.index_images(tiny_model, images, folder).embedded == ["00.png"]


@pytest.mark.parametrize("change", ["model", "bands"])
def test_another_model_or_other_bands_embed_everything_anew(made, tiny_model, capsys, change):
    images, folder = made
    model = other_model(tiny_model) if change == "model" else tiny_model
    choice = BandChoice((3, 2, 1)) if change == "bands" else BandChoice()
    done = update_index.index_images(model, images, folder, choice)
    assert len(done.embedded) == IMAGES
    said = {"model": "made with another model", "bands": "made with other --bands"}[change]
    assert f"{folder} was {said}" in capsys.readouterr().err
    index = open_index(folder)
    assert index.choice == choice
    assert index.model.step == model.step
    assert [path.name for path in folder.glob("generation_*")] == ["generation_2"]


@pytest.fixture
def index_of(tiny_model, made, plain_model, tmp_path):
    """Returns a model, and images and index that it has made, by the model's name."""

    def make(name):
        if name == "tiny":
            return tiny_model, *made
        images, folder = made[0], tmp_path / "index of plain"
        update_index.index_images(plain_model, images, folder)
        return plain_model, images, folder

    return make


@pytest.fixture
def lemmas(monkeypatch):
    """Stands in for the library of lemmas, which need not be installed."""
    library = SimpleNamespace(lemmatize=lambda word, lang: word.removesuffix("s"))
    monkeypatch.setitem(sys.modules, "simplemma", library)


CAPTIONS = ["planes", "a pond beside a road and a field with one barn", "a plane"]


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("tiny", "caption_padding", "release"),
        ("tiny", "data.max_tokens", 3),
        ("tiny", "concepts.lemmatize", True),
        ("plain", "text_encoder.options.weight_of_concepts", 3.0),
    ],
)
def test_another_setting_of_captions_replaces_the_model_and_keeps_the_rows(
    index_of, lemmas, name, field, value, capsys, read_files
):
    model, images, folder = index_of(name)
    before, other = rows_by_name(folder), changed(model, {field: value})
    read_files.clear()
    done = update_index.index_images(other, images, folder)
    assert (done.embedded, len(done.kept), read_files) == ([], IMAGES, [])
    assert "made with another text encoder or settings of it" in capsys.readouterr().err
    index = open_index(folder, with_model=True)
    assert rows_by_name(folder) == before
    expected = other.encode_texts(CAPTIONS)
    assert np.abs(expected - model.encode_texts(CAPTIONS)).max() > 1e-3
    np.testing.assert_allclose(index.model.encode_texts(CAPTIONS), expected, rtol=0, atol=1e-6)
    assert update_index.index_images(other, images, folder).embedded == []
    assert capsys.readouterr().err == ""
    assert [path.name for path in folder.glob("generation_*")] == ["generation_2"]


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("tiny", "dtype", "bfloat16"), ("plain", "image_encoder.options.contrast", 3.0)],
)
def test_another_setting_of_images_embeds_them_anew(index_of, name, field, value, capsys):
    model, images, folder = index_of(name)
    before, other = np.array(open_index(folder).embeddings), changed(model, {field: value})
    done = update_index.index_images(other, images, folder)
    assert (len(done.embedded), done.kept) == (IMAGES, [])
    assert "made with another model or settings of it" in capsys.readouterr().err
    index = open_index(folder)
    assert np.abs(index.embeddings - before).max() > 1e-3
    expected = other.encode_images([images / name for name in index.files])
    np.testing.assert_allclose(index.embeddings, expected, rtol=0, atol=1e-5)


def test_settings_of_the_training_alone_change_nothing(made, tiny_model, read_files):
    images, folder = made
    fields = {
        "batch_size": 16,
        "optimizer.learning_rate": 0.5,
        "data.residency": "host",
        "data.dir": "elsewhere",
        "mesh.data": 1,
        "evaluation.batch_size": 4,
        "text_encoder.dropout": 0.5,
    }
    other = trained_model.assemble(
        99, changed(tiny_model, fields).config, tiny_model.words, tiny_model.variables
    )
    done = update_index.index_images(other, images, folder)
    assert (done.embedded, len(done.kept), read_files) == ([], IMAGES, [])
    assert [path.name for path in folder.glob("generation_*")] == ["generation_1"]


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
        update_index.index_images(tiny_model, images, folder)
    assert len(open_index(folder).files) == 16  # and can be searched
    read_files.clear()
    done = update_index.index_images(tiny_model, images, folder)
    assert (len(done.kept), len(done.embedded), len(read_files)) == (16, 5, 5)
    update_index.index_images(tiny_model, images, tmp_path / "at once")
    expected = open_index(tmp_path / "at once")
    found = open_index(folder)
    assert found.files == expected.files
    # Batches of other sizes are other programs, that round differently.
    np.testing.assert_allclose(found.embeddings, expected.embeddings, rtol=0, atol=1e-6)


def test_an_index_stays_as_it_was_until_another_is_whole(made, tiny_model, read_files):
    images, folder = made
    before, model = rows_by_name(folder), other_model(tiny_model)
    noise(50).save(images / "02.png")
    with killed_in_batch(2):
        update_index.index_images(model, images, folder)
    assert rows_by_name(folder) == before
    read_files.clear()
    done = update_index.index_images(model, images, folder)
    assert (len(done.kept), len(done.embedded), len(read_files)) == (8, 4, 4)
    assert len(open_index(folder).files) == IMAGES
    assert open_index(folder).model.step == model.step


@pytest.mark.parametrize("torn", ["files.jsonl", "embeddings.f32", "concepts.f16"])
def test_what_a_killed_writer_left_half_written_does_not_count(made, tiny_model, torn):
    images, folder = made
    before = rows_by_name(folder)
    with (open_index(folder).generation / torn).open("ab") as file:
        file.write(b'["half')
    assert rows_by_name(folder) == before
    noise(50).save(images / "new.png")
    update_index.index_images(tiny_model, images, folder)
    after = rows_by_name(folder)
    fresh = open_index(folder).model.encode_images([images / "new.png"])
    np.testing.assert_allclose(np.frombuffer(after["new.png"][0], "<f4"), fresh[0], atol=1e-6)
    assert {name: after[name] for name in before} == before


def test_a_kill_while_a_generation_is_removed_breaks_nothing(made, tiny_model):
    images, folder = made
    before = rows_by_name(folder)
    # Left by an indexing with other --bands that was killed; now it is of no use.
    with killed_in_batch(2):
        update_index.index_images(tiny_model, images, folder, BandChoice((3, 2, 1)))
    assert (folder / "generation_2").is_dir()

    def remove_half(path, ignore_errors):
        (path / "rows.json").unlink()
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_half)
        with pytest.raises(Killed):
            update_index.index_images(tiny_model, images, folder)
    assert update_index.index_images(tiny_model, images, folder).embedded == []
    assert rows_by_name(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "generation_1", "index.json"]


def test_an_index_can_be_opened_while_an_indexing_ends(made, tiny_model, monkeypatch):
    images, folder = made
    model, read_pointer = other_model(tiny_model), image_index.read_pointer

    def read_and_wait(folder):
        pointer = read_pointer(folder)
        monkeypatch.setattr(image_index, "read_pointer", read_pointer)
        update_index.index_images(model, images, folder)
        return pointer

    monkeypatch.setattr(image_index, "read_pointer", read_and_wait)
    index = open_index(folder, with_model=True)
    assert index.generation.name == "generation_2"
    shutil.rmtree(index.generation)
    assert index.model.step == model.step


def test_what_a_killed_search_left_in_a_generation_is_removed(made, tiny_model):
    images, folder = made
    left = open_index(folder).generation / ".faiss.index.abc.unfinished"
    left.write_bytes(b"half")
    update_index.index_images(tiny_model, images, folder)
    assert not left.exists()


@pytest.mark.parametrize("damage", ["link", "folder"])
def test_what_is_there_but_unreadable_is_not_called_gone(made, tiny_model, monkeypatch, damage):
    images, folder = made
    if damage == "link":
        (images / "00.png").replace(images.parent / "00.png")
        (images / "00.png").symlink_to(images.parent / "00.png")
        unreadable, left = {"00.png": "a link out of the image folder"}, IMAGES - 1
    else:
        scandir = os.scandir

        def refusing(path):
            if path == str(images / "more"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        unreadable, left = {"more/": "unreadable (Permission denied)"}, IMAGES // 2
    (images / "02.png").unlink()
    done = update_index.index_images(tiny_model, images, folder)
    assert (done.gone, done.unreadable, len(done.kept)) == (["02.png"], unreadable, left - 1)


def test_pictures_in_another_index_do_not_count(made, tiny_model):
    images, folder = made
    shutil.copytree(folder, images / "old index")
    noise(0).save(images / "old index/found.png")
    (images / "index.json").write_text("{}")  # alone it makes no index
    done = update_index.index_images(tiny_model, images, folder)
    assert (done.embedded, len(done.kept)) == ([], IMAGES)


def test_a_lock_that_cannot_be_taken_is_told(tiny_model, tmp_path):
    fill(tmp_path / "images", 1)
    (tmp_path / "index/.lock").mkdir(parents=True)
    with pytest.raises(DataError, match=r"written into .*index \(.*\): name another --index\.$"):
        update_index.index_images(tiny_model, tmp_path / "images", tmp_path / "index")


def test_what_is_left_out_is_told(tiny_model, tmp_path):
    images, outside = tmp_path / "images", tmp_path / "outside"
    fill(images, 2)
    fill(outside, 2)
    (images / ".hidden").mkdir()
    noise(0).save(images / ".hidden/a.png")
    noise(0).save(images / ".b.png")
    (images / "notes.txt").write_text("no image")
    (images / "README").write_text("no image")
    (images / "damaged.png").write_bytes((images / "00.png").read_bytes()[:200])
    (images / "folder.jpg").mkdir()
    (images / "linked.png").symlink_to(outside / "00.png")
    (images / "again.png").symlink_to("00.png")
    (images / "linked folder").symlink_to(outside)
    Image.new("L", (8, 8), 3).save(images / "dark.tif")
    folder = images / "index"  # its own pictures do not count either
    folder.mkdir()
    noise(0).save(folder / "found.png")
    done = update_index.index_images(tiny_model, images, folder)
    assert open_index(folder).files == ["00.png", "again.png", "dark.tif", "more/01.png"]
    assert index_command.report(done).splitlines() == [
        "4 images in the index: 4 embedded now, 0 there already, 0 gone and dropped",
        "other files, left out: 2 (without suffix 1, .txt 1)",
        "links to folders, not entered: 1",
        "almost black: 1 image (dark.tif); --stretch=2,98 shows what is in TIFF files of 11 or 12 "
        "bits",
        "unreadable, left out: 2",
        "  damaged.png: it is truncated",
        "  linked.png: a link out of the image folder",
    ]


@pytest.mark.parametrize(
    "name", ["a $x_1$.png", "ligne\nbreak.png", "港口.png", "\udcff.png", "=1.png"]
)
def test_any_name_is_kept_as_it_is(tiny_model, tmp_path, name):
    fill(tmp_path / "images", 1)
    try:
        noise(1).save(tmp_path / "images" / name)
    except (OSError, UnicodeError):
        pytest.skip("not a name on this file system")
    update_index.index_images(tiny_model, tmp_path / "images", tmp_path / "index")
    index = open_index(tmp_path / "index")
    row = index.files.index(name)
    assert index.path_of(row).name == name
    assert index.read_image(row).size == (50, 40)


def test_bands_count_for_the_index_and_for_reading_its_images(tiny_model, tmp_path):
    images, folder = tmp_path / "images", tmp_path / "index"
    images.mkdir()
    bands = np.random.default_rng(0).normal(size=(30, 30, 5)).astype(np.float32)
    tifffile.imwrite(images / "a.tif", bands, photometric="minisblack", planarconfig="contig")
    unread = update_index.index_images(tiny_model, images, folder)
    assert "made with a stretch" in unread.unreadable["a.tif"]
    choice = BandChoice((5, 1, 2), (2, 98))
    update_index.index_images(tiny_model, images, folder, choice)
    index = open_index(folder)
    expected = tiny_model.encode_images([index.read_image(0)])
    np.testing.assert_allclose(index.embeddings, expected, rtol=0, atol=1e-6)


def test_a_file_that_is_gone_or_leads_out_is_told(made, tmp_path):
    images, folder = made
    index = open_index(folder)
    (images / "00.png").unlink()
    with pytest.raises(DataError, match=r"The image .*00\.png cannot be read: missing"):
        index.path_of(index.files.index("00.png"))
    noise(0).save(tmp_path / "secret.png")
    (images / "00.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="a link out of the image folder"):
        index.read_image(index.files.index("00.png"))
    (images / "02.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"02\.png cannot be read: it is empty"):
        index.read_image(index.files.index("02.png"))
    lines = index.generation / "files.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b'"04.png"', b'"../secret.png"'))
    index = open_index(folder)
    with pytest.raises(DataError, match="leads out of the image folder"):
        index.path_of(index.files.index("../secret.png"))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("index.json", None, "is no index of images: --mode=index makes one"),
        ("index.json", b"{}", r"index\.json is damaged, or was written by another version"),
        ("index.json", b"[", r"index\.json is damaged"),
        ("rows.json", b"{}", r"rows\.json is damaged"),
        ("rows.json", None, r"rows\.json cannot be read: No such file"),
        ("embeddings.f32", b"short", r"embeddings\.f32 is damaged: it has 5 bytes, too few for 12"),
        ("concepts.f16", None, r"concepts\.f16 cannot be read: No such file"),
        ("files.jsonl", b'["a", 1, 2]\n{}\n', r"files\.jsonl is damaged in line 2"),
        ("files.jsonl", b'["a", 1, 2]\n["a", true, 2]\n', r"files\.jsonl is damaged in line 2"),
        ("files.jsonl", b"\xff\n", r"files\.jsonl is damaged in line 1"),
    ],
)
def test_a_damaged_index_is_told_in_a_sentence(made, tiny_model, file, content, reason):
    images, folder = made
    path = folder / file if file == "index.json" else open_index(folder).generation / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        open_index(folder)
    if file != "index.json" or content is not None:
        with pytest.raises(DataError, match=reason):
            update_index.index_images(tiny_model, images, folder)


def test_a_damaged_model_is_told_when_it_is_needed(made):
    index = open_index(made[1])
    weights = index.generation / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"model\.safetensors is not what was exported"):
        _ = index.model


def test_what_cannot_be_indexed_is_refused(made, tiny_model, tmp_path):
    images, folder = made
    with pytest.raises(DataError, match=r"There is no folder .*nowhere of images"):
        update_index.index_images(tiny_model, tmp_path / "nowhere", folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"index is an index of .*images, not of .*empty: name"):
        update_index.index_images(tiny_model, tmp_path / "empty", folder)
    with pytest.raises(DataError, match=r"There are no images in .*empty"):
        update_index.index_images(tiny_model, tmp_path / "empty", tmp_path / "other")
    (tmp_path / "empty/a.txt").write_text("")
    with pytest.raises(DataError, match=r"There are 1 files, but no images in .*empty"):
        update_index.index_images(tiny_model, tmp_path / "empty", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(DataError, match=r"The index .*00\.png is a file, not a folder"):
        update_index.index_images(tiny_model, images, images / "00.png")
    with pytest.raises(DataError, match="The index needs a folder of its own"):
        update_index.index_images(tiny_model, images, images / "more/..")


def test_a_full_disk_is_a_sentence_and_what_was_written_counts(made, tiny_model, monkeypatch):
    images, folder = made
    before = rows_by_name(folder)
    noise(50).save(images / "new.png")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=r"index .* cannot be written: No space left on device"):
            update_index.index_images(tiny_model, images, folder)
    assert rows_by_name(folder) == before
    assert update_index.index_images(tiny_model, images, folder).embedded == ["new.png"]


def test_images_are_read_in_order_and_no_further_ahead_than_told(tmp_path, read_files):
    fill(tmp_path, 20)
    states = sorted(found_files.find(tmp_path, tmp_path / "index").images.values())
    images = read_ahead(tmp_path, states, 8, BandChoice(), ahead=5)
    names = [next(images).state.name for _ in range(3)]
    time.sleep(0.1)
    assert len(read_files) <= 5 + 3
    names += [image.state.name for image in images]
    assert names == [state.name for state in states]
    assert len(read_files) == 20


def test_images_may_move_with_their_folder(made, tiny_model, tmp_path, read_files):
    images, folder = made
    images.rename(tmp_path / "moved")
    done = update_index.index_images(tiny_model, tmp_path / "moved", folder)
    assert (len(done.kept), read_files) == (IMAGES, [])
    assert open_index(folder).path_of(0).parent == tmp_path / "moved"
