"""The data set `synthetic`: drawn aerial scenes with captions, nothing to download."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from PIL import Image

from input_pipeline.datasets.base import CaptionedImage, DatasetBuilder
from input_pipeline.datasets.synthetic.scenes import captions_of_scene, draw, facts_of_scene
from input_pipeline.errors import DataError
from input_pipeline.language.texts import Texts


@dataclass(frozen=True)
class SceneSplits:
    """The options: how many images each split has, their side in pixels, and a seed to draw by."""

    train: int = 1000
    validation: int = 200
    test: int = 200
    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {"train": 1, "validation": 1, "test": 1, "size": 32, "seed": 0}
        for name, least in limits.items():
            value = getattr(self, name)
            if value < least or (name == "size" and value > 512):
                bound = f"at least {least}" if value < least else "at most 512"
                raise DataError(f"The synthetic data set's '{name}' must be {bound}, not {value}.")

    @property
    def counts(self) -> dict[str, int]:
        """Split -> number of images."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def files(self, split: str) -> Iterator[tuple[int, str]]:
        """Yields the index and the file name of each scene of a split."""
        counts = list(self.counts.values())[: list(self.counts).index(split)]
        # Splits start even, because twins are the scenes 2k and 2k + 1.
        first = sum(count + count % 2 for count in counts)
        for index in range(first, first + self.counts[split]):
            yield index, f"{facts_of_scene(self.seed, index).kind}_{index:06d}.png"


class Synthetic(DatasetBuilder):
    """Draws scenes and keeps them as PNG files; its options are those of `SceneSplits`."""

    def __init__(
        self, *, prepared_dir: Path, source_dir: Path | None = None, **options: int
    ) -> None:
        del source_dir  # every data set takes one
        self._scenes = SceneSplits(**options)
        super().__init__(prepared_dir, vars(self._scenes), _drawing_code())

    @classmethod
    def option_names(cls) -> set[str]:
        """Returns the fields of `SceneSplits`."""
        return {field.name for field in fields(SceneSplits)}

    @classmethod
    def read_texts(cls, source_dir: Path | None, **options: int) -> dict[str, Texts]:
        """Words the captions without drawing the scenes, see the base class."""
        del source_dir
        scenes = SceneSplits(**options)
        splits = {split: Texts([], [], []) for split in scenes.counts}
        for split, texts in splits.items():
            for index, name in scenes.files(split):
                texts.append(index, name, captions_of_scene(scenes.seed, index))
        return splits

    def sources(self) -> list[str]:
        """Says which scenes are drawn."""
        return [f"drawn scenes of seed {self._scenes.seed}, {self._scenes.size} pixels"]

    def sizes(self) -> dict[str, int]:
        """Returns split -> number of images."""
        return self._scenes.counts

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Draws the scenes of a split; the image id is the scene's index."""
        for index, name in self._scenes.files(split):
            scene = draw(self._scenes.seed, index, self._scenes.size)
            encoded = io.BytesIO()
            Image.fromarray(scene.image).save(encoded, format="PNG")
            yield CaptionedImage(encoded.getvalue(), name, index, list(scene.captions))


def _drawing_code() -> Iterator[bytes]:
    """Yields the source of all that draws: another drawing makes another data set."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path != Path(__file__):
            yield path.read_bytes()
