"""PIL's and libtiff's settings for reading files that may be damaged, strictly and silently."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence

from PIL import Image, ImageFile


def silence_libtiff() -> None:
    """Keeps libtiff from writing to the process's stderr, from now on.

    PIL has no setting for it. Where a build of PIL hides libtiff's symbols, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)
        for set_handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


@functools.cache
def load_formats(wanted: Sequence[str]) -> tuple[str, ...]:
    """Loads PIL's plugins and silences libtiff, once.

    Args:
      wanted: PIL's names of formats.

    Returns:
      Those that this build of PIL can read.
    """
    Image.init()
    silence_libtiff()
    return tuple(name for name in wanted if name in Image.OPEN)


@contextlib.contextmanager
def _strict(max_pixels: int) -> Iterator[None]:
    logger = logging.getLogger("PIL.TiffImagePlugin")  # it reports damage as an error
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, logger.disabled
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        Image.MAX_IMAGE_PIXELS = max_pixels // 2  # PIL refuses what has more than twice as many
        logger.disabled = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, logger.disabled = before


class StrictPillow:
    """A context in which PIL refuses truncated and large images, and warns of nothing.

    The settings belong to the process. Any number of threads may be inside: the first one in sets
    them and the last one out puts back what was there.
    """

    def __init__(self, max_pixels: int) -> None:
        """Takes the number of pixels, even, above which an image is refused."""
        self._max_pixels = max_pixels
        self._lock, self._threads = threading.Lock(), 0
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._restore.enter_context(_strict(self._max_pixels))
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._restore.close()
