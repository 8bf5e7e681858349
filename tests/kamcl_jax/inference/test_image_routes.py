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
from kamcl_jax.inference import image_sources
from kamcl_jax.inference.image_sources import LazyImages
from kamcl_jax.search import command
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


def with_alpha(colours, alpha=ALPHA):
    return np.dstack([colours, alpha])


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
        for name, colours, alpha in [
            ("8", RED, ALPHA),
            ("16", sixteen(RED), sixteen(ALPHA)),
        ]:
            kinds[f"{extra} of {name} bits"] = tiff(with_alpha(colours, alpha), **options), shown
        grey_alpha = np.dstack([GREY, ALPHA])
        encoded = tiff(grey_alpha, photometric="minisblack", **options)
        kinds[f"grey with {extra}"] = encoded, rgb(shown[..., 0])
    kinds["white is 0"] = tiff(GREY, photometric="miniswhite"), rgb(255 - GREY)

    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    image = Image.fromarray(RED)
    jpeg = np.asarray(Image.open(io.BytesIO(pil(image, "JPEG"))))
    kinds["JPEG with EXIF's orientation"] = pil(image, "JPEG", exif=turned), jpeg
    kinds["PNG with EXIF's orientation"] = pil(image, "PNG", exif=turned), RED
    kinds["PNG with alpha"] = pil(Image.fromarray(with_alpha(RED)), "PNG"), RED
    kinds["16 bit PNG"] = pil(Image.fromarray(sixteen(GREY)), "PNG"), rgb(GREY)
    bilevel = GREY > 127
    kinds["bilevel PNG"] = pil(Image.fromarray(bilevel), "PNG"), rgb(255 * bilevel)
    palette = image.quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    kinds["palette in PNG"] = pil(palette, "PNG"), colours
    for orientation in (1, 6):
        tags = {274: orientation}
        turn = SHOWN[orientation]
        black = pil(Image.fromarray(bilevel), "TIFF", compression="group4", tiffinfo=tags)
        kinds[f"bilevel, orientation {orientation}"] = black, turn(rgb(255 * bilevel))
        indices = pil(palette, "TIFF", tiffinfo=tags)
        kinds[f"palette in TIFF, orientation {orientation}"] = indices, turn(colours)
    return kinds


KINDS = files()
REFUSED = {
    "signed bytes": (tiff(GREY.astype(np.int8)), "its pixels are signed or floating-point num"),
    "signed 16 bits": (tiff(sixteen(GREY).astype(np.int16)), "its pixels are signed or floating"),
    "floating point": (tiff(GREY.astype(np.float32)), "its pixels are signed or floating-point"),
    "two bands": (
        tiff(np.dstack([GREY, GREY]), photometric="minisblack", planarconfig="contig"),
        "it has 2 bands, and nothing says which to take",
    ),
}


def prepared(path, monkeypatch):
    images = decoded.DecodedImages(path.parent / "decoded", SIZE, 1)
    images.folder.mkdir(exist_ok=True)

    def read(row):
        return decoded.EncodedImage(str(path), path.read_bytes())

    return decoded.decode(images, np.array([0]), read)[0]


def of_a_file(path, monkeypatch):
    return LazyImages([path], SIZE)[np.array([0])][0]


def opened_by_pil(path, monkeypatch):
    return pixels_of(path, Image.open(path))


def decoded_by_pil(path, monkeypatch):
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.load()
    return pixels_of(path, image)


def pixels_of(path, image):
    try:
        return image_sources.pixels(image, SIZE)
    except UnreadableImageError as error:
        raise named(path, error) from error


def indexed(path, monkeypatch):
    (image,) = read_images(path.parent, [FileState(path.name, 1, 1)], SIZE, BandChoice(), 1)
    if isinstance(image.pixels, str):
        raise named(path, image.pixels)
    return image.pixels


def index_of(folder):
    """A real index of one image, of whose model nothing is needed but what a test puts in."""
    return image_index.ImageIndex(
        folder=folder,
        generation=folder / "generation_1",
        images_root=folder,
        settings=image_index.IndexSettings("an encoder", "another", BandChoice(), (2, 1)),
        states=[FileState("a.png", 1, 1)],
        embeddings=np.ones((1, 2), np.float32),
        concepts=np.ones((1, 1), np.float16),
    )


def searched_by(path, monkeypatch):
    seen = []

    def encode_images(images):
        seen.append(LazyImages(images, SIZE)[np.array([0])][0])
        raise StopIteration  # nothing is searched

    model = SimpleNamespace(encode_images=encode_images)
    monkeypatch.setattr(image_index.model_folder, "read", lambda *_, **__: model)
    index = index_of(path.parent)
    monkeypatch.setattr(command, "open_index", lambda *_, **__: index)
    with pytest.raises(StopIteration):
        command.by_image(path.parent, path, None, command.SearchOptions(k=1))
    return seen[0]


def uploaded(path, monkeypatch):
    seen = []
    engine = SimpleNamespace(
        index=index_of(path.parent),
        look_at=lambda image: (seen.append(image_sources.pixels(image, SIZE)), None),
    )
    with ThreadPoolExecutor(1) as decoders:
        uploads = Uploads(engine, decoders, Limits())
        try:
            uploads.add(path.name, path.read_bytes())
        except UnreadableImageError as error:
            raise named(path, error) from error
    return seen[0]


def named(path, reason):
    """What those say who call where only a reason is known."""
    return DataError(f"The image {path} cannot be read: {reason}.")


ROUTES = [prepared, of_a_file, opened_by_pil, decoded_by_pil, indexed, searched_by, uploaded]


@pytest.mark.parametrize("kind", KINDS)
def test_every_route_gives_the_same_pixels(kind, tmp_path, monkeypatch):
    encoded, shown = KINDS[kind]
    path = tmp_path / "image.dat"
    path.write_bytes(encoded)
    shown = Image.fromarray(np.ascontiguousarray(shown, np.uint8))
    expected = np.asarray(shown.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    for route in ROUTES:
        pixels = route(path, monkeypatch)
        np.testing.assert_array_equal(pixels, expected, err_msg=route.__name__)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_refused_by_every_route(kind, tmp_path, monkeypatch):
    encoded, reason = REFUSED[kind]
    path = tmp_path / "image.dat"
    path.write_bytes(encoded)
    for route in ROUTES:
        with pytest.raises(DataError) as refused:
            route(path, monkeypatch)
        sentence = str(refused.value)
        assert sentence.startswith(f"The image {path} cannot be read: {reason}"), route.__name__


def test_a_page_that_was_chosen_in_pil_is_the_one_that_is_read():
    file = io.BytesIO()
    tifffile.imwrite(file, np.stack([sixteen(GREY), sixteen(255 - GREY)]), photometric="minisblack")
    image = Image.open(file)
    image.seek(1)
    size = GREY.shape[0]
    expected = Image.fromarray(rgb(255 - GREY)).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image_sources.pixels(image, size), np.asarray(expected))
