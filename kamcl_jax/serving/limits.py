"""What the page accepts, shows and keeps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of what a visitor can ask for, and of the memory that it takes.

    Any image, an uploaded one too, may have as many pixels as `input_pipeline.images.files` allows.

    Attributes:
      upload_bytes: The size of an uploaded file.
      query_characters: The characters of a query.
      query_tokens: The words and punctuation marks of a query.
      samples: How many images the start page shows.
      results: How many results are shown at first.
      most_results: How many results are shown at most.
      concepts: How many concepts of an image are shown.
      thumbnail_side: The longer side of an image in a list, in pixels.
      view_side: The longer side of an image on its own page, in pixels.
      cached_bytes: The size of all JPEG pictures kept in memory.
      uploads: How many of the latest uploads are kept in memory.
      decoders: How many images are decoded at once; the largest of them take gigabytes.
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
