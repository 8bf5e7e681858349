"""tensorflow-datasets builders, one file a data set, on one shared base."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from input_pipeline.datasets.base import CaptionedImages, prepare_builder
from input_pipeline.datasets.nwpu_captions import NwpuCaptions
from input_pipeline.datasets.rsicd import Rsicd
from input_pipeline.datasets.rsitmd import Rsitmd
from input_pipeline.datasets.synthetic import Synthetic
from input_pipeline.errors import DataError

__all__ = ["BUILDERS", "Prepared", "open_prepared", "prepare"]

# A new data set is one file with a builder and one line here.
BUILDERS: Mapping[str, Callable[..., CaptionedImages]] = {
    "synthetic": Synthetic,
    "rsicd": Rsicd,
    "rsitmd": Rsitmd,
    "nwpu_captions": NwpuCaptions,
}


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
      splits: split -> a sequence of dictionaries: `image` (the encoded file's bytes), `captions`
        (list of bytes), `filename` (bytes), `image_id` (int).
      folder: where it lies, `prepared_dir/NAME/FINGERPRINT`.
      fingerprint: of everything that it was made from.
    """

    splits: dict[str, Sequence[Mapping[str, Any]]]
    folder: Path
    fingerprint: str


def open_prepared(
    name: str, source_dir: str | Path | None, prepared_dir: str | Path, **options: Any
) -> Prepared:
    """Prepares a data set, unless that was done before from the same inputs, and opens it.

    Args:
      name: a key of `BUILDERS`.
      source_dir: the folder with the data set's files; None for 'synthetic'.
      prepared_dir: where prepared data lies, for all data sets.
      **options: the builder's own, see its class.

    Returns:
      The data and where it lies.

    Raises:
      DataError: the name or an option is unknown, or something is wrong with the files.
    """
    if name not in BUILDERS:
        raise DataError(f"There is no data set '{name}', only {', '.join(sorted(BUILDERS))}.")
    builder_class = BUILDERS[name]
    known = set(inspect.signature(builder_class).parameters) - {"source_dir", "prepared_dir"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise DataError(
            f"The data set '{name}' has no option '{unknown[0]}', only {', '.join(sorted(known))}."
        )
    if source_dir is None and name != "synthetic":
        raise DataError(f"The data set '{name}' needs a source folder.")
    builder = builder_class(
        source_dir=None if source_dir is None else Path(source_dir).expanduser(),
        prepared_dir=Path(prepared_dir).expanduser(),
        **options,
    )
    splits = prepare_builder(builder)
    folder = Path(prepared_dir).expanduser() / builder.name / builder.fingerprint
    return Prepared(splits, folder, builder.fingerprint)


def prepare(
    name: str, source_dir: str | Path | None, prepared_dir: str | Path, **options: Any
) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Like `open_prepared`, for the data alone: split -> sequence of dictionaries."""
    return open_prepared(name, source_dir, prepared_dir, **options).splits
