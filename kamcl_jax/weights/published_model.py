"""A published CLIP or SigLIP from its file or folder, whichever names its tensors have."""

import json
from pathlib import Path
from typing import Any

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.clip.presets import PRESETS, Preset, preset
from kamcl_jax.models.clip.towers import abstract_variables
from kamcl_jax.weights import hugging_face, open_clip, siglip, tensor_files
from kamcl_jax.weights.torch_layout import Tree, from_torch

HUGGING_FACE = "model.safetensors"
"""The file in a folder of Hugging Face's, beside its config.json."""

_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh"}


def read_published(path: str | Path, name: str) -> Tree:
    """Reads the variables of a published model, f32 NumPy arrays.

    Args:
      path: An open_clip checkpoint (`.pt` or `.safetensors`), a folder of Hugging Face's with
        `model.safetensors` and `config.json`, or a `.npz` file of big_vision's.
      name: The preset that the weights are of. No file of open_clip's tells its activation, so
        that it is never guessed.

    Returns:
      The variables of `towers.dual_encoder(preset(name))`.

    Raises:
      ConfigError: There is no such preset.
      PretrainedError: The file does not hold such a model.
      FileNotFoundError: There is no such file.
    """
    model, path = preset(name), Path(path).expanduser()
    like = abstract_variables(model)
    if path.is_dir():
        for file in ("config.json", HUGGING_FACE):
            if not (path / file).is_file():
                raise PretrainedError(
                    f"{path} has no {file}; a folder of Hugging Face's has a config.json, and "
                    f"beside it all weights in one file, {HUGGING_FACE}"
                )
        path = path / HUGGING_FACE
    if path.suffix == siglip.SUFFIX:
        return from_torch(
            siglip.read_big_vision(path), siglip.big_vision_layout(model), like, str(path)
        )
    tensors = tensor_files.read(path).tensors
    if any(tensor.startswith("vision_model.") for tensor in tensors):
        if path.with_name("config.json").is_file():
            _check_config(path.with_name("config.json"), name, model)
        layout, tolerated = hugging_face.hugging_face_layout(model), hugging_face.TOLERATED
    else:
        layout, tolerated = open_clip.open_clip_layout(model), open_clip.TOLERATED
    needed = {tensor: array for tensor, array in tensors.items() if tensor not in tolerated}
    return from_torch(needed, layout, like, str(path))


def _check_config(file: Path, name: str, model: Preset) -> None:
    """Checks that the config beside Hugging Face's weights has the preset's activations."""
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise PretrainedError(f"{file} is no JSON: {error}") from None
    towers = ("vision_config", "text_config")
    if not isinstance(config, dict) or not all(
        isinstance(config.get(tower, {}), dict) for tower in towers
    ):
        raise PretrainedError(f"{file} is no config of such a model")
    for tower in towers:
        stored = _activation(config, tower, model.family)
        if stored == model.activation:
            continue
        fitting = [
            other
            for other, its in PRESETS.items()
            if its.activation == stored and its.image == model.image and its.text == model.text
        ]
        instead = f"; the preset is {' or '.join(fitting)}" if fitting else ""
        raise PretrainedError(
            f"{file} says that {tower} has the activation {stored}, and the preset {name} has "
            f"{model.activation}{instead}"
        )


def _activation(config: dict[str, Any], tower: str, family: str) -> str:
    """Returns what a config says, which leaves out what transformers takes by default."""
    default = "quick_gelu" if family == "clip" else "gelu_pytorch_tanh"
    stored = config.get(tower, {}).get("hidden_act", default)
    return _ACTIVATIONS.get(stored, stored)
