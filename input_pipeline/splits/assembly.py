"""From the captions of a data set to the arrays of its three splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.language.concepts import Concepts, find_concepts
from input_pipeline.language.texts import SPLITS, Texts
from input_pipeline.language.vocabulary import PADDING_ID, UNKNOWN, Vocabulary, word_form
from input_pipeline.splits.settings import DataSettings
from input_pipeline.splits.splitting import release_label_rows, split_rows


@dataclass(frozen=True)
class Placement:
    """Which images are in which split, as rows of the whole data set.

    Attributes:
      rows: Train, validation, test -> i64[n], ascending by image id.
      label_rows: i64[n_train], whose labels each training image gets: its own, but for the
        release's way.
      outside_test: i64[m], all images that are not in the test split.
    """

    rows: dict[str, np.ndarray]
    label_rows: np.ndarray
    outside_test: np.ndarray

    def parts(self, texts: Texts) -> dict[str, Texts]:
        """Returns the texts of each split, out of those of the whole data set."""
        return {split: texts.of(rows) for split, rows in self.rows.items()}


def place(splits: Mapping[str, Texts], settings: DataSettings) -> Placement:
    """Says which images are trained on, validated and tested with.

    Args:
      splits: The published splits, 'train' and 'test' and perhaps 'validation'; the rows of the
        whole data set go through them in this order.
      settings: They say how the validation split is made.

    Raises:
      DataError: There is no published validation split where one is asked for, or no image for
        one of the parts.
    """
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
    ids = [i for split, texts in splits.items() if split != "test" for i in texts.image_ids]
    outside = outside[np.argsort(ids, kind="stable")]
    if "validation" in published and settings.validation != "random":
        return Placement({part: published[part] for part in SPLITS}, published["train"], outside)
    draw = (len(outside), settings.validation_fraction, settings.seed, settings.fold)
    train, validation = split_rows(*draw)
    givers = release_label_rows(*draw) if settings.labels_by == "position" else train
    rows = {"train": outside[train], "validation": outside[validation], "test": published["test"]}
    return Placement(rows, outside[givers], outside)


def learn(
    parts: Mapping[str, Texts], outside_test: Texts, settings: DataSettings
) -> tuple[Vocabulary, Concepts]:
    """Learns words and concepts from the captions.

    Args:
      parts: Train, validation, test -> its texts.
      outside_test: All texts that are not in the test split, in the order of the files.
      settings: They say what counts as a word and as a concept.
    """
    release = settings.vocabulary_from == "train_and_test"
    known = outside_test if release else parts["train"]
    counted = known.tokens + (parts["test"].tokens if release else [])
    vocabulary = Vocabulary.from_tokens(counted, settings.min_count)
    candidates = vocabulary.words
    if settings.stop_words is not None:
        counts = Counter(token for tokens in counted for token in tokens)
        refused = frozenset(settings.stop_words)
        candidates = [
            word for word, n in counts.items() if n >= settings.min_count and word not in refused
        ]
    concepts = find_concepts(
        known.captions,
        candidates,
        settings.num_concepts,
        settings.min_repeats,
        word_form(settings.lemmatize),
    )
    return vocabulary, concepts


def caption_arrays(
    texts: Texts,
    vocabulary: Vocabulary,
    concepts: Concepts,
    *,
    max_tokens: int,
    length: int,
    width: int,
) -> dict[str, np.ndarray]:
    """Turns captions into numbers, for the training and for a trained model alike.

    A caption is cut first, so that what is cut off names no concept, and padded afterwards: the
    number of columns has no say in what is read of a caption. One without a token becomes one
    unknown word.

    Args:
      texts: The texts of N images with M captions.
      vocabulary: The words that have token ids.
      concepts: The concepts that captions may name.
      max_tokens: Longer captions are cut to this length; 0 keeps them whole.
      length: The columns of the tokens, at least as many as `longest_caption` says.
      width: The columns of the word concepts, at least as many as there are concepts.

    Returns:
      `image_of_caption`, `tokens`, `lengths` and `word_concepts` as `Examples` has them, with
      M rows and `length` or `width` columns.
    """
    num_captions = len(texts.tokens)
    tokens = np.full((num_captions, length), PADDING_ID, np.int32)
    word_concepts = np.zeros((num_captions, width), np.uint8)
    for row, words in enumerate(texts.tokens):
        read = cut(words, max_tokens)
        ids = vocabulary.encode(read or [UNKNOWN])
        tokens[row, : len(ids)] = ids
        word_concepts[row, concepts.columns_of(read)] = 1
    return {
        "image_of_caption": texts.image_of_caption,
        "tokens": tokens,
        "lengths": np.count_nonzero(tokens != PADDING_ID, axis=1).astype(np.int32),
        "word_concepts": word_concepts,
    }


def longest_caption(parts: Iterable[Texts], max_tokens: int) -> int:
    """Returns how many tokens the longest caption has, `max_tokens` at most unless that is 0."""
    return max(len(cut(words, max_tokens)) or 1 for texts in parts for words in texts.tokens)


def cut(words: Sequence[str], max_tokens: int) -> Sequence[str]:
    """Returns the first `max_tokens` words of a caption, or all if that is 0."""
    return words[:max_tokens] if max_tokens else words
