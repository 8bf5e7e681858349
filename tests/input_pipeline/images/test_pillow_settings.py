"""PIL is strict and silent while any thread decodes, and as it was afterwards."""

import io
import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from handmade_images import colours, encode, png, tiff
from PIL import Image, ImageFile

from input_pipeline.images import rgb
from input_pipeline.images.files import UnreadableImageError
from input_pipeline.images.pillow_settings import StrictPillow, load_formats
from input_pipeline.images.reader import read_rgb

TRUNCATED = encode(Image.fromarray(colours(64, 64)), "JPEG")[:-200]


@pytest.fixture
def lenient(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def test_truncated_images_are_refused_whatever_is_set(lenient):
    Image.open(io.BytesIO(TRUNCATED)).load()  # PIL takes it
    with pytest.raises(UnreadableImageError, match=r"^it is truncated$"):
        read_rgb(TRUNCATED)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("limit", [None, 10])
def test_the_limit_of_pixels_does_not_depend_on_what_is_set(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert read_rgb(encode(Image.fromarray(colours()), "PNG")).size == (5, 6)
    with pytest.raises(UnreadableImageError, match="it has more than 100000000 pixels"):
        read_rgb(png(40000, 40000, 8, 2, []))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_settings_are_put_back_after_an_error(lenient):
    within = []

    def failing():
        with StrictPillow(10):
            within.append(ImageFile.LOAD_TRUNCATED_IMAGES)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert within == [False]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_many_threads_share_the_settings(lenient):
    whole = encode(Image.fromarray(colours(64, 64)), "JPEG")
    logger = logging.getLogger("PIL.TiffImagePlugin")
    before = list(warnings.filters), logger.disabled

    def is_refused(encoded):
        try:
            read_rgb(encoded)
        except UnreadableImageError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        refused = list(pool.map(is_refused, [whole, TRUNCATED] * 200))
    assert refused == [False, True] * 200
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert (warnings.filters, logger.disabled) == before


def test_one_thread_that_leaves_does_not_loosen_the_others(lenient, monkeypatch):
    entered, leave = threading.Event(), threading.Event()
    convert = rgb.to_rgb
    encoded = encode(Image.fromarray(colours()), "PNG")

    def waiting(image):
        entered.set()
        assert leave.wait(10)
        return convert(image)

    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(rgb, "to_rgb", waiting)
            slow = pool.submit(read_rgb, encoded)
            assert entered.wait(10)
        read_rgb(encoded)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        leave.set()
        slow.result()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_warnings_of_pil_are_not_shown_and_others_are():
    palette = Image.fromarray(colours()[..., 0]).quantize(8)
    encoded = encode(palette, "PNG", transparency=b"\x00\x80")
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(io.BytesIO(encoded)).convert("RGB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_rgb(encoded)
    with pytest.warns(UserWarning, match="another"), StrictPillow(10):
        warnings.warn("another", stacklevel=1)


def test_libtiff_does_not_print(capfd):
    # The strip of this file is no compressed data: libtiff writes that to the process's stderr.
    encoded = tiff("<", [8], 3, b"12", width=2, compression=8, t320=[0] * 768)
    with pytest.raises(UnreadableImageError, match=r"^it is damaged \("):
        read_rgb(encoded)
    assert capfd.readouterr() == ("", "")


def test_formats_that_this_build_does_not_know_are_left_out():
    assert load_formats(("JPEG", "a format", "TIFF")) == ("JPEG", "TIFF")
