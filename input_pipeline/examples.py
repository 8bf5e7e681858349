"""A split as arrays, and everything from a prepared data set to the three splits.

Captions are tied to images by image id, never by position in a file; so are labels, unless the
release's way is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import concepts as knowledge
from input_pipeline import datasets
from input_pipeline.concepts import Concepts
from input_pipeline.decoding import Output, decode
from input_pipeline.errors import DataError
from input_pipeline.splitting import release_label_rows, split_rows
from input_pipeline.vocabulary import PADDING_ID, UNKNOWN, Vocabulary, tokenize

__all__ = ["Examples", "RetrievalData", "load_datasets", "split_rows"]


@dataclass(frozen=True)
class Examples:
    """One split: N images and M captions.

    Attributes:
      images: u8[N, size, size, 3], RGB, memory-mapped and read-only.
      image_ids: i64[N], unique over all splits.
      file_names: N names.
      captions: M texts.
      image_of_caption: i32[M], the caption's row in `images`.
      tokens: i32[M, T], 0 is padding.
      lengths: i32[M], number of tokens, at least 1.
      word_concepts: u8[M, C], 1 where the caption names the concept.
      image_concepts: f32[N, C], soft labels; zeros for validation and test images.
    """

    images: np.ndarray
    image_ids: np.ndarray
    file_names: list[str]
    captions: list[str]
    image_of_caption: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    word_concepts: np.ndarray
    image_concepts: np.ndarray


@dataclass(frozen=True)
class RetrievalData:
    """All splits of a data set and what the captions taught about it.

    Attributes:
      train: at `train_size` pixels, with soft labels.
      validation: at `image_size` pixels.
      test: at `image_size` pixels.
      vocabulary: of the text encoder.
      concepts: with the labels of the training images, or of the whole training file with
        `labels_by='position'`.
      fingerprint: of the prepared data set, see `datasets.base.fingerprint`.
    """

    train: Examples
    validation: Examples
    test: Examples
    vocabulary: Vocabulary
    concepts: Concepts
    fingerprint: str

    @property
    def num_concepts(self) -> int:
        """Returns the width of labels and word concepts."""
        return self.train.word_concepts.shape[1]


@dataclass(frozen=True)
class _Texts:
    """Everything of some images but their pixels."""

    image_ids: list[int]
    file_names: list[str]
    captions: list[list[str]]
    tokens: list[list[list[str]]]

    def of(self, rows: np.ndarray) -> _Texts:
        """Returns the images at these rows."""
        return _Texts(
            [self.image_ids[row] for row in rows],
            [self.file_names[row] for row in rows],
            [self.captions[row] for row in rows],
            [self.tokens[row] for row in rows],
        )

    def by_id(self) -> dict[int, list[str]]:
        """Returns image id -> captions."""
        return dict(zip(self.image_ids, self.captions, strict=True))

    def all_tokens(self) -> list[list[str]]:
        """Returns the tokens of each caption."""
        return [tokens for image in self.tokens for tokens in image]


def _read_texts(source: Sequence[Mapping[str, Any]]) -> _Texts:
    """Reads what is not pixels; a caption may have no token."""
    texts = _Texts([], [], [], [])
    for index in range(len(source)):
        record = source[index]
        captions = [caption.decode() for caption in record["captions"]]
        texts.image_ids.append(int(record["image_id"]))
        texts.file_names.append(record["filename"].decode())
        texts.captions.append(captions)
        texts.tokens.append([tokenize(caption) for caption in captions])
    return texts


def _examples(
    images: np.ndarray,
    texts: _Texts,
    vocabulary: Vocabulary,
    concepts: Concepts,
    width: int,
    label_ids: Sequence[int] | None,
) -> Examples:
    """Puts a split together; `label_ids` says whose labels its images get, None for zeros.

    Captions longer than `width` tokens are cut; one without a token becomes one unknown word.
    """
    all_tokens = texts.all_tokens()
    tokens = np.full((len(all_tokens), width), PADDING_ID, np.int32)
    word_concepts = np.zeros((len(all_tokens), len(concepts)), np.uint8)
    for row, words in enumerate(all_tokens):
        ids = vocabulary.encode_tokens(words or [UNKNOWN])[:width]
        tokens[row, : len(ids)] = ids
        word_concepts[row] = concepts.word_concepts(words[:width])
    num_images = len(texts.image_ids)
    unlabelled = np.zeros((num_images, len(concepts)), np.float32)
    return Examples(
        images=images,
        image_ids=np.array(texts.image_ids, np.int64),
        file_names=texts.file_names,
        captions=[caption for captions in texts.captions for caption in captions],
        image_of_caption=np.repeat(
            np.arange(num_images, dtype=np.int32), [len(captions) for captions in texts.captions]
        ),
        tokens=tokens,
        lengths=np.count_nonzero(tokens != PADDING_ID, axis=1).astype(np.int32),
        word_concepts=word_concepts,
        image_concepts=unlabelled if label_ids is None else concepts.labels_for(label_ids),
    )


def _with_concepts_padded(examples: Examples, width: int) -> Examples:
    """Adds concepts that nothing shows and no caption names, up to `width`."""
    missing = ((0, 0), (0, width - examples.word_concepts.shape[1]))
    return replace(
        examples,
        word_concepts=np.pad(examples.word_concepts, missing),
        image_concepts=np.pad(examples.image_concepts, missing),
    )


def _with_labels_of(texts: _Texts, words: list[str], min_repeats: int) -> Concepts:
    """Returns these concepts, wherever they were learnt, with labels of the texts' images."""
    labelled = knowledge.build(texts.by_id(), frozenset(words), len(words), min_repeats)
    # Other images may rank the words otherwise.
    columns = [labelled.words.index(word) for word in words]
    return Concepts(words, labelled.image_ids, labelled.labels[:, columns])


def load_datasets(
    name: str,
    source_dir: str | Path | None,
    prepared_dir: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    train_size: int = 278,
    image_size: int = 256,
    validation_fraction: float = 0.2,
    seed: int = 0,
    vocabulary_from: str = "train",
    labels_by: str = "image",
    min_count: int = 5,
    num_concepts: int = 512,
    pad_concepts: bool = False,
    min_repeats: int = 2,
    max_tokens: int = 0,
) -> RetrievalData:
    """Prepares a data set where needed and returns its three splits.

    Args:
      name: of the data set, a key of `datasets.BUILDERS`.
      source_dir: the folder with the data set's files; None for 'synthetic'.
      prepared_dir: where prepared data lies.
      options: the builder's own.
      train_size: pixels a side of training images, before they are cropped.
      image_size: pixels a side of validation and test images.
      validation_fraction: of the training images, for a data set without a validation split.
      seed: of that split; one a fold.
      vocabulary_from: 'train' learns words and concepts from the training images' captions alone.
        'train_and_test' is the release's way: words from the captions of the training file (the
        validation part included) and of the test split, concepts from the training file.
      labels_by: 'image' gives each training image its own labels. 'position' is the release's
        way: labels are looked up by position in the shuffled training part, so that nearly every
        image gets another one's, see `splitting.release_label_rows`. Nothing is shuffled where a
        validation split is published, and both are the same.
      min_count: words seen less often are unknown.
      num_concepts: the most concepts to keep.
      pad_concepts: whether labels and word concepts are `num_concepts` wide even where there are
        fewer, as the release's always are.
      min_repeats: how often an image's captions must repeat a word.
      max_tokens: captions are cut to this length; 0 keeps them whole.

    Returns:
      The data. Images are decoded at the first call and memory-mapped from then on.

    Raises:
      DataError: a value is not allowed, or something is wrong with the files.
    """
    if vocabulary_from not in ("train", "train_and_test"):
        raise DataError(
            f"'vocabulary_from' must be 'train' or 'train_and_test', not '{vocabulary_from}'."
        )
    if labels_by not in ("image", "position"):
        raise DataError(f"'labels_by' must be 'image' or 'position', not '{labels_by}'.")
    for field, value in (("train_size", train_size), ("image_size", image_size)):
        if value < 1:
            raise DataError(f"'{field}' must be positive, not {value}.")
    prepared = datasets.open_prepared(name, source_dir, prepared_dir, **(options or {}))
    parts = _place(prepared, validation_fraction, seed, train_size, image_size)
    file_texts = {split: _read_texts(source) for split, source in prepared.splits.items()}
    texts = {part: file_texts[split].of(output.rows) for part, (split, output) in parts.items()}

    release = vocabulary_from == "train_and_test"
    known = file_texts["train"] if release else texts["train"]
    counted = known.all_tokens() + (texts["test"].all_tokens() if release else [])
    vocabulary = Vocabulary.from_tokens(counted, min_count)
    concepts = knowledge.build(known.by_id(), vocabulary, num_concepts, min_repeats)
    label_ids = texts["train"].image_ids
    if labels_by == "position" and "validation" not in file_texts:
        file = file_texts["train"]
        rows = release_label_rows(len(file.image_ids), validation_fraction, seed)
        label_ids = file.of(rows).image_ids
        concepts = _with_labels_of(file, concepts.words, min_repeats)
    longest = max(len(tokens) or 1 for part in texts.values() for tokens in part.all_tokens())
    width = min(longest, max_tokens) if max_tokens > 0 else longest
    images = _decode_parts(prepared, parts)
    examples = {
        part: _examples(
            images[part],
            texts[part],
            vocabulary,
            concepts,
            width,
            label_ids if part == "train" else None,
        )
        for part in parts
    }
    if pad_concepts:
        examples = {n: _with_concepts_padded(e, num_concepts) for n, e in examples.items()}
    return RetrievalData(
        examples["train"],
        examples["validation"],
        examples["test"],
        vocabulary,
        concepts,
        prepared.fingerprint,
    )


def _place(
    prepared: datasets.Prepared, fraction: float, seed: int, train_size: int, image_size: int
) -> dict[str, tuple[str, Output]]:
    """Says for train, validation and test which split they come from and where pixels go."""
    sizes = {"train": train_size, "validation": image_size, "test": image_size}
    counts = {split: len(source) for split, source in prepared.splits.items()}

    def output(stem: str, rows: np.ndarray, size: int) -> Output:
        return Output(prepared.folder / f"{stem}_{size}px.npy", rows, size)

    parts = {
        split: (split, output(split, np.arange(count), sizes[split]))
        for split, count in counts.items()
    }
    if "validation" not in counts:
        rows = split_rows(counts["train"], fraction, seed)
        for part, chosen in zip(("train", "validation"), rows, strict=True):
            stem = f"{part}_fraction{fraction:g}_seed{seed}"
            parts[part] = ("train", output(stem, chosen, sizes[part]))
    return {part: parts[part] for part in sizes}


def _decode_parts(
    prepared: datasets.Prepared, parts: Mapping[str, tuple[str, Output]]
) -> dict[str, np.ndarray]:
    """Decodes each split of the data set in one pass, for all the parts made from it."""
    images: dict[str, np.ndarray] = {}
    for split, source in prepared.splits.items():
        outputs = {part: output for part, (origin, output) in parts.items() if origin == split}
        arrays = decode(source, list(outputs.values()), progress=f"decoding {split}")
        images.update(zip(outputs, arrays, strict=True))
    return images
