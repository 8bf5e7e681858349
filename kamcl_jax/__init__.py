"""KAMCL in JAX: knowledge-aided momentum contrastive learning for remote-sensing retrieval.

model = kamcl_jax.load("runs/demo")  # or ("RemoteCLIP-ViT-B-32.pt", preset="ViT-B-32-quickgelu")
images = model.encode_images(["harbour.tif", "airport.jpg"])
texts = model.encode_texts(["two planes are parked next to a terminal"])
model.similarity(images, texts)  # f32[2, 1], cosines
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kamcl_jax.errors import KamclError as KamclError
    from kamcl_jax.inference.model import TrainedModel
    from kamcl_jax.models.layers import l2_normalise as l2_normalise
    from kamcl_jax.models.towers import ConceptHead as ConceptHead
    from kamcl_jax.step.encoding import Encodings as Encodings


def load(
    path: str | Path, preset: str = "", vocabulary: str | Path = "", cleaning: str = "canonicalize"
) -> TrainedModel:
    """Opens a trained or published model; no data set is needed.

    Args:
      path: The folder of a run, whose best checkpoint is taken, or one that `--mode=export` has
        written. With a preset, the weights of a published CLIP or SigLIP, a file or a folder.
      preset: The published model that the weights are of, by its name in
        docs/published_models.md. It is never guessed, since weights do not tell it.
      vocabulary: The published model's tokeniser, a file or its folder; '' looks beside the
        weights and, for CLIP, in an installed open_clip_torch.
      cleaning: How captions are cleaned for a SigLIP: 'canonicalize' or 'lower'.

    Raises:
      ConfigError: The folder holds neither, or there is no such preset.
      CheckpointError: The checkpoint cannot be read.
      ExportError: The exported model cannot be read.
      PretrainedError: There are no such weights, or they are not of that preset.
      DataError: The vocabulary is not found, or not read.
    """
    # Imported here, so that importing a part of the package does not import all of it.
    from kamcl_jax.errors import ConfigError
    from kamcl_jax.export import model_folder
    from kamcl_jax.inference import model
    from kamcl_jax.runs.folder import holds_exported_model

    if preset:
        return model.open_published(path, preset, vocabulary, cleaning)
    if vocabulary or cleaning != "canonicalize":
        raise ConfigError("vocabulary and cleaning are those of a preset, which is missing")
    folder = Path(path)
    if folder.is_file():
        raise ConfigError(
            f"{folder} is a file: say which published model its weights are of, as in "
            'kamcl_jax.load(path, preset="ViT-B-32-quickgelu")'
        )
    return model_folder.read(folder) if holds_exported_model(folder) else model.open_trained(folder)


_ELSEWHERE = {
    "ConceptHead": "kamcl_jax.models.towers",
    "Encodings": "kamcl_jax.step.encoding",
    "KamclError": "kamcl_jax.errors",
    "l2_normalise": "kamcl_jax.models.layers",
}
"""What extensions import from here, wherever it lies; it is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE[name]), name)
