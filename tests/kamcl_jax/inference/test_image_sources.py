"""A file becomes the same pixels whichever way it comes to the model, or is refused by all."""

import io
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from input_pipeline.errors import DataError
from input_pipeline.images import decoded
from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import UnreadableImageError
from kamcl_jax.inference.image_sources import LazyImages, pixels
from kamcl_jax.search import index as image_index
from kamcl_jax.search.image_folder import read_images
from kamcl_jax.search.index import FileState
from kamcl_jax.serving.limits import Limits
from kamcl_jax.serving.pictures import Uploads

SIZE = 24
RED = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
GREY = RED[..., 0]
ALPHA = np.random.default_rng(2).integers(1, 256, GREY.shape, np.uint8)
SHOWN = {  # by TIFF's definition: where the first stored row and the first stored column belong
    1: lambda stored: stored,
    2: np.fliplr,  # top, right
    3: lambda stored: np.rot90(stored, 2),  # bottom, right
    4: np.flipud,  # bottom, left
    5: lambda stored: stored.swapaxes(0, 1),  # left, top
    6: lambda stored: np.rot90(stored, -1),  # right, top
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),  # right, bottom
    8: lambda stored: np.rot90(stored, 1),  # left, bottom
}


def tiff(pixels, orientation=1, **options):
    file = io.BytesIO()
    options = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack"} | options
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(file, pixels, extratags=tags, metadata=None, **options)
    return file.getvalue()


def pil(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def rgb(grey):
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=-1)


def sixteen(levels):
    return (levels.astype(np.uint16) << 8) | 0xC3


def files():
    """Returns of each kind a file's bytes and its pixels, worked out without any reader."""
    kinds = {}
    for orientation, turn in SHOWN.items():
        for name, stored, shown, options in [
            ("rgb in strips", RED, RED, {"rowsperstrip": 16}),
            ("grey in tiles", GREY, rgb(GREY), {"tile": (16, 16)}),
            ("16 bit rgb in tiles", sixteen(RED), RED, {"tile": (16, 16)}),
            ("16 bit grey in strips", sixteen(GREY), rgb(GREY), {"rowsperstrip": 16}),
            ("16 bit grey in a strip", sixteen(GREY), rgb(GREY), {}),  # PIL maps it into memory
        ]:
            encoded = tiff(stored, orientation, **options)
            kinds[f"{name}, orientation {orientation}"] = encoded, turn(shown)

    divided = np.minimum(RED.astype(int) * 255 // ALPHA[..., None], 255)
    for extra, shown in {"assocalpha": divided, "unassalpha": RED}.items():
        options = {"extrasamples": [extra], "planarconfig": "contig"}
        kinds[extra] = tiff(np.dstack([RED, ALPHA]), **options), shown

    image, tags, exif = Image.fromarray(RED), {274: 6}, Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    jpeg = np.asarray(Image.open(io.BytesIO(pil(image, "JPEG"))))
    kinds["JPEG with EXIF's orientation"] = pil(image, "JPEG", exif=exif), jpeg
    kinds["16 bit PNG"] = pil(Image.fromarray(sixteen(GREY)), "PNG"), rgb(GREY)
    bilevel, palette = GREY > 127, image.quantize(16)
    encoded = pil(Image.fromarray(bilevel), "TIFF", compression="group4", tiffinfo=tags)
    kinds["bilevel, orientation 6"] = encoded, SHOWN[6](rgb(255 * bilevel))
    colours = SHOWN[6](np.asarray(palette.convert("RGB")))
    kinds["palette, orientation 6"] = pil(palette, "TIFF", tiffinfo=tags), colours
    return kinds


KINDS = files()
TWO_BANDS = tiff(np.dstack([GREY, GREY]), photometric="minisblack", planarconfig="contig")
REFUSED = [
    (tiff(sixteen(GREY).astype(np.int16)), "its pixels are signed or floating"),
    (tiff(GREY.astype(np.float32)), "its pixels are signed or floating-point"),
    (TWO_BANDS, "it has 2 bands, and nothing says which to take"),
]


def prepared(path):
    images = decoded.DecodedImages(path.parent / "decoded", SIZE, 1)
    images.folder.mkdir(exist_ok=True)
    encoded = decoded.EncodedImage(str(path), path.read_bytes())
    return decoded.decode(images, np.array([0]), lambda row: encoded)[0]


def of_a_file(path):
    return LazyImages([path], SIZE)[np.array([0])][0]


def opened_by_pil(path):
    return pixels(Image.open(path), SIZE)


def decoded_by_pil(path):
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.load()
    return pixels(image, SIZE)


def indexed(path):
    (image,) = read_images(path.parent, [FileState(path.name, 1, 1)], SIZE, BandChoice(), 1)
    if isinstance(image.pixels, str):
        raise UnreadableImageError(image.pixels)
    return image.pixels


def index_of(folder):
    return image_index.ImageIndex(
        folder=folder,
        generation=folder,
        images_root=folder,
        settings=image_index.IndexSettings("an encoder", "another", BandChoice(), (2, 1)),
        states=[],
        embeddings=np.zeros((0, 2), np.float32),
        concepts=np.zeros((0, 1), np.float16),
    )


def searched_by(path):
    return pixels(index_of(path.parent).read_file(path), SIZE)


def uploaded(path):
    seen = []
    engine = SimpleNamespace(
        index=index_of(path.parent), look_at=lambda image: (seen.append(pixels(image, SIZE)), None)
    )
    with ThreadPoolExecutor(1) as decoders:
        Uploads(engine, decoders, Limits()).add(path.name, path.read_bytes())
    return seen[0]


ROUTES = [prepared, of_a_file, opened_by_pil, decoded_by_pil, indexed, searched_by, uploaded]


@pytest.mark.parametrize("kind", KINDS)
def test_every_route_gives_the_same_pixels(kind, tmp_path):
    encoded, shown = KINDS[kind]
    path = tmp_path / "image.dat"
    path.write_bytes(encoded)
    shown = Image.fromarray(np.ascontiguousarray(shown, np.uint8))
    expected = np.asarray(shown.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    for route in ROUTES:
        np.testing.assert_array_equal(route(path), expected, err_msg=route.__name__)


@pytest.mark.parametrize(("encoded", "reason"), REFUSED)
def test_what_is_refused_is_refused_by_every_route(encoded, reason, tmp_path):
    path = tmp_path / "image.dat"
    path.write_bytes(encoded)
    for route in ROUTES:
        with pytest.raises((DataError, UnreadableImageError), match=reason):
            route(path)


def test_a_page_that_was_chosen_in_pil_is_the_one_that_is_read():
    file = io.BytesIO()
    tifffile.imwrite(file, np.stack([sixteen(GREY), sixteen(255 - GREY)]), photometric="minisblack")
    image = Image.open(file)
    image.seek(1)
    np.testing.assert_array_equal(pixels(image, SIZE), pixels(rgb(255 - GREY), SIZE))


def test_arrays_are_read_as_images_in_the_order_asked_for():
    for source in (RED, Image.fromarray(RED)):
        expected = np.asarray(Image.fromarray(RED).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(pixels(source, SIZE), expected)
    np.testing.assert_array_equal(pixels(GREY, SIZE), pixels(rgb(GREY), SIZE))
    sources = [RED, RED[:7], RED[:, :9]]
    images = LazyImages(sources, SIZE)
    assert images.shape == (3, SIZE, SIZE, 3)
    for rows in ([0, 1, 2], [2, 0], [1, 1]):
        expected = np.stack([pixels(sources[row], SIZE) for row in rows])
        np.testing.assert_array_equal(images[np.array(rows)], expected)


def damaged(folder):
    (folder / "damaged.png").write_bytes(b"not an image")
    return folder / "damaged.png"


def truncated(folder):
    (folder / "image.png").write_bytes(pil(Image.fromarray(RED), "PNG")[:2000])
    return Image.open(folder / "image.png")  # which reads no pixel yet


def closed(folder):
    (folder / "image.png").write_bytes(pil(Image.fromarray(RED), "PNG"))
    image = Image.open(folder / "image.png")
    image.close()
    return image


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "a\0b.png", "The image .* cannot be read: not a file name"),
        (lambda folder: folder / "nowhere.png", r"nowhere\.png cannot be read: missing\."),
        (damaged, r"damaged\.png cannot be read: its format is not known\."),
        (truncated, r"number 1 \(from 0\) cannot be read: it is truncated"),
        (closed, r"number 1 \(from 0\) cannot be read: it has been closed"),
        (lambda _: Image.new("F", (4, 4)), "PIL holds its pixels as 32-bit or floating-point"),
        (lambda _: np.zeros((4, 4)), r"an array must be uint8.*, not float64\[4, 4\]"),
        (lambda _: np.zeros((4, 4, 4), np.uint8), r"an array must be .*, not uint8\[4, 4, 4\]"),
        (lambda _: np.zeros((0, 4, 3), np.uint8), r"an array must be .*, not uint8\[0, 4, 3\]"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(make, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence):
        LazyImages([RED, make(tmp_path)], SIZE)[np.array([0, 1])]
