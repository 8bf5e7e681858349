"""The embedded data set: drawn aerial scenes with captions, nothing to download."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from input_pipeline import synthetic_scenes
from input_pipeline.datasets.base import CaptionedImage, CaptionedImages
from input_pipeline.errors import DataError
from input_pipeline.synthetic_scenes import MAX_SIZE, MIN_SIZE


def _drawing_code() -> Iterator[bytes]:
    """Yields the source of all that draws: another drawing makes another data set."""
    module = Path(synthetic_scenes.__file__)
    for path in (module, *sorted((module.parent / "scenes").glob("*.py"))):
        yield path.read_bytes()


class Synthetic(CaptionedImages):
    """Draws scenes with `input_pipeline.synthetic_scenes` and keeps them as PNG files.

    Args:
      prepared_dir: where prepared data lies.
      source_dir: not used; every data set takes one.
      train: number of training images.
      validation: number of validation images.
      test: number of test images.
      size: pixels a side.
      seed: of the drawing; another seed gives other scenes.

    Raises:
      DataError: a count, the size or the seed is out of range.
    """

    def __init__(
        self,
        *,
        prepared_dir: Path,
        source_dir: Path | None = None,
        train: int = 1000,
        validation: int = 200,
        test: int = 200,
        size: int = 128,
        seed: int = 0,
    ) -> None:
        del source_dir
        self._counts = {"train": train, "validation": validation, "test": test}
        for name, value in {**self._counts, "size": size}.items():
            if value < 1:
                raise DataError(f"The synthetic data set's '{name}' must be positive, not {value}.")
        if not MIN_SIZE <= size <= MAX_SIZE or seed < 0:
            raise DataError(
                f"The synthetic data set's 'size' must be {MIN_SIZE} to {MAX_SIZE} and its 'seed' "
                f"not negative, not {size} and {seed}."
            )
        self._size = size
        self._seed = seed
        options = {**self._counts, "size": size, "seed": seed}
        super().__init__(prepared_dir, options, _drawing_code())

    def splits(self) -> list[str]:
        """Returns the names of the splits."""
        return list(self._counts)

    def _first_index(self, split: str) -> int:
        """Returns where a split's scenes start: even, as twins are the scenes 2k and 2k + 1."""
        first = 0
        for name, count in self._counts.items():
            if name == split:
                break
            first += count + count % 2
        return first

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Draws the scenes of a split; the image id is the scene's index."""
        first = self._first_index(split)
        for index in range(first, first + self._counts[split]):
            scene = synthetic_scenes.draw(self._seed, index, self._size)
            encoded = io.BytesIO()
            Image.fromarray(scene.image).save(encoded, format="PNG")
            name = f"{scene.kind}_{index:06d}.png"
            yield CaptionedImage(encoded.getvalue(), name, index, scene.captions)
