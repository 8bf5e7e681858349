"""From the files of a data set to the three splits of an experiment, through what is prepared.

Everything is made once and then opened: the arrays of the captions lie in a folder that is named
by all that decided them, the settings, the captions and the code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from input_pipeline import storage
from input_pipeline.images.decoded import DecodedImages, decode
from input_pipeline.language.concepts import Concepts
from input_pipeline.language.texts import SPLITS, Texts
from input_pipeline.language.tokenizer import Tokenizer
from input_pipeline.language.vocabulary import Vocabulary, word_form
from input_pipeline.language.word_tokenizer import WordTokenizer
from input_pipeline.splits import assembly
from input_pipeline.splits.examples import Examples, RetrievalData, SelectedRows, StoredTexts
from input_pipeline.splits.settings import DataSettings

if TYPE_CHECKING:  # with a data set comes tensorflow-datasets
    from input_pipeline.datasets import Prepared

_DECIDING_CODE = (
    "language/cleaning.py",
    "language/clip_tokenizer.py",
    "language/concepts.py",
    "language/siglip_tokenizer.py",
    "language/stop_words.txt",
    "language/texts.py",
    "language/tokenizer.py",
    "language/tokens.py",
    "language/vocabulary.py",
    "language/word_tokenizer.py",
    "splits/assembly.py",
    "splits/examples.py",
    "splits/loading.py",
    "splits/splitting.py",
)
"""The files that decide what is in the arrays of the captions: when one changes, so do they."""
TRAINING_CAPTIONS = "training_captions.sha256"
_ARRAYS = ("image_ids", "image_of_caption", "tokens", "lengths", "word_concepts", "image_concepts")


def load_prepared(
    prepared: Prepared,
    settings: DataSettings,
    read_threads: int = 1,
    tokenizer: Tokenizer | None = None,
    with_images: Collection[str] = SPLITS,
) -> RetrievalData:
    """Returns the three splits of an experiment.

    The first call decodes and tokenises; from then on files are opened.

    Args:
      prepared: The data set.
      settings: How its captions become splits, words and concepts.
      read_threads: How many threads share the images that are asked for at once.
      tokenizer: What the text encoder reads captions with; None learns words from the captions.
      with_images: The splits whose images will be read. Those of others are not decoded, and
        reading them raises an IndexError.
    """
    key = _key(prepared.fingerprint, settings, tokenizer)
    folder = prepared.folder / "examples" / key
    if not folder.is_dir():
        with storage.lock(folder.parent):
            if not folder.is_dir():  # another process may have been at it
                with storage.written_folder(folder) as unfinished:
                    _write_all_but_pixels(unfinished, prepared.texts(), settings, tokenizer)
    with storage.damage_named(folder):
        rows = {part: np.load(folder / part / "rows.npy") for part in SPLITS}
    decoded = _decoded(prepared, settings, {part: rows[part] for part in with_images})
    nothing = np.empty((0, settings.image_size, settings.image_size, 3), np.uint8)
    images = {
        part: SelectedRows(decoded.get(part, nothing), rows[part], read_threads) for part in SPLITS
    }
    with storage.damage_named(folder):
        words = json.loads((folder / "vocabulary.json").read_text("utf-8"))["words"]
        vocabulary = Vocabulary(words)
        concepts = json.loads((folder / "concepts.json").read_text("utf-8"))
        how = (settings.min_repeats, word_form(settings.lemmatize), settings.label_scale)
        return RetrievalData(
            **{part: _open(folder / part, images[part]) for part in SPLITS},
            vocabulary=vocabulary,
            tokenizer=tokenizer or WordTokenizer(vocabulary, settings.max_tokens),
            concepts=Concepts(concepts["words"], concepts["totals"], *how),
            training_captions=(folder / TRAINING_CAPTIONS).read_text(),
            fingerprint=prepared.fingerprint,
            left_out={image.file_name: image.reason for image in prepared.left_out},
        )


def _key(fingerprint: str, settings: DataSettings, tokenizer: Tokenizer | None) -> str:
    """Names the arrays of the captions by everything that decides them; pixels do not."""
    chosen = dataclasses.asdict(settings)
    del chosen["train_size"], chosen["image_size"], chosen["fitting"]
    reading = tokenizer.identity if tokenizer else "words of the captions"
    decided = json.dumps([fingerprint, _code_version(), chosen, reading], sort_keys=True)
    return hashlib.sha256(decided.encode()).hexdigest()[:16]


@cache
def _code_version() -> str:
    here = Path(__file__).parents[1]
    code = b"".join((here / name).read_bytes() for name in _DECIDING_CODE)
    return hashlib.sha256(code).hexdigest()


def _write_all_but_pixels(
    folder: Path,
    splits: Mapping[str, Texts],
    settings: DataSettings,
    tokenizer: Tokenizer | None,
) -> None:
    placement = assembly.place(splits, settings)
    parts = placement.parts
    vocabulary, concepts = assembly.learn(placement, settings)
    (folder / "vocabulary.json").write_text(vocabulary.to_json(), "utf-8")
    known = {"words": concepts.words, "totals": concepts.totals}
    (folder / "concepts.json").write_text(json.dumps(known, ensure_ascii=False), "utf-8")
    pairs = [parts["train"].file_names, parts["train"].all_captions]
    digest = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    (folder / TRAINING_CAPTIONS).write_text(digest)

    tokenizer = tokenizer or WordTokenizer(vocabulary, settings.max_tokens)
    # All at once, so that the captions of all splits have one number of columns.
    counts = [len(part.all_captions) for part in parts.values()]
    encoded = tokenizer.encode([text for part in parts.values() for text in part.all_captions])
    tokens, lengths = (np.split(array, np.cumsum(counts)[:-1]) for array in encoded)
    width = settings.num_concepts if settings.pad_concepts else len(concepts)
    for number, (split, part) in enumerate(parts.items()):
        rows = placement.rows[split]
        # Only training labels may be another image's: those held out are to measure by.
        labelled = placement.texts.of(placement.label_rows) if split == "train" else part
        image_concepts = np.zeros((len(rows), width), np.float32)
        image_concepts[:, : len(concepts)] = concepts.image_labels(labelled.captions)
        arrays = {
            "rows": rows,
            "image_ids": np.array(part.image_ids, np.int64),
            "image_concepts": image_concepts,
            "image_of_caption": part.image_of_caption,
            "tokens": tokens[number],
            "lengths": lengths[number],
            "word_concepts": assembly.word_concepts(part, concepts, settings.max_tokens, width),
        }
        (folder / split).mkdir()
        for name, array in arrays.items():
            np.save(folder / split / f"{name}.npy", array)
        StoredTexts.write(folder / split / "captions.txt", part.all_captions)
        StoredTexts.write(folder / split / "file_names.txt", part.file_names)


def _open(folder: Path, images: SelectedRows) -> Examples:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return Examples(
        images=images,
        file_names=StoredTexts(folder / "file_names.txt"),
        captions=StoredTexts(folder / "captions.txt"),
        **arrays,
    )


def _decoded(
    prepared: Prepared, settings: DataSettings, rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns for each of the parts in `rows` the array that has its images, decoded if need be."""
    sizes = {part: settings.train_size if part == "train" else settings.image_size for part in rows}
    arrays = {}
    for size in dict.fromkeys(sizes.values()):
        wanted = np.concatenate([rows[part] for part in rows if sizes[part] == size])
        images = DecodedImages(
            prepared.folder / "images", size, prepared.num_images, settings.fitting
        )
        arrays[size] = decode(images, wanted, prepared.encoded_image, f"resizing to {size} px")
    return {part: arrays[size] for part, size in sizes.items()}
