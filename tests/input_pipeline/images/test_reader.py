"""Images are decoded wholly, whatever they come from, or refused for a reason."""

from unittest.mock import Mock

import numpy as np
import pytest
from handmade_images import colours, encode, png, tiff
from PIL import Image

from input_pipeline.images import pillow
from input_pipeline.images.files import UnreadableImageError
from input_pipeline.images.reader import check, check_all, read_rgb, resize


@pytest.mark.parametrize("size", [1, 7, 40])
def test_resizing_is_bilinear_and_does_not_keep_proportions(size):
    image = Image.fromarray(colours(20, 33))
    resized = resize(encode(image, "PNG"), size)
    assert resized.dtype == np.uint8
    expected = image.resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected))


TOO_LARGE = "it has more than 100000000 pixels"
TILES_TOO_LARGE = "it has tiles of more than 100000000 pixels"
BANDS_TOO_LARGE = "its bands take more than 1073741824 bytes"
BIG_TILES = {"t322": [46000], "t323": [46000]}


def reason_of(encoded):
    with pytest.raises(UnreadableImageError) as refused:
        read_rgb(encoded)
    return str(refused.value)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"P", "its format is not known"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "its format is not known"),
        (b"\xff\xd8\xff", "it is a JPEG file, damaged or of an unknown kind"),
        (png(40000, 40000, 8, 2, []), TOO_LARGE),
        (png(10001, 10000, 8, 2, []), TOO_LARGE),
        (encode(Image.new("RGB", (64, 64)), "BMP")[:-1], "it is truncated"),
        (tiff("<", [8], 3, b"1234", t320=[0] * 768, **BIG_TILES), TILES_TOO_LARGE),
        (tiff("<", [8], 1, b"1234", **BIG_TILES), BANDS_TOO_LARGE),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_why_an_image_is_not_read_whatever_pil_s_limit_of_pixels_is(monkeypatch, encoded, reason):
    for limit in (Image.MAX_IMAGE_PIXELS, None, 10**9):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert reason_of(encoded) == reason


def test_postscript_starts_no_program(monkeypatch):
    encoded = encode(Image.fromarray(colours()), "EPS")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program started"))
    assert reason_of(encoded) == "its format is not known"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "there is not enough memory for it"),
        (KeyError(), "it is damaged (KeyError)"),
        (OSError("one\ntwo\x1b[31m" + "x" * 1000), f"it is damaged (one two [31m{'x' * 88})"),
    ],
)
def test_whatever_pil_raises_becomes_one_printable_line(monkeypatch, error, reason):
    monkeypatch.setattr(pillow, "to_rgb", Mock(side_effect=error))
    assert reason_of(encode(Image.fromarray(colours()), "PNG")) == reason


def test_of_many_images_some_pass_and_others_have_a_reason(tmp_path, capsys):
    whole = encode(Image.fromarray(colours(64, 64)), "JPEG")
    contents = {"a.png": whole, "b.jpg": whole[:-200], "c.jpg": b"", "d.jpg": b"text"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in [*contents, "missing.jpg"]] * 30
    expected = [None, "it is truncated", "it is empty (0 bytes)", "its format is not known"]
    assert check_all(paths, "checking") == [*expected, "missing"] * 30
    assert capsys.readouterr().out == ""


def test_large_files_are_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(2**30 + 1)  # takes no space
    assert check(tmp_path / "a.jpg") == "it has 1073741825 bytes, more than 1073741824"
