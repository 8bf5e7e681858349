"""What a part of the check works on, and where its numbers go as soon as they are there."""

import dataclasses
import json
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_collections

from configs import rsicd, synthetic
from input_pipeline import storage

FAILED, LEFT_OUT = "failed", "left_out"
"""What a result has instead of numbers: a traceback, or the reason."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
      batches: The batch sizes of the training step; the first one is that of all other parts.
      values: [B, D, N], features by maps, of what the kernels rank.
      states: [G, N, H], GRUs by steps by their width, for the kernel of the pooling's GRU.
      words: [T, B, H], words by captions by the width of the words' GRU.
      maps: [B, S, S, C], what is normalised over all axes but the last.
      trial_seconds: How long the steps of one trial take together.
      trials: How often steps are timed.
      input_steps: How many steps are timed with their input.
      traced_steps: How many steps are traced.
      indexed: How many images are indexed.
      seeds: The most seeds that race, if there is time for them.
      highest: Whether the step is also timed at float32's highest precision.
      whole_golden: Whether the golden file's training steps are computed, not its evaluation alone.
    """

    batches: tuple[int, ...] = (100, 400)
    values: tuple[int, int, int] = (100, 4096, 192)
    states: tuple[int, int, int] = (8, 68, 32)
    words: tuple[int, int, int] = (34, 100, 2400)
    maps: tuple[int, int, int, int] = (100, 64, 64, 64)
    trial_seconds: float = 0.3
    trials: int = 7
    input_steps: int = 60
    traced_steps: int = 10
    indexed: int = 2000
    seeds: int = 10
    highest: bool = True
    whole_golden: bool = True


TOY = Sizes(
    batches=(2,),
    values=(2, 3, 70),
    states=(2, 5, 4),
    words=(4, 2, 3),
    maps=(2, 3, 3, 2),
    trial_seconds=0.0,
    trials=1,
    input_steps=3,
    traced_steps=2,
    indexed=10,
    seeds=1,
    highest=False,
    whole_golden=False,
)
"""The sizes of a rehearsal: all that is left out is compiling the same step once more."""


@dataclasses.dataclass
class Task:
    """One part's config, files and time, and the numbers that it has so far.

    Attributes:
      config: The config of our program.
      sizes: How much is measured.
      work: A folder for what is needed on the way; all parts share it.
      saved: The file that the numbers are written to.
      checkout: The clone of the PyTorch original; None leaves the original out.
      golden: The golden file.
      ends: When the part must be through, by `time.monotonic`.
      results: Name of a measurement -> its numbers.
    """

    config: ml_collections.ConfigDict
    sizes: Sizes
    work: Path
    saved: Path
    checkout: Path | None
    golden: Path
    ends: float
    results: dict[str, Any] = dataclasses.field(default_factory=dict)

    def left(self) -> float:
        """Returns how many seconds are left."""
        return self.ends - time.monotonic()

    def save(self) -> None:
        """Writes down what is there, in place of what was written before."""
        storage.write_text(self.saved, json.dumps(self.results, indent=2) + "\n")

    def attempt(self, name: str, measure: Callable[[], Any]) -> Any:
        """Measures and writes down; where that fails, the traceback stands for the numbers.

        Returns:
          What `measure` returned; None where it failed or no time was left for it.
        """
        if self.left() <= 0:
            self.leave_out(name, "no time was left for it")
            return None
        print(f"{name} ...", flush=True)
        found = None
        try:
            found = measure()
            self.results[name] = found
        except Exception:  # whatever it is, the GPU is here now and other numbers are wanted
            self.results[name] = {FAILED: traceback.format_exc()}
            print(self.results[name][FAILED], flush=True)
        self.save()
        return found

    def leave_out(self, name: str, reason: str) -> None:
        """Writes down why there are no numbers of this name."""
        self.results[name] = {LEFT_OUT: reason}
        self.save()


def with_data(
    config: ml_collections.ConfigDict, folder: Path | None, work: Path
) -> ml_collections.ConfigDict:
    """Returns a config for one GPU, and for RSICD in this folder where there is one.

    The splits are the publisher's, and there are as many concepts as the original's layers need.
    """
    config = config.copy_and_resolve_references()
    config.mesh.data, config.mesh.fsdp = 1, 1
    config.data.pad_concepts = True
    if folder is not None:
        config.data.name, config.data.dir = "rsicd", str(folder)
        config.data.prepared_dir = str(work / "prepared")
        config.data.validation = "published"
    return config


def toy_config(work: Path, *, with_original: bool) -> ml_collections.ConfigDict:
    """Returns the config of a rehearsal: a very narrow model of ours on a few drawn scenes.

    The original's sizes are fixed. Beside it, ours takes images and labels of those sizes.
    """
    config = synthetic.get_config()
    config.update_from_flattened_dict(
        {
            "num_epochs": 1,
            "batch_size": TOY.batches[0],
            "image_size": 256 if with_original else 64,
            "embedding_size": 16,
            "num_concepts": 512 if with_original else 12,
            "queue_length": 16,
            "image_encoder.width": 4,
            "text_encoder.word_width": 6,
            "text_encoder.hidden_width": 10,
            "evaluation.batch_size": 6,
            "data.min_word_count": 1,
            "data.dir": str(work / "scenes"),
        }
    )
    config.data.options.update({"train": 2, "validation": 2, "test": 2, "size": 48})
    return with_data(config, None, work)


def golden_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the release's config, with the kernels that a config asks for."""
    release = rsicd.get_config("release")
    release.image_encoder.pooling_kernel = config.image_encoder.pooling_kernel
    return release


def changed(config: ml_collections.ConfigDict, **fields: Any) -> ml_collections.ConfigDict:
    """Returns a copy of a config with other fields; a double underscore stands for a dot."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({n.replace("__", "."): v for n, v in fields.items()})
    return config


def numbers_of(results: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Returns those of some measurements that have numbers."""
    found = {name: results.get(name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if value is not None and not (isinstance(value, dict) and {FAILED, LEFT_OUT} & value.keys())
    }
