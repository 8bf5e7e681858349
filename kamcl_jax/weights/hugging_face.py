"""Where the tensors of CLIP and SigLIP in Hugging Face's transformers lie in ours."""

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.clip.presets import (
    ModifiedResNetSizes,
    Preset,
    TransformerSizes,
    VisionTransformerSizes,
)
from kamcl_jax.weights.clip_layout import IMAGE, TEXT, linear_part, repeated
from kamcl_jax.weights.torch_layout import (
    Layout,
    Place,
    below,
    convolution,
    layer_norm,
    linear,
    named,
)

TOLERATED: tuple[str, ...] = (
    "vision_model.embeddings.position_ids",
    "text_model.embeddings.position_ids",
)
"""What old files have besides, and what no computation needs."""


def hugging_face_layout(preset: Preset) -> Layout:
    """Returns the layout of the `model.safetensors` of a preset.

    Raises:
      PretrainedError: The preset has a ResNet, which transformers does not.
    """
    if isinstance(preset.image, ModifiedResNetSizes):
        raise PretrainedError("Hugging Face's transformers has no CLIP with a ResNet")
    siglip = preset.family == "siglip"
    layout: Layout = {
        "logit_scale": Place(("params", "logit_scale"), shape=(1,) if siglip else None),
        **named("vision_model", below(IMAGE, _image_tower(preset.image, siglip=siglip))),
        **named("text_model", below(TEXT, _text_tower(preset))),
    }
    if preset.has_bias:
        layout["logit_bias"] = Place(("params", "logit_bias"), shape=(1,))
    if siglip:
        return layout
    layout |= named("visual_projection", below(IMAGE, linear("projection", bias=False)))
    return layout | named("text_projection", below(TEXT, linear("projection", bias=False)))


def _image_tower(sizes: VisionTransformerSizes, *, siglip: bool) -> Layout:
    layout: Layout = {
        **named("embeddings.patch_embedding", convolution("patches", bias=siglip)),
        "embeddings.position_embedding.weight": Place(("params", "positions")),
        **named("encoder.layers", _blocks(sizes)),
        **named("post_layernorm", layer_norm("norm")),
    }
    if not siglip:
        layout["embeddings.class_embedding"] = Place(("params", "class_embedding"))
        return layout | named("pre_layrnorm", layer_norm("norm_before"))
    pooling: Layout = {
        "probe": Place(("params", "query")),
        "attention.in_proj_weight": Place(("params", "pooling_attention", "qkv", "kernel"), (1, 0)),
        "attention.in_proj_bias": Place(("params", "pooling_attention", "qkv", "bias")),
        **named("attention.out_proj", linear("pooling_attention", "out")),
        **named("layernorm", layer_norm("pooling_norm")),
        **named("mlp.fc1", linear("pooling_mlp", "up")),
        **named("mlp.fc2", linear("pooling_mlp", "down")),
    }
    return layout | named("head", pooling)


def _text_tower(preset: Preset) -> Layout:
    layout: Layout = {
        "embeddings.token_embedding.weight": Place(("params", "tokens", "embedding")),
        "embeddings.position_embedding.weight": Place(("params", "positions")),
        **named("encoder.layers", _blocks(preset.text)),
        **named("final_layer_norm", layer_norm("norm")),
    }
    return layout | (named("head", linear("projection")) if preset.family == "siglip" else {})


def _blocks(sizes: TransformerSizes) -> Layout:
    block = {
        **named("layer_norm1", layer_norm("attention_norm")),
        **named("self_attn.out_proj", linear("attention", "out")),
        **named("layer_norm2", layer_norm("mlp_norm")),
        **named("mlp.fc1", linear("mlp", "up")),
        **named("mlp.fc2", linear("mlp", "down")),
    }
    for third, letter in enumerate("qkv"):
        part = linear_part("attention", "qkv", width=sizes.width, first=third, last=third + 1)
        block |= named(f"self_attn.{letter}_proj", part)
    return repeated(sizes.layers, block)
