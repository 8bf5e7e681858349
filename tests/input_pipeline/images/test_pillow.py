"""Whatever an image file holds becomes 8-bit RGB as the table says."""

import io
import zlib

import numpy as np
import pytest
from handmade_images import colours, encode, png, tiff, written_tiff
from numpy.testing import assert_array_equal
from PIL import ExifTags, Image

from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import UnreadableImageError
from input_pipeline.images.pillow import to_rgb as read_rgb_of_pil
from input_pipeline.images.reader import read_rgb


def pixels(encoded):
    image = read_rgb(encoded)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=-1)


def decoded_by_pil(encoded):
    image = Image.open(io.BytesIO(encoded))
    image.load()
    return image


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_colours_come_back(file_format):
    options = {"lossless": True} if file_format == "WEBP" else {}
    encoded = encode(Image.fromarray(colours()), file_format, **options)
    assert_array_equal(pixels(encoded), colours())


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_grey_is_repeated_and_one_bit_is_black_or_white(file_format):
    values = colours()[..., 0]
    for stored, expected in [(values, values), (values > 127, 255 * (values > 127))]:
        assert_array_equal(pixels(encode(Image.fromarray(stored), file_format)), grey(expected))


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore:Palette images")
def test_palettes_give_their_colours(file_format):
    palette = np.array([[10, 20, 30], [200, 100, 0], [255, 255, 254]], np.uint8)
    indices = np.array([[0, 1, 2, 1], [2, 0, 1, 0]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    options = {"PNG": {"transparency": b"\x00\x80\xff"}, "GIF": {"transparency": 1}}
    encoded = encode(image, file_format, **options.get(file_format, {}))
    assert_array_equal(pixels(encoded), palette[indices])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_alpha_is_dropped(file_format):
    alpha = np.array([0, 1, 128, 254, 255] * 6, np.uint8).reshape(6, 5)
    for mode, expected in (("RGB", colours()), ("L", grey(colours()[..., 0]))):
        image = Image.fromarray(colours() if mode == "RGB" else colours()[..., 0])
        image.putalpha(Image.fromarray(alpha))
        assert_array_equal(pixels(encode(image, file_format)), expected)


@pytest.mark.parametrize(
    ("mode", "file_format"), [("CMYK", "TIFF"), ("LAB", "TIFF"), ("CMYK", "JPEG")]
)
def test_other_colour_spaces_are_converted_by_pil(mode, file_format):
    image = Image.frombytes(mode, (4, 4), bytes(range(16 * len(mode))))
    encoded = encode(image, file_format)
    assert_array_equal(pixels(encoded), decoded_by_pil(encoded).convert("RGB"))


HIGH = np.array([[0x00FF, 0x0100, 0x80FF, 0xFFFF]], np.uint16)


@pytest.mark.parametrize(
    ("encoded", "levels"),
    [
        (png(4, 1, 2, 0, [bytes([0b00011011])]), [0, 85, 170, 255]),
        (png(3, 1, 4, 0, [bytes([0x0F, 0x10])]), [0, 255, 17]),
        (png(4, 1, 16, 0, [HIGH.astype(">u2").tobytes()]), [0, 1, 128, 255]),
        (tiff("<", [16], 0, HIGH.astype("<u2").tobytes()), [255, 254, 127, 0]),  # zero is white
        (tiff("<", [32], 1, (HIGH.astype("<u4") << 16).tobytes()), [0, 1, 128, 255]),
        (tiff("<", [12], 1, bytes([0x80, 0xFF, 0xFE]), width=2), [0x80, 0xFF]),
        (b"P5 4 1 65535\n" + HIGH.astype(">u2").tobytes(), [0, 1, 128, 255]),
        (b"P5 2 1 4095\n" + np.array([4095, 0], ">u2").tobytes(), [255, 0]),  # 4095 is white
        (encode(Image.fromarray(np.full((1, 8), 0x80FF, np.uint16)), "JPEG2000"), [0x80] * 8),
    ],
)
def test_of_grey_of_any_bits_the_highest_8_count(encoded, levels):
    assert_array_equal(pixels(encoded), grey([levels]))


@pytest.mark.parametrize(("colour_type", "bands"), [(2, 3), (6, 4), (4, 2)])
def test_png_of_several_bands_of_16_bits(colour_type, bands):
    values = np.array([0x80FF, 0x12FE, 0xFEFF, 0x00FF], np.uint16)[:bands]
    encoded = png(1, 1, 16, colour_type, [values.astype(">u2").tobytes()])
    expected = values[:3] >> 8 if bands > 2 else [values[0] >> 8] * 3
    assert pixels(encoded).ravel().tolist() == list(expected)


@pytest.mark.parametrize("compression", [1, 8])
def test_separate_planes_of_16_bits(compression):
    planes = [np.array([v, v + 1], "<u2").tobytes() for v in (0x80FE, 0x12FE, 0xFEFE)]
    planes = [zlib.compress(plane) if compression == 8 else plane for plane in planes]
    encoded = tiff("<", [16] * 3, 2, *planes, width=2, compression=compression, t284=[2])
    assert pixels(encoded).tolist() == [[[0x80, 0x12, 0xFE]] * 2]
    if compression == 8:
        assert pixels(decoded_by_pil(encoded)).tolist() == [[[0x80, 0x12, 0xFE]] * 2]
    else:  # PIL takes the planes for wider ones of 8 bits
        with pytest.raises(UnreadableImageError, match=r"lie in separate planes$"):
            read_rgb(decoded_by_pil(encoded))


@pytest.mark.parametrize(
    ("bands", "reason"), [(2, "it has 2 bands, "), (4, "PIL has decoded only ")]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_first_of_several_bands_is_not_taken_for_grey(dtype, bands, reason):
    unspecified = {"extrasamples": ["unspecified"] * (bands - 1), "planarconfig": "separate"}
    encoded = written_tiff(np.ones((4, 4, bands), dtype), compression="zlib", **unspecified)
    with pytest.raises(UnreadableImageError, match=reason):
        read_rgb(decoded_by_pil(encoded))


@pytest.mark.parametrize(("dtype", "kind"), [("<i1", 2), ("<i2", 2), ("<i4", 2), ("<f4", 3)])
def test_numbers_without_a_white_are_refused(dtype, kind):
    values = np.arange(4, dtype=dtype)
    encoded = tiff("<", [8 * values.itemsize], 1, values.tobytes(), t339=[kind])
    for source in (encoded, Image.open(io.BytesIO(encoded)), decoded_by_pil(encoded)):
        with pytest.raises(UnreadableImageError, match=r"^its pixels are signed or floating-"):
            read_rgb(source)


@pytest.mark.parametrize(
    "source",
    [
        b"Pf\n2 1\n-1\n" + np.array([0, 1], "<f4").tobytes(),
        decoded_by_pil(tiff("<", [32], 1, np.arange(4, dtype="<u4").tobytes(), t339=[1])),
    ],
)
def test_what_pil_has_widened_is_not_called_signed_nor_is_a_stretch_advised(source):
    with pytest.raises(UnreadableImageError, match=r"^PIL holds its pixels as .*is white$"):
        read_rgb(source, BandChoice(stretch=(2, 98)))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_several_images_counts(file_format):
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("#0000ff", "#ff0000"))
    options = {"lossless": True} if file_format == "WEBP" else {}
    encoded = encode(first, file_format, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(encoded)).n_frames == 2
    difference = np.abs(pixels(encoded) - np.asarray(first).astype(int))
    assert difference.max() <= (2 if file_format == "MPO" else 0)


def test_the_orientation_of_exif_is_not_applied():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    encoded = encode(Image.fromarray(colours(8, 16)), "PNG", exif=exif)
    assert_array_equal(pixels(encoded), colours(8, 16))


def test_differences_that_pil_does_not_add_up_are_refused():
    ramp = np.tile(np.arange(0, 30, 3, dtype=np.uint8)[:, None], (4, 1, 3))
    image = decoded_by_pil(encode(Image.fromarray(ramp), "TIFF", compression="packbits"))
    read_rgb_of_pil(image)
    image.tag_v2[317] = 2  # a horizontal predictor
    with pytest.raises(UnreadableImageError, match="stored as differences"):
        read_rgb_of_pil(image)
