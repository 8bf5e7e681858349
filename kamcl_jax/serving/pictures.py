"""JPEG pictures of the index's images and of uploaded ones, as browsers show them."""

import hashlib
import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from input_pipeline.images import reader
from kamcl_jax.search.index import ImageIndex
from kamcl_jax.serving.engine import Engine
from kamcl_jax.serving.limits import Limits

JPEG_QUALITY = 87

Value = TypeVar("Value")


class LeastRecentlyUsed(Generic[Value]):
    """A cache for any number of threads, which drops what was used longest ago.

    `capacity` bounds the sizes of all values together; a value that is larger is not kept.
    """

    def __init__(self, capacity: int, size_of: Callable[[Value], int] = lambda _: 1):
        self._capacity, self._size_of = capacity, size_of
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Value | None:
        """Returns the value, or None if it is not kept any more or never was."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: Value) -> None:
        """Keeps a value, and drops others where there is no room."""
        with self._lock:
            if self._size_of(value) > self._capacity:
                return
            self._values.pop(key, None)
            self._values[key] = value
            while sum(map(self._size_of, self._values.values())) > self._capacity:
                self._values.popitem(last=False)


class Picture(NamedTuple):
    """A JPEG file, and a tag that tells it from those of other images, sizes and file states."""

    jpeg: bytes
    tag: str


class Pictures:
    """Makes pictures of the index's images, and keeps those used last in memory.

    Attributes:
      decoders: The threads that decode, few of them: each may need the memory of a large image.
    """

    def __init__(self, index: ImageIndex, limits: Limits):
        self.decoders: Executor = ThreadPoolExecutor(limits.decoders, "decoder")
        self._index = index
        self._kept = LeastRecentlyUsed[Picture](limits.cached_bytes, lambda one: len(one.jpeg))

    def picture(self, row: int, side: int) -> Picture:
        """Returns a picture of a row's image, with at most `side` pixels a side.

        Raises:
          DataError: The file is gone, or cannot be read any more.
        """
        tag = self._tag(row, side)
        return self._kept.get(tag) or self.decoders.submit(self._make, tag, row, side).result()

    def _make(self, tag: str, row: int, side: int) -> Picture:
        picture = self._kept.get(tag)  # another thread may have made it meanwhile
        if picture is None:
            picture = Picture(jpeg(self._index.read_image(row), side), tag)
            self._kept.put(tag, picture)
        return picture

    def _tag(self, row: int, side: int) -> str:
        status = self._index.path_of(row).stat()
        state = f"{self._index.files[row]!r} {status.st_size} {status.st_mtime_ns} {side}"
        return hashlib.sha256(state.encode()).hexdigest()[:32]


class Upload(NamedTuple):
    """An uploaded image: its embedding f32[E], and its probabilities f32[C] of concepts."""

    name: str
    jpeg: bytes
    embedding: np.ndarray
    concepts: np.ndarray


class Uploads:
    """The latest uploads, each under a name that cannot be guessed; nothing is on the disk."""

    def __init__(self, engine: Engine, decoders: Executor, limits: Limits):
        self._engine, self._decoders, self._side = engine, decoders, limits.view_side
        self._kept = LeastRecentlyUsed[Upload](limits.uploads)

    def add(self, name: str, encoded: bytes) -> str:
        """Reads an uploaded file as the index's files were read; returns the token to `get` it by.

        Raises:
          UnreadableImageError: It is no image, or damaged, or too large.
        """
        upload = self._decoders.submit(self._read, name, encoded).result()
        token = secrets.token_urlsafe(16)
        self._kept.put(token, upload)
        return token

    def get(self, token: str) -> Upload | None:
        """Returns an upload, or None if it is not kept any more or never was."""
        return self._kept.get(token)

    def _read(self, name: str, encoded: bytes) -> Upload:
        image = reader.read_rgb(encoded, self._engine.index.settings.choice)
        embedding, concepts = self._engine.look_at(image)
        return Upload(name, jpeg(image, self._side), embedding, concepts)


def jpeg(image: Image.Image, side: int) -> bytes:
    """Returns an RGB image as a JPEG file, and shrinks it in place to `side` pixels at most."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
