"""What a config says of its data: where they lie, and what the captions are to teach."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import ml_collections

from input_pipeline.errors import DataError
from input_pipeline.splits.settings import DataSettings
from kamcl_jax.config import encoders
from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel import hosts

if TYPE_CHECKING:
    from input_pipeline.datasets import Prepared

RESIZE_TO_CROP = 278 / 256
"""Side of the training images before the crop, in crops, as published."""

MOST_THREADS = 16
"""Where a config leaves the number of reading threads open; a few saturate a host's memory."""


def train_size(config: ml_collections.ConfigDict) -> int:
    """Returns the side of the training images before the crop, in pixels."""
    return config.augmentation.resize or round(config.image_size * RESIZE_TO_CROP)


def prepared_dir(config: ml_collections.ConfigDict) -> Path:
    """Returns where the config's prepared data lies."""
    data = config.data
    return Path(os.path.expanduser(data.prepared_dir or f"{data.dir}/prepared"))


def read_threads(config: ml_collections.ConfigDict) -> int:
    """Returns how many threads read the images of a batch, each its share of them."""
    return config.data.read_threads or min(MOST_THREADS, os.cpu_count() or 1)


def open_data(config: ml_collections.ConfigDict) -> Prepared:
    """Prepares the config's data set, or opens it, and compares its splits with the published ones.

    Raises:
      DataError: something is wrong with the files, or the splits are not the published ones and
        the config requires them.
    """
    # Imported here, since tensorflow-datasets comes with it.
    from input_pipeline.datasets import open_prepared
    from input_pipeline.datasets.published import size_mismatches

    data = config.data
    prepared = open_prepared(
        data.name, data.dir, prepared_dir(config), bad_images=data.bad_images, **data.options
    )
    mismatches = size_mismatches(prepared.builder.OFFICIAL_SIZES, prepared.sizes)
    if mismatches:
        sentence = f"'{data.name}' is not the published data set: {'; '.join(mismatches)}."
        if data.split_sizes == "require":
            raise DataError(sentence)
        hosts.warn(sentence)
    return prepared


def settings(config: ml_collections.ConfigDict) -> DataSettings:
    """Returns how words, concepts and splits come from the captions.

    Raises:
      ConfigError: the file of stop words can't be read.
    """
    data, concepts = config.data, config.concepts
    return DataSettings(
        train_size=train_size(config),
        image_size=config.image_size,
        fitting=encoders.fitting(config),
        validation=data.validation,
        validation_fraction=data.validation_fraction,
        seed=config.seed,
        fold=config.fold,
        vocabulary_from=data.vocabulary_from,
        labels_by=data.labels_by,
        min_count=data.min_word_count,
        num_concepts=config.num_concepts,
        pad_concepts=data.pad_concepts,
        min_repeats=concepts.min_repeats,
        label_scale=concepts.label_scale,
        stop_words=stop_words(concepts.stop_words),
        lemmatize=concepts.lemmatize,
        max_tokens=data.max_tokens,
    )


def stop_words(choice: str) -> tuple[str, ...] | None:
    """Returns the words that a config's `concepts.stop_words` keeps from being concepts.

    Args:
      choice: 'english', 'none', or a file with a word a line.

    Returns:
      The words; None for the English ones.

    Raises:
      ConfigError: there is no such file, or it is not text.
    """
    if choice in ("english", "none"):
        return None if choice == "english" else ()
    try:
        return tuple(Path(os.path.expanduser(choice)).read_text("utf-8-sig").lower().split())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"config.concepts.stop_words is {choice!r}; it must be 'english', 'none' or a file "
            f"with a word a line: {reason}"
        ) from None
