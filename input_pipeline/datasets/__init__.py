"""tensorflow-datasets builders, one file a data set, on one shared base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from input_pipeline.datasets.base import DatasetBuilder
from input_pipeline.datasets.caption_folder import CaptionFolder
from input_pipeline.datasets.nwpu_captions import NwpuCaptions
from input_pipeline.datasets.preparing import Prepared, prepare
from input_pipeline.datasets.rsicd import Rsicd
from input_pipeline.datasets.rsitmd import Rsitmd
from input_pipeline.datasets.sydney_captions import SydneyCaptions
from input_pipeline.datasets.synthetic.builder import Synthetic
from input_pipeline.datasets.ucm_captions import UcmCaptions
from input_pipeline.errors import DataError
from input_pipeline.language.texts import Texts

__all__ = ["BUILDERS", "Prepared", "open_prepared", "read_texts"]

# A new data set is one file with a builder and one line here.
BUILDERS: Mapping[str, type[DatasetBuilder]] = {
    "synthetic": Synthetic,
    "rsicd": Rsicd,
    "rsitmd": Rsitmd,
    "nwpu_captions": NwpuCaptions,
    "ucm_captions": UcmCaptions,
    "sydney_captions": SydneyCaptions,
    "caption_folder": CaptionFolder,
}


def open_prepared(
    name: str,
    source_dir: str | Path | None,
    prepared_dir: str | Path,
    *,
    bad_images: str = "stop",
    **options: Any,
) -> Prepared:
    """Prepares a data set, unless that was done before from the same inputs, and opens it.

    Args:
      name: A key of `BUILDERS`.
      source_dir: The folder with the data set's files; None for 'synthetic'.
      prepared_dir: The folder for the prepared data of all data sets.
      bad_images: 'stop' refuses a data set with images that are missing or can't be read; 'skip'
        leaves them out, with their captions.
      **options: The data set's own, see its class.
    """
    builder_class: Any = _builder_class(name, source_dir, options)
    source, folder = _expanded(source_dir), _expanded(prepared_dir)
    return prepare(builder_class(source_dir=source, prepared_dir=folder, **options), bad_images)


def read_texts(name: str, source_dir: str | Path | None, **options: Any) -> dict[str, Texts]:
    """Returns split -> its texts, 'train' first and 'test' last, from what `open_prepared` takes.

    The images need not be there, and nothing is written.
    """
    builder_class = _builder_class(name, source_dir, options)
    return builder_class.read_texts(_expanded(source_dir), **options)


def _expanded(path: str | Path | None) -> Path | None:
    return None if path is None else Path(os.path.expanduser(path))


def _builder_class(
    name: str, source_dir: str | Path | None, options: Mapping[str, Any]
) -> type[DatasetBuilder]:
    if name not in BUILDERS:
        raise DataError(f"There is no data set '{name}', only {', '.join(sorted(BUILDERS))}.")
    builder_class = BUILDERS[name]
    known = builder_class.option_names()
    unknown = sorted(set(options) - known)
    if unknown:
        raise DataError(
            f"The data set '{name}' has no option '{unknown[0]}', only {', '.join(sorted(known))}."
        )
    if source_dir is None and name != "synthetic":
        raise DataError(f"The data set '{name}' needs a source folder.")
    return builder_class
