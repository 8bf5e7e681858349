"""What the page accepts, shows and keeps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of what a visitor can ask for, and of the memory that it takes.

    An uploaded image may have `files.MAX_PIXELS` pixels, as every other image.

    Attributes:
      upload_bytes: of a request's body, so of an uploaded file.
      query_characters: of a query.
      query_tokens: of a query, words and punctuation.
      samples: images on the start page.
      results: shown at first.
      most_results: shown at most.
      concepts: shown of an image.
      thumbnail_side: pixels of the longer side of an image in a list.
      view_side: pixels of the longer side of an image on its own page.
      cached_bytes: of JPEG pictures kept in memory.
      uploads: kept in memory, the latest.
      decoders: images decoded at once; the largest that are read take gigabytes.
    """

    upload_bytes: int = 20_000_000
    query_characters: int = 300
    query_tokens: int = 64
    samples: int = 14
    results: int = 28
    most_results: int = 98
    concepts: int = 10
    thumbnail_side: int = 320
    view_side: int = 1024
    cached_bytes: int = 64_000_000
    uploads: int = 64
    decoders: int = 2

    @property
    def upload_megabytes(self) -> str:
        """`upload_bytes` in MB, as it is written."""
        return f"{self.upload_bytes / 1e6:.3g}"
