"""Images are decoded wholly, whatever they come from, or refused for a reason."""

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


@pytest.mark.filterwarnings("ignore:Image size")
class TestRefusals:
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
    def test_reasons(self, encoded, reason):
        with pytest.raises(UnreadableImageError) as refused:
            read_rgb(encoded)
        assert str(refused.value) == reason

    def test_postscript_starts_no_program(self, monkeypatch):
        encoded = encode(Image.fromarray(colours()), "EPS")
        monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program started"))
        with pytest.raises(UnreadableImageError, match=r"^its format is not known$"):
            read_rgb(encoded)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (MemoryError(), "there is not enough memory for it"),
            (KeyError(), "it is damaged (KeyError)"),
            (OSError("one\ntwo\x1b[31m" + "x" * 1000), f"it is damaged (one two [31m{'x' * 88})"),
        ],
    )
    def test_whatever_pil_raises_becomes_one_printable_line(self, monkeypatch, error, reason):
        def convert(image):
            raise error

        monkeypatch.setattr(pillow, "to_rgb", convert)
        with pytest.raises(UnreadableImageError) as refused:
            read_rgb(encode(Image.fromarray(colours()), "PNG"))
        assert str(refused.value) == reason

    @pytest.mark.parametrize("limit", [None, 10**9])
    def test_the_limit_of_pixels_is_ours_whatever_pil_s_is(self, monkeypatch, limit):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UnreadableImageError, match=TOO_LARGE):
            read_rgb(png(40000, 40000, 8, 2, []))


class TestCheck:
    def test_images_pass_and_others_have_a_reason(self, tmp_path, capsys):
        whole = encode(Image.fromarray(colours(64, 64)), "JPEG")
        contents = {"a.png": whole, "b.jpg": whole[:-200], "c.jpg": b"", "d.jpg": b"text"}
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        paths = [tmp_path / name for name in [*contents, "missing.jpg"]] * 30
        expected = [None, "it is truncated", "it is empty (0 bytes)", "its format is not known"]
        assert check_all(paths, "checking") == [*expected, "missing"] * 30
        assert [check(path) for path in paths[:5]] == [*expected, "missing"]
        assert capsys.readouterr().out == ""

    def test_large_files_are_not_read(self, tmp_path):
        path = tmp_path / "a.jpg"
        with path.open("wb") as file:
            file.truncate(2**30 + 1)  # takes no space
        assert check(path) == "it has 1073741825 bytes, more than 1073741824"
