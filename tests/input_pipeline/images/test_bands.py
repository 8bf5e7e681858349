"""TIFF files with more bands or bits than a picture: which bands become which colours."""

import io
import zlib

import numpy as np
import pytest
from handmade_images import colours, encode, tiff, written_tiff
from numpy.testing import assert_array_equal
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.images import bands, pillow, reader
from input_pipeline.images.bands import BandChoice, parse_choice
from input_pipeline.images.files import UnreadableImageError

WHOLE_RANGE = BandChoice(stretch=(0, 100))


def bands_of(count, dtype=np.uint16, height=40, width=33):
    values = np.random.default_rng(count).integers(0, 2**16, (height, width, count))
    return values.astype(dtype)


def read(encoded, choice=BandChoice()):  # noqa: B008
    return np.asarray(reader.read_rgb(encoded, choice))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_stretch_does_not_count_for_pictures(mode, file_format):
    encoded = encode(Image.fromarray(colours(20, 20)).convert(mode), file_format)
    as_pil_does = Image.open(io.BytesIO(encoded)).convert("RGB")
    assert_array_equal(read(encoded, WHOLE_RANGE), as_pil_does)
    if mode in ("RGB", "P"):
        assert_array_equal(read(encoded, BandChoice((1, 2, 3))), as_pil_does)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"planarconfig": "separate"},
        {"tile": (16, 16)},
        {"tile": (16, 16), "planarconfig": "separate", "compression": "lzw"},
        {"compression": "deflate", "predictor": True},
        {"compression": "zstd", "rowsperstrip": 7},
        {"compression": "packbits"},
        {"compression": "lzma", "predictor": True},
        {"byteorder": ">"},
        {"bigtiff": True, "byteorder": ">"},
    ],
)
def test_the_highest_bits_of_the_chosen_bands_are_red_green_and_blue(options):
    pixels = bands_of(13)
    encoded = written_tiff(pixels, **options)
    assert_array_equal(read(encoded, BandChoice((4, 3, 2))), pixels[..., [3, 2, 1]] >> 8)
    assert_array_equal(read(encoded, BandChoice((8,))), pixels[..., [7, 7, 7]] >> 8)
    assert_array_equal(read(encoded), pixels[..., :3] >> 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16, np.int32])
def test_a_stretch_is_linear_between_its_percentiles_and_clips_beyond(dtype):
    ramp = np.arange(-50, 51).astype(dtype) if np.dtype(dtype).kind != "u" else np.arange(101)
    pixels = np.stack([ramp, 3 * ramp, ramp - ramp[0]], -1)[None].astype(dtype)
    levels = read(written_tiff(pixels), BandChoice(stretch=(10, 90)))[0]
    expected = np.clip(np.rint((np.arange(101) - 10) * 255 / 80), 0, 255)
    for band in range(3):
        np.testing.assert_allclose(levels[:, band], expected, atol=1)
        assert levels[:11, band].max() == 0
        assert levels[90:, band].min() == 255


def marked(nodata):
    return {"extratags": [(42113, "s", len(nodata) + 1, nodata, True)]}


WHITE_ZERO = {"photometric": "miniswhite"}


@pytest.mark.parametrize(
    ("values", "dtype", "options", "levels"),
    [
        # What is no number and no data is black and moves no percentile.
        ([-9999, np.nan, np.inf, 1, 2, 3], "f4", marked("-9999"), [0, 0, 0, 0, 128, 255]),
        ([-3.4028234663852886e38, 0, 1], "f4", marked("-3.4028234663852886e+38"), [0, 0, 255]),
        ([9, 1, 2, 3], "u2", marked("9") | WHITE_ZERO, [0, 255, 128, 0]),
        ([9, 1, 2, 3], "u2", WHITE_ZERO, [0, 255, 223, 191]),
        # A text that no pixel can be marks nothing.
        ([4, 0, 1, 2], "f4", marked("-1.7976931348623157e+308"), [255, 0, 64, 128]),
        ([0, 100, 150, 200], "u2", marked("-9999"), [0, 128, 191, 255]),
        ([0, 100, 150, 200], "i2", marked("none"), [0, 128, 191, 255]),
        # Nothing to stretch.
        ([np.nan, np.nan], "f4", {}, [0, 0]),
        ([7, 7], "f4", {}, [0, 0]),
        # Exact far from zero.
        ([100_000_000, 100_000_001, 100_000_004], "i4", {}, [0, 64, 255]),
        ([2**63, 2**63 + 2**20, 2**63 + 2**22], "u8", {}, [0, 64, 255]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_stretch_leaves_out_what_is_no_data_and_is_exact(values, dtype, options, levels):
    encoded = written_tiff(np.array([values], dtype), **options)
    assert_array_equal(read(encoded, WHOLE_RANGE)[0, :, 0], levels)


@pytest.mark.parametrize(("dtype", "shift"), [(np.uint8, 0), (np.uint16, 8)])
def test_transparency_is_no_second_band(dtype, shift):
    pixels = bands_of(2, dtype)
    encoded = written_tiff(pixels, extrasamples=["unassalpha"])
    assert_array_equal(read(encoded), pixels[..., [0, 0, 0]] >> shift)
    assert_array_equal(read(encoded, BandChoice((2,))), pixels[..., [1, 1, 1]] >> shift)


@pytest.mark.parametrize(("dtype", "shift"), [(np.uint8, 0), (np.uint16, 8)])
def test_colours_are_divided_by_the_alpha_that_they_are_multiplied_by(dtype, shift):
    pixels = np.array([[[100, 40, 0, 128, 7], [9, 200, 0, 0, 7], [10, 100, 60, 50, 7]]], dtype)
    encoded = written_tiff(pixels << shift, photometric="rgb", extrasamples=["assocalpha", 0])
    divided = [[199, 79, 0], [0, 0, 0], [51, 255, 255]]  # beyond white is white
    assert_array_equal(read(encoded)[0], divided)
    assert_array_equal(read(encoded, BandChoice((1, 2, 3)))[0], divided)
    further = [[7, 79, 128], [7, 0, 0], [7, 255, 50]]  # neither alpha nor a further band is
    assert_array_equal(read(encoded, BandChoice((5, 2, 4)))[0], further)
    stretched = read(encoded, WHOLE_RANGE)[0, :, 1]
    assert_array_equal(stretched, [0, 255, 96] if shift else [79, 0, 255])


def test_a_jpeg_that_says_it_is_larger_than_its_strip_is_not_decoded():
    encoded = written_tiff(bands_of(3, np.uint8), compression="jpeg")
    assert read(encoded, BandChoice((1, 2, 3))).shape == (40, 33, 3)
    size = bytes([0, 40, 0, 33])
    assert encoded.count(b"\x08" + size) == 1  # the bits of a colour, the height and the width
    bomb = encoded.replace(b"\x08" + size, b"\x08" + bytes([0, 200, 200, 0]))
    with pytest.raises(UnreadableImageError, match="larger than it says"):
        read(bomb)


@pytest.mark.parametrize(("number", "name"), [(34712, "JPEG2000"), (50001, "WEBP"), (4711, "4711")])
def test_compressions_whose_strips_say_themselves_how_large_they_are_are_refused(number, name):
    encoded = tiff("<", [8] * 3, 2, bytes(48), width=16, compression=number)
    with pytest.raises(UnreadableImageError, match=rf"^TIFF files of the compression {name} are"):
        read(encoded)


def test_percentiles_of_a_large_image_are_of_pixels_from_all_over_it(monkeypatch):
    ramp = np.add.outer(np.arange(90.0), np.arange(70.0)).astype(np.float32)
    whole = read(written_tiff(ramp), BandChoice(stretch=(2, 98)))
    monkeypatch.setattr(bands, "MEASURED_PIXELS", 400)
    sampled = read(written_tiff(ramp), BandChoice(stretch=(2, 98)))
    assert np.abs(whole.astype(int) - sampled).max() < 10


BLACK_AND_WHITE = encode(Image.fromarray(colours()).convert("1"), "TIFF")
NO_WHITE = "signed or floating-point .* 2,98"
BOMB = tiff("<", [16] * 5, 1, zlib.compress(bytes(2**24)), compression=8)


@pytest.mark.parametrize(
    ("encoded", "choice", "reason"),
    [
        (written_tiff(bands_of(4)), BandChoice((5, 1, 2)), "it has 4 bands, not the chosen band 5"),
        (BLACK_AND_WHITE, BandChoice((4, 3, 2)), "it has 1 band, not the chosen band 4"),
        (written_tiff(bands_of(2)), BandChoice(), "it has 2 bands, and nothing says which to take"),
        (written_tiff(bands_of(1, np.int8)[..., 0]), BandChoice(), NO_WHITE),
        (written_tiff(bands_of(3, np.float32)), BandChoice(), NO_WHITE),
        (written_tiff(bands_of(3, np.complex64)), WHOLE_RANGE, "no integers and no floating-point"),
        (written_tiff(bands_of(5))[:-100], BandChoice(), "it is truncated"),
        (BOMB, BandChoice(), "it is a TIFF"),
        (b"II*\0" + bytes(40), BandChoice((1,)), "it is a TIFF file, damaged or of an unknown"),
        (b"no image", BandChoice((1,)), "its format is not known"),
    ],
)
def test_why_a_file_cannot_be_read(encoded, choice, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        reader.read_rgb(encoded, choice)


def test_what_would_take_too_much_memory_is_not_decoded(monkeypatch):
    monkeypatch.setattr(bands, "MAX_PIXELS", 40 * 33)
    monkeypatch.setattr(bands, "MAX_DECODED_BYTES", 40 * 33 * 2 * 5)
    monkeypatch.setattr(pillow, "MAX_PIXELS", 40 * 33)
    read(written_tiff(bands_of(5)))
    for encoded, reason in [
        (written_tiff(bands_of(5, height=41)), "it has more than 1320 pixels"),
        (written_tiff(bands_of(6)), "its bands take more than 13200 bytes"),
        (written_tiff(bands_of(5), tile=(64, 64)), "its bands take more than 13200 bytes"),
    ]:
        with pytest.raises(UnreadableImageError, match=reason):
            reader.read_rgb(encoded, BandChoice((1,)))


@pytest.mark.parametrize(
    ("bands", "stretch", "reason"),
    [
        (["4", "3"], [], "Bands are one or three numbers from 1, as 4,3,2, not 4,3"),
        (["red"], [], "not red"),
        ([], ["98", "2"], "A stretch is two percentiles from 0 to 100, the .*, not 98,2"),
        ([], ["2"], "not 2"),
        ([], ["2", "98", "99"], "not 2,98,99"),
        ([], ["nan", "98"], "not nan,98"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(bands, stretch, reason):
    assert parse_choice() == BandChoice()
    assert parse_choice(["4", "3", "2"], ["0.5", "98"]) == BandChoice((4, 3, 2), (0.5, 98))
    with pytest.raises(DataError, match=reason):
        parse_choice(bands, stretch)
