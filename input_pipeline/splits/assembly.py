"""From the captions of a data set to the arrays of its three splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.language.concepts import Concepts, find_concepts
from input_pipeline.language.texts import SPLITS, Texts
from input_pipeline.language.vocabulary import Vocabulary, word_form
from input_pipeline.language.word_tokenizer import cut
from input_pipeline.splits.settings import DataSettings
from input_pipeline.splits.splitting import release_label_rows, shuffled_rows


@dataclass(frozen=True)
class Placement:
    """Which images are in which split, as rows of the whole data set.

    Attributes:
      texts: The texts of the whole data set.
      rows: Train, validation, test -> i64[n], ascending by image id.
      label_rows: i64[n_train], whose labels each training image gets: its own, but for the
        release's way.
      outside_test: i64[m], all images that are not in the test split.
    """

    texts: Texts
    rows: dict[str, np.ndarray]
    label_rows: np.ndarray
    outside_test: np.ndarray

    @cached_property
    def parts(self) -> dict[str, Texts]:
        """Train, validation, test -> its texts."""
        return {split: self.texts.of(rows) for split, rows in self.rows.items()}


def place(splits: Mapping[str, Texts], settings: DataSettings) -> Placement:
    """Says which images are trained on, validated and tested with.

    Args:
      splits: The published splits, 'train' and 'test' and perhaps 'validation'; the rows of the
        whole data set go through them in this order.
      settings: They say how the validation split is made.
    """
    texts = Texts.joined(splits.values())
    starts = np.cumsum([0, *(len(texts) for texts in splits.values())])
    published = {
        split: np.arange(first, last)
        for split, first, last in zip(splits, starts[:-1], starts[1:], strict=True)
    }
    if settings.validation == "published" and "validation" not in published:
        raise DataError(
            "The files of this data set have no validation split: set 'validation' to 'random'."
        )
    outside = np.concatenate([rows for split, rows in published.items() if split != "test"])
    outside = outside[np.argsort(texts.of(outside).image_ids, kind="stable")]
    if "validation" in published and settings.validation != "random":
        rows = {split: published[split] for split in SPLITS}
        return Placement(texts, rows, rows["train"], outside)
    draw = (len(outside), settings.validation_fraction, settings.seed, settings.fold)
    shuffled = shuffled_rows(*draw)
    train, validation = map(np.sort, shuffled)
    givers = release_label_rows(shuffled[0]) if settings.labels_by == "position" else train
    rows = {"train": outside[train], "validation": outside[validation], "test": published["test"]}
    return Placement(texts, rows, outside[givers], outside)


def learn(placement: Placement, settings: DataSettings) -> tuple[Vocabulary, Concepts]:
    """Learns words and concepts from the captions; the settings say what counts as one."""
    known, counted = placement.parts["train"], placement.parts["train"].tokens
    if settings.vocabulary_from == "train_and_test":
        known = placement.texts.of(placement.outside_test)
        counted = known.tokens + placement.parts["test"].tokens
    vocabulary = Vocabulary.from_tokens(counted, settings.min_count)
    candidates = vocabulary.words
    if settings.stop_words is not None:
        counts = Counter(token for tokens in counted for token in tokens)
        refused = frozenset(settings.stop_words)
        candidates = [
            word for word, n in counts.items() if n >= settings.min_count and word not in refused
        ]
    form = word_form(settings.lemmatize)
    concepts = find_concepts(
        known.captions,
        candidates,
        settings.num_concepts,
        settings.min_repeats,
        form,
        settings.label_scale,
    )
    return vocabulary, concepts


def word_concepts(texts: Texts, concepts: Concepts, max_tokens: int, width: int) -> np.ndarray:
    """Says which concepts each of M captions names -> u8[M, width].

    Args:
      texts: The texts of the captions.
      concepts: The concepts.
      max_tokens: How many words of a caption are read; 0 reads them all. What is not read names no
        concept.
      width: The columns, at least as many as there are concepts.
    """
    named = np.zeros((len(texts.tokens), width), np.uint8)
    for row, words in enumerate(texts.tokens):
        named[row, concepts.columns_of(cut(words, max_tokens))] = 1
    return named
