"""Uploaded images: decoded, embedded, and kept in memory for a while."""

import secrets
from dataclasses import dataclass, field
from typing import Self

from input_pipeline.images import reader
from kamcl_jax.serving import pictures
from kamcl_jax.serving.bounded_cache import BoundedCache
from kamcl_jax.serving.engine import Engine, Seen
from kamcl_jax.serving.limits import Limits
from kamcl_jax.serving.pictures import Pictures


@dataclass(frozen=True)
class Upload:
    """An uploaded image.

    Attributes:
      name: of the file, as the visitor's machine has it.
      jpeg: a picture of it.
      seen: what the model says of it.
    """

    name: str
    jpeg: bytes = field(repr=False)
    seen: Seen = field(repr=False)


@dataclass(frozen=True)
class Uploads:
    """The latest uploads, each under a name that cannot be guessed; nothing is on the disk.

    Attributes:
      engine: that looks at them.
      pictures: whose decoders they share.
      side: pixels of the longer side of what is kept.
    """

    engine: Engine
    pictures: Pictures
    side: int
    _kept: BoundedCache[str, Upload] = field(repr=False)

    @classmethod
    def of(cls, engine: Engine, shown: Pictures, limits: Limits) -> Self:
        """Returns an empty collection."""
        return cls(engine, shown, limits.view_side, BoundedCache(limits.uploads))

    def add(self, name: str, encoded: bytes) -> str:
        """Reads an uploaded file as the index's files were read.

        Args:
          name: of the file.
          encoded: its bytes.

        Returns:
          The name to `get` it by.

        Raises:
          UnreadableImageError: it is no image, or damaged, or too large.
        """
        upload = self.pictures.decoders.submit(self._read, name, encoded).result()
        token = secrets.token_urlsafe(16)
        self._kept.put(token, upload)
        return token

    def get(self, token: str) -> Upload | None:
        """Returns an upload, or None if it is not kept any more or never was."""
        return self._kept.get(token)

    def _read(self, name: str, encoded: bytes) -> Upload:
        image = reader.read_rgb(encoded, self.engine.index.choice)
        seen = self.engine.look_at(image)
        return Upload(name, pictures.jpeg(image, self.side), seen)
