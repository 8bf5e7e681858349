"""The choices that turn a prepared data set into the three splits of an experiment."""

from __future__ import annotations

from dataclasses import dataclass

from input_pipeline.images.fitting import AS_RELEASE, Fitting


@dataclass(frozen=True)
class DataSettings:
    """How words, concepts and splits come from the captions, and how large images are.

    Attributes:
      train_size: The side of training images in pixels, before they are cropped.
      image_size: The side of validation and test images in pixels.
      fitting: How images of any size become squares.
      validation: 'published' takes the publisher's validation split. 'random' is the paper's
        protocol and draws one from all images outside of the test split, the published
        validation images included. 'auto' is the former where there is such a split.
      validation_fraction: The share of those images in a random split.
      seed: The seed of a random split.
      fold: The number of a random split: same seed, other images.
      vocabulary_from: 'train' learns words and concepts from the training images' captions alone.
        'train_and_test' is the release's way: words from the captions of all splits, concepts
        from those outside of the test split.
      labels_by: 'image' gives each training image its own labels. 'position' is the release's
        way: labels are looked up by position in the shuffled training part, so that nearly every
        image gets another one's, see `splitting.release_label_rows`. Nothing is shuffled where a
        published validation split is used, and both are the same.
      min_count: Words seen less often are unknown, and no concepts.
      num_concepts: The most concepts to keep.
      pad_concepts: Whether labels and word concepts are `num_concepts` wide even where there are
        fewer, as the release's always are.
      min_repeats: How often an image's captions must repeat a word for it to be a concept there.
      label_scale: What a concept's count is divided by to be an image's soft label, see
        `Concepts.label_scale`.
      stop_words: Words that are no concepts; None for the English stop words, which the
        vocabulary leaves out in any case.
      lemmatize: Whether the forms of a word are one concept, see `vocabulary.word_form`.
      max_tokens: How many words of a caption are read, to embed it and as concepts; 0 reads all.
    """

    train_size: int = 278
    image_size: int = 256
    fitting: Fitting = AS_RELEASE
    validation: str = "auto"
    validation_fraction: float = 0.2
    seed: int = 0
    fold: int = 0
    vocabulary_from: str = "train"
    labels_by: str = "image"
    min_count: int = 5
    num_concepts: int = 512
    pad_concepts: bool = False
    min_repeats: int = 2
    label_scale: str = "largest"
    stop_words: tuple[str, ...] | None = None
    lemmatize: bool = False
    max_tokens: int = 0
