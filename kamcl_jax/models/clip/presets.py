"""The published models: what they are made of, and what their images and texts have to be.

Sources: the configurations of OpenAI's CLIP (Radford et al. 2021), of open_clip and of big_vision's
SigLIP (Zhai et al. 2023).
"""

import dataclasses

from kamcl_jax.errors import ConfigError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class TransformerSizes:
    """A stack of transformer blocks.

    Attributes:
      width: The features of each token.
      layers: The number of blocks.
      heads: The attention heads of each block, which divide the width.
      mlp_width: The hidden features of each block's MLP.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int


@dataclasses.dataclass(frozen=True)
class VisionTransformerSizes(TransformerSizes):
    """A vision transformer; `patch` is the side of its patches in pixels."""

    patch: int


@dataclasses.dataclass(frozen=True)
class ModifiedResNetSizes:
    """CLIP's ResNet.

    Attributes:
      blocks: The bottlenecks of each of the four stages.
      width: The channels of the first stage, before its bottlenecks expand them.
      heads: The heads of the attention that pools the last stage.
    """

    blocks: tuple[int, int, int, int]
    width: int
    heads: int


@dataclasses.dataclass(frozen=True)
class TextSizes(TransformerSizes):
    """A text transformer.

    Attributes:
      vocabulary: The rows of the token embedding.
      context: The tokens of the longest text.
    """

    vocabulary: int
    context: int


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model.

    Attributes:
      family: 'clip' has a class token, a causal text transformer and a projection of both; 'siglip'
        pools patches by attention and reads texts without a mask.
      embedding_size: The width of both embeddings.
      image: The image tower.
      text: The text tower.
      activation: That of the MLPs, one of `transformer.ACTIVATIONS`. No file of weights tells it.
      image_size: The side of the images in pixels.
      mean: What is taken away from the red, green and blue of a pixel in [0, 1].
      std: What these are divided by then.
      resize: 'shortest' brings the shorter side to the image size and cuts out the centre,
        'squash' brings both sides to it.
    """

    family: str
    embedding_size: int
    image: VisionTransformerSizes | ModifiedResNetSizes
    text: TextSizes
    activation: str
    image_size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    resize: str = "shortest"

    @property
    def has_bias(self) -> bool:
        """Whether it was trained with a bias of the logits, which its files hold."""
        return self.family == "siglip"


def _transformer(kind, width: int, layers: int, heads: int, **others: int):
    """Makes sizes whose MLPs are four times as wide as the stack, unless told otherwise."""
    return kind(
        **{"width": width, "layers": layers, "heads": heads, "mlp_width": 4 * width} | others
    )


def _clip(image, embedding_size: int, text_width: int, text_layers: int = 12, **others) -> Preset:
    text = _transformer(
        TextSizes, text_width, text_layers, text_width // 64, vocabulary=49408, context=77
    )
    return Preset("clip", embedding_size, image, text, "gelu", **others)


def _siglip(
    sizes: tuple[int, int, int], patch: int, image_size: int, context: int = 64, **others: int
) -> Preset:
    text = _transformer(TextSizes, *sizes, vocabulary=32000, context=context, **others)
    image = _transformer(VisionTransformerSizes, *sizes, patch=patch, **others)
    half = (0.5, 0.5, 0.5)
    return Preset("siglip", sizes[0], image, text, "gelu_tanh", image_size, half, half, "squash")


def _vit(*sizes: int, patch: int) -> VisionTransformerSizes:
    return _transformer(VisionTransformerSizes, *sizes, patch=patch)


_CLIP = {
    "RN50": _clip(ModifiedResNetSizes((3, 4, 6, 3), 64, 32), 1024, 512),
    "ViT-B-32": _clip(_vit(768, 12, 12, patch=32), 512, 512),
    "ViT-B-16": _clip(_vit(768, 12, 12, patch=16), 512, 512),
    "ViT-L-14": _clip(_vit(1024, 24, 16, patch=14), 768, 768),
    "ViT-L-14-336": _clip(_vit(1024, 24, 16, patch=14), 768, 768, image_size=336),
    "ViT-H-14": _clip(_vit(1280, 32, 16, patch=14), 1024, 1024, 24),
}

_SIGLIP = {
    "ViT-B-16-SigLIP": _siglip((768, 12, 12), 16, 224),
    "ViT-B-16-SigLIP-256": _siglip((768, 12, 12), 16, 256),
    "ViT-SO400M-14-SigLIP": _siglip((1152, 27, 16), 14, 224, 16, mlp_width=4304),
    "ViT-SO400M-14-SigLIP-384": _siglip((1152, 27, 16), 14, 384, mlp_width=4304),
}


def _with(models: dict[str, Preset], suffix: str, activation: str) -> dict[str, Preset]:
    return {
        f"{name}-{suffix}": dataclasses.replace(model, activation=activation)
        for name, model in models.items()
    }


PRESETS = {
    **_CLIP,
    **_with(_CLIP, "quickgelu", "quick_gelu"),
    **_SIGLIP,
    **_with(_SIGLIP, "gelu", "gelu"),
}
"""Name -> model, under open_clip's names.

OpenAI's weights, and what was fine-tuned from them as they are, have QuickGELU; what LAION trained
has GELU. SigLIP was trained with GELU's approximation by tanh, which Hugging Face's transformers
takes too, and so does `ViT-B-16-SigLIP` here. open_clip's model of that name computes the exact
GELU, as `ViT-B-16-SigLIP-gelu` does here.
"""


_IN_WORDS = {
    "gelu": "the exact GELU",
    "gelu_tanh": "GELU's approximation by tanh",
    "quick_gelu": "QuickGELU",
}


def described(name: str) -> str:
    """Returns a preset's name and its activation, which no file of weights tells."""
    return f"{name}, with {_IN_WORDS[preset(name).activation]}"


def preset(name: str) -> Preset:
    """Returns a published model.

    Raises:
      ConfigError: There is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
