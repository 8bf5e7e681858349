"""JPEG pictures of images of any kind and size, as browsers show them."""

import hashlib
import io
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from PIL import Image

from input_pipeline.errors import DataError
from kamcl_jax.search.index import ImageIndex
from kamcl_jax.serving.bounded_cache import BoundedCache
from kamcl_jax.serving.limits import Limits

JPEG_QUALITY = 87


class Picture(NamedTuple):
    """A picture of an image of the index.

    Attributes:
      jpeg: the file's bytes.
      tag: tells it from pictures of other sizes, images and states of a file.
    """

    jpeg: bytes
    tag: str


@dataclass(frozen=True)
class Pictures:
    """Makes pictures of the index's images and keeps those used last in memory.

    Attributes:
      index: of the images.
      kept: the pictures in memory, by their tags.
      decoders: the threads that decode, few of them: each may keep the memory of a large image.
    """

    index: ImageIndex
    kept: BoundedCache[str, Picture] = field(repr=False)
    decoders: Executor = field(repr=False)

    @classmethod
    def of(cls, index: ImageIndex, limits: Limits) -> Self:
        """Returns pictures of an index, none of them made yet."""
        kept = BoundedCache[str, Picture](limits.cached_bytes, lambda picture: len(picture.jpeg))
        return cls(index, kept, ThreadPoolExecutor(limits.decoders, "decoder"))

    def picture(self, row: int, side: int) -> Picture:
        """Returns a picture of an image.

        Args:
          row: of the image.
          side: pixels of the longer side, if the image has as many.

        Raises:
          DataError: the file is gone, or cannot be read any more.
        """
        tag = self._tag(row, side)
        picture = self.kept.get(tag)
        if picture is not None:
            return picture
        return self.decoders.submit(self._make, tag, row, side).result()

    def _make(self, tag: str, row: int, side: int) -> Picture:
        picture = self.kept.get(tag)  # another thread may have made it meanwhile
        if picture is None:
            picture = Picture(jpeg(self.index.read_image(row), side), tag)
            self.kept.put(tag, picture)
        return picture

    def _tag(self, row: int, side: int) -> str:
        path = self.index.path_of(row)
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"The image {path} cannot be read: {error.strerror}.") from error
        state = f"{self.index.files[row]!r} {status.st_size} {status.st_mtime_ns} {side}"
        return hashlib.sha256(state.encode()).hexdigest()[:32]


def jpeg(image: Image.Image, side: int) -> bytes:
    """Returns an RGB image as a JPEG file.

    Args:
      image: is made smaller in place.
      side: pixels of the longer side; smaller images keep their size.
    """
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
