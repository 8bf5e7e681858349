"""Readers of caption files, one file a format; what they have in common is an `Entry` an image."""

from input_pipeline.caption_files.entry import Entry

__all__ = ["Entry"]
