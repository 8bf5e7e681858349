"""Times a published model's encoders beside open_clip's, in turn, and compares what they compute.

python examples/encoding_speed.py --preset=ViT-B-32-quickgelu --batch_size=16

It needs open_clip_torch (`pip install open_clip_torch`) and no weights: open_clip draws random
ones, which this program reads. Both get pixels in memory and sentences, and give unit vectors in
float32. open_clip runs as its own documentation calls it; it pads every sentence to 77 tokens,
while this program pads to a multiple of 16.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# PyTorch's threads would go on spinning while it is our turn.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import jax
import numpy as np
from safetensors.numpy import save_file

import kamcl_jax
from kamcl_jax.benchmark import trials
from kamcl_jax.benchmark.trials import Action, Budget
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.models.clip.presets import preset

SENTENCES = [
    "many planes are parked next to a long building in an airport .",
    "some green trees are around a pond",
]


class OpenClip:
    """open_clip's model of a preset, with random weights.

    Attributes:
      weights: Its tensors by their names.
    """

    def __init__(self, name: str):
        """Makes the model; open_clip's name of a SigLIP stands for the exact GELU, our `-gelu`."""
        import open_clip
        import torch

        torch.manual_seed(0)
        self._torch, theirs = torch, name.removesuffix("-gelu")
        self._model = open_clip.create_model(theirs).eval()
        self._tokenizer = open_clip.get_tokenizer(theirs)
        sizes = preset(name)
        self._mean, self._std = torch.tensor(sizes.mean), torch.tensor(sizes.std)
        self.weights = {k: v.numpy() for k, v in self._model.state_dict().items()}

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """Encodes u8[B, S, S, 3] -> f32[B, E]."""
        with self._torch.no_grad():
            scaled = (self._torch.from_numpy(pixels).float() / 255 - self._mean) / self._std
            return self._model.encode_image(scaled.permute(0, 3, 1, 2), normalize=True).numpy()

    def encode_texts(self, sentences: Sequence[str]) -> np.ndarray:
        """Encodes B sentences -> f32[B, E]."""
        with self._torch.no_grad():
            return self._model.encode_text(self._tokenizer(list(sentences)), normalize=True).numpy()


def load_ours(name: str, weights: dict[str, np.ndarray], vocabulary: str) -> TrainedModel:
    """Reads the same weights with this program, through a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_file({k: np.asarray(v, order="C") for k, v in weights.items()}, file)
        return kamcl_jax.load(file, preset=name, vocabulary=vocabulary)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of what both encode in a second, and how far apart their results are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="ViT-B-32-quickgelu")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="time for images, and for texts"
    )
    parser.add_argument("--vocabulary", default="", help="a SigLIP's, which open_clip downloads")
    flags = parser.parse_args(arguments)

    theirs = OpenClip(flags.preset)
    ours = load_ours(flags.preset, theirs.weights, flags.vocabulary)
    side, count = preset(flags.preset).image_size, flags.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    sentences = (SENTENCES * count)[:count]
    pairs = {
        "images": (
            lambda: ours.encode_images(pixels, count),
            lambda: theirs.encode_images(pixels),
        ),
        "sentences": (
            lambda: ours.encode_texts(sentences, count),
            lambda: theirs.encode_texts(sentences),
        ),
    }
    rows = []
    for what, (mine, other) in pairs.items():
        actions: dict[str, Action] = {"ours": mine, "open_clip": other}
        timings = trials.alternate(actions, Budget(seconds=flags.seconds))
        rates = [count / timings[name].median for name in actions]
        differ = np.abs(mine() - other()).max()
        rows.append(
            [
                what,
                *(f"{rate:.1f}" for rate in rates),
                f"{rates[0] / rates[1]:.2f}",
                f"{differ:.0e}",
            ]
        )
    device = jax.devices()[0].device_kind
    print(f"{flags.preset}, batch {count}, float32, on {device}; rates a second\n")
    head = ["", "ours", "open_clip", "ratio", "largest difference"]
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main()
