"""Damaged image files and hostile folders lead to a reason, and to nothing else.

All damage is drawn from seeds: what fails once fails always.
"""

import builtins
import os
import random
import resource
import struct
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
from handmade_images import encode
from PIL import Image

from input_pipeline.images import files
from input_pipeline.images.files import FoundImage, UnreadableImageError, locate
from input_pipeline.images.reader import check_all, read_rgb, resize

VARIANTS = 240
HEIGHT, WIDTH, SIZE = 40, 48, 8
SECONDS, GROWTH = 2.0, 2**30


def scene():
    """Some rows of noise and some that compress well."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    pixels[10:30] = pixels[10]
    return Image.fromarray(pixels)


def tiled_tiff():
    """A TIFF file of six compressed tiles, which PIL does not write."""
    grey = np.zeros((48, 48), np.uint8)
    grey[:HEIGHT] = np.asarray(scene())[..., 0]
    tiles = [
        zlib.compress(grey[y : y + 16, x : x + 16].tobytes())
        for y in range(0, HEIGHT, 16)
        for x in range(0, WIDTH, 16)
    ]
    lengths = [len(tile) for tile in tiles]
    arrays = 8 + 2 + 12 * 10 + 4
    places = np.cumsum([arrays + 8 * len(tiles), *lengths])[:-1].tolist()
    tags = [(256, WIDTH), (257, HEIGHT), (258, 8), (259, 8), (262, 1), (277, 1), (322, 16)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (323, 16)]]
    for index, tag in enumerate((324, 325)):
        entries.append(struct.pack("<HHII", tag, 4, len(tiles), arrays + 4 * len(tiles) * index))
    header = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries) + bytes(4)
    return header + struct.pack(f"<{2 * len(tiles)}I", *places, *lengths) + b"".join(tiles)


FILES = {
    "JPEG": encode(scene(), "JPEG"),
    "progressive JPEG": encode(scene(), "JPEG", progressive=True),
    "PNG": encode(scene(), "PNG"),
    "PNG of a palette": encode(scene().quantize(16), "PNG", transparency=b"\x00\x80"),
    "TIFF": encode(scene(), "TIFF"),
    "LZW in TIFF": encode(scene(), "TIFF", compression="tiff_lzw"),
    "deflate in TIFF": encode(scene(), "TIFF", compression="tiff_adobe_deflate"),
    "JPEG in TIFF": encode(scene(), "TIFF", compression="jpeg"),
    "tiles in TIFF": tiled_tiff(),
    "BMP": encode(scene(), "BMP"),
    "GIF": encode(scene(), "GIF"),
    "WebP": encode(scene(), "WEBP"),
    "lossless WebP": encode(scene(), "WEBP", lossless=True),
}


def truncated(draw, data):
    return data[: draw.randrange(len(data))]


def flipped(draw, data, within=None):
    changed = bytearray(data)
    for _ in range(draw.choice([1, 2, 8, 30])):
        changed[draw.randrange(within or len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flipped_in_the_header(draw, data):
    return flipped(draw, data, within=100)


def inserted(draw, data):
    place = draw.randrange(len(data))
    return data[:place] + draw.randbytes(draw.randrange(1, 30)) + data[place:]


def deleted(draw, data):
    place = draw.randrange(len(data))
    return data[:place] + data[place + draw.randrange(1, 30) :]


def zeroed(draw, data):
    place = draw.randrange(len(data))
    length = min(draw.randrange(1, 200), len(data) - place)
    return data[:place] + bytes(length) + data[place + length :]


def of_another_size(draw, data):
    """Writes huge or no sizes wherever the header seems to have a width or a height."""
    for side in (WIDTH, HEIGHT, WIDTH - 1, HEIGHT - 1):
        for code in (">I", "<I", ">H", "<H"):
            most = 256 ** struct.calcsize(code) - 1
            wanted = draw.choice([0, 1, 9000, 16_383, 2**31 - 1, most])
            old, new = struct.pack(code, side), struct.pack(code, min(wanted, most))
            if draw.random() < 0.5:
                data = data[:600].replace(old, new, 1) + data[600:]
    return data


def under_another_header(draw, data):
    other = draw.choice(list(FILES.values()))
    length = draw.choice([2, 4, 8, 16, 64])
    return other[:length] + data[length:]


DAMAGES = [
    truncated,
    flipped,
    flipped_in_the_header,
    inserted,
    deleted,
    zeroed,
    of_another_size,
    under_another_header,
]


def peak_memory():
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def outcome(data):
    """Resizes with every warning an error; returns whether that went well."""
    reason = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = resize(data, SIZE)
    except UnreadableImageError as error:
        reason = str(error)
    if reason is not None:
        assert reason.isprintable(), "a reason is one line"
        assert 0 < len(reason) < 150
        return False
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    return True


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_are_read_or_refused(kind, capfd):
    assert outcome(FILES[kind]), "whole files are read"
    before, outcomes = peak_memory(), set()
    for seed in range(VARIANTS):
        draw = random.Random(f"{kind} {seed}")
        data = DAMAGES[seed % len(DAMAGES)](draw, FILES[kind])
        begun = time.thread_time()
        outcomes.add(outcome(data))
        assert time.thread_time() - begun < SECONDS, f"{kind} {seed}"
    assert outcomes == {True, False}
    assert peak_memory() - before < GROWTH
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", FILES)
def test_truncated_files_are_refused_unless_all_pixels_are_there(kind):
    whole = np.asarray(read_rgb(FILES[kind]))
    data, refused = FILES[kind], 0
    lengths = {*range(0, len(data), 23), *range(len(data) - 30, len(data))}
    for length in lengths:
        try:
            pixels = np.asarray(read_rgb(data[:length]))
        except UnreadableImageError:
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, whole)
    assert refused > len(lengths) - 30


def grow(draw, root, outside):
    """Fills a folder with files, folders and links of all kinds; returns names to look for."""
    folders, names = [root], []
    for number in range(60):
        parent = draw.choice(folders)
        path = parent / f"{number}.jpg"
        kind = draw.choice(["file", "empty", "folder", "pipe", "link", "link", "link"])
        if kind == "folder":
            path.mkdir()
            folders.append(path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            inside = draw.choice([root, *names])
            targets = [inside, outside, outside / "secret.jpg", "nothing", path.name]
            target = draw.choice([*targets, os.path.relpath(inside, parent), "../secret.jpg"])
            path.symlink_to(target)
            folders += [path] if path.is_dir() and draw.random() < 0.3 else []
        else:
            path.write_bytes(FILES["JPEG"] if kind == "file" else b"")
        names.append(path)
    relative = [str(path.relative_to(root)) for path in names]
    hostile = ["../secret.jpg", "../../outside/secret.jpg", str(outside / "secret.jpg"), ""]
    return [*relative, *hostile, *(f"{name}/secret.jpg" for name in relative)]


def is_within(path, root):
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # the latter for links in a circle
        return False


def is_findable(root, name):
    """What a found file must be, by `resolve` alone: it and its folder lie within the root."""
    path = root / name
    written_within = ".." not in name and not os.path.isabs(name)
    return (
        written_within and all(is_within(p, root) for p in (path.parent, path)) and path.is_file()
    )


@pytest.mark.parametrize("seed", range(15))
def test_nothing_outside_of_a_hostile_folder_is_opened(seed, tmp_path, monkeypatch):
    draw = random.Random(seed)
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
    for secret in (tmp_path / "secret.jpg", outside / "secret.jpg"):
        secret.write_bytes(FILES["JPEG"])
    names = grow(draw, root, outside)

    opened = []

    def noted_open(path, mode):
        opened.append(path)
        return builtins.open(path, mode)

    monkeypatch.setattr(files, "open", noted_open, raising=False)
    found = locate(root, [[name] for name in names])
    assert opened == []
    for name, each in zip(names, found, strict=True):
        assert isinstance(each, FoundImage) == is_findable(root, name), (name, each)
        assert isinstance(each, FoundImage) or each.isprintable()
    paths = [each.path for each in found if isinstance(each, FoundImage)]
    assert set(check_all(paths, "checking")) <= {None, "it is empty (0 bytes)"}
    assert sorted(opened) == sorted(paths)
    assert len(paths) > 5
