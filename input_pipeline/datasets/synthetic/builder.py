"""The embedded data set: drawn aerial scenes with captions, nothing to download."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image

from input_pipeline.datasets.base import CaptionedImage, CaptionedImages
from input_pipeline.datasets.synthetic import scenes as synthetic_scenes
from input_pipeline.datasets.synthetic.scenes import MAX_SIZE, MIN_SIZE, Scene
from input_pipeline.errors import DataError
from input_pipeline.language.texts import Texts


def _drawing_code() -> Iterator[bytes]:
    """Yields the source of all that draws: another drawing makes another data set."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path != Path(__file__):
            yield path.read_bytes()


@dataclass(frozen=True)
class SceneSplits:
    """Which scenes are drawn for which split.

    Attributes:
      train: number of training images.
      validation: number of validation images.
      test: number of test images.
      size: pixels a side.
      seed: of the drawing; another seed gives other scenes.

    Raises:
      DataError: a count, the size or the seed is out of range.
    """

    train: int = 1000
    validation: int = 200
    test: int = 200
    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test", "size"):
            value = getattr(self, name)
            if value < 1:
                raise DataError(f"The synthetic data set's '{name}' must be positive, not {value}.")
        if not MIN_SIZE <= self.size <= MAX_SIZE or self.seed < 0:
            raise DataError(
                f"The synthetic data set's 'size' must be {MIN_SIZE} to {MAX_SIZE} and its 'seed' "
                f"not negative, not {self.size} and {self.seed}."
            )

    @property
    def counts(self) -> dict[str, int]:
        """Split -> number of images."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def indices(self, split: str) -> range:
        """Returns a split's scenes; they start even, as twins are the scenes 2k and 2k + 1."""
        first = 0
        for name, count in self.counts.items():
            if name == split:
                break
            first += count + count % 2
        return range(first, first + self.counts[split])

    def draw(self, split: str) -> Iterator[tuple[int, str, Scene]]:
        """Yields the index, the file name and the scene, for each of a split."""
        for index in self.indices(split):
            scene = synthetic_scenes.draw(self.seed, index, self.size)
            yield index, f"{scene.kind}_{index:06d}.png", scene


class Synthetic(CaptionedImages):
    """Draws scenes with `input_pipeline.datasets.synthetic.scenes` and keeps them as PNG files."""

    def __init__(
        self, *, prepared_dir: Path, source_dir: Path | None = None, **options: int
    ) -> None:
        """Takes the numbers of `SceneSplits`.

        Args:
          prepared_dir: where prepared data lies.
          source_dir: not used; every data set takes one.
          **options: of `SceneSplits`.

        Raises:
          DataError: a count, the size or the seed is out of range.
        """
        del source_dir
        self._scenes = SceneSplits(**options)
        super().__init__(prepared_dir, vars(self._scenes), _drawing_code())

    @classmethod
    def option_names(cls) -> set[str]:
        """Returns the fields of `SceneSplits`."""
        return {field.name for field in fields(SceneSplits)}

    @classmethod
    def read_texts(cls, source_dir: Path | None, **options: Any) -> dict[str, Texts]:
        """Draws the scenes for the sake of their captions, see the base class."""
        del source_dir
        scenes = SceneSplits(**options)
        splits = {}
        for split in scenes.counts:
            texts = splits[split] = Texts([], [], [])
            for index, name, scene in scenes.draw(split):
                texts.append(index, name, scene.captions)
        return splits

    def sources(self) -> list[str]:
        """Says which scenes are drawn."""
        return [f"drawn scenes of seed {self._scenes.seed}, {self._scenes.size} pixels"]

    def splits(self) -> list[str]:
        """Returns the names of the splits."""
        return list(self._scenes.counts)

    def num_images(self, split: str) -> int:
        """Returns the number of a split's images."""
        return self._scenes.counts[split]

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Draws the scenes of a split; the image id is the scene's index."""
        for index, name, scene in self._scenes.draw(split):
            encoded = io.BytesIO()
            Image.fromarray(scene.image).save(encoded, format="PNG")
            yield CaptionedImage(encoded.getvalue(), name, index, list(scene.captions))
