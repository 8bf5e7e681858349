"""Where the tensors of open_clip's models lie in ours: CLIP, and SigLIP with timm's image tower."""

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
    StateDict,
    Tree,
    batch_norm,
    below,
    convolution,
    layer_norm,
    linear,
    named,
    to_torch,
)

TOLERATED: tuple[str, ...] = ("attn_mask", "input_resolution", "context_length", "vocab_size")
"""What some files have besides, and what no computation needs."""


def open_clip_layout(preset: Preset) -> Layout:
    """Returns the layout of open_clip's state_dict of a preset."""
    layout: Layout = {"logit_scale": Place(("params", "logit_scale"))}
    if preset.has_bias:
        layout["logit_bias"] = Place(("params", "logit_bias"))
    if isinstance(preset.image, VisionTransformerSizes) and preset.family == "siglip":
        layout |= named("visual.trunk", below(IMAGE, _timm_tower(preset.image_size, preset.image)))
        layout |= named("text", below(TEXT, _text_tower(preset)))
        return layout
    if isinstance(preset.image, ModifiedResNetSizes):
        tower = _resnet(preset.image)
    else:
        tower = _vision_transformer(preset.image)
    layout |= named("visual", below(IMAGE, tower))
    return layout | below(TEXT, _text_tower(preset))


def open_clip_tensors(preset: Preset, variables: Tree) -> StateDict:
    """Returns the tensors of open_clip's state_dict; what it has no place for is left out.

    Args:
      preset: The published model.
      variables: Those of `towers.dual_encoder(preset)`, perhaps with concept heads besides.
    """
    return to_torch(variables, open_clip_layout(preset))


def _text_tower(preset: Preset) -> Layout:
    layout: Layout = {
        "token_embedding.weight": Place(("params", "tokens", "embedding")),
        "positional_embedding": Place(("params", "positions")),
        **named("transformer.resblocks", _blocks(preset.text)),
        **named("ln_final", layer_norm("norm")),
    }
    if preset.family == "siglip":
        return layout | named("text_projection", linear("projection"))
    return layout | {"text_projection": Place(("params", "projection", "kernel"))}


def _vision_transformer(sizes: VisionTransformerSizes) -> Layout:
    return {
        **named("conv1", convolution("patches")),
        "class_embedding": Place(("params", "class_embedding")),
        "positional_embedding": Place(("params", "positions")),
        **named("ln_pre", layer_norm("norm_before")),
        **named("transformer.resblocks", _blocks(sizes)),
        **named("ln_post", layer_norm("norm")),
        "proj": Place(("params", "projection", "kernel")),
    }


def _blocks(sizes: TransformerSizes) -> Layout:
    """Returns the layout of open_clip's own blocks."""
    block = {
        **named("ln_1", layer_norm("attention_norm")),
        "attn.in_proj_weight": Place(("params", "attention", "qkv", "kernel"), (1, 0)),
        "attn.in_proj_bias": Place(("params", "attention", "qkv", "bias")),
        **named("attn.out_proj", linear("attention", "out")),
        **named("ln_2", layer_norm("mlp_norm")),
        **named("mlp.c_fc", linear("mlp", "up")),
        **named("mlp.c_proj", linear("mlp", "down")),
    }
    return repeated(sizes.layers, block)


def _timm_tower(image_size: int, sizes: VisionTransformerSizes) -> Layout:
    count = (image_size // sizes.patch) ** 2
    layout: Layout = {
        "pos_embed": Place(("params", "positions"), shape=(1, count, sizes.width)),
        **named("patch_embed.proj", convolution("patches", bias=True)),
    }
    block = {
        **named("norm1", layer_norm("attention_norm")),
        **named("attn.qkv", linear("attention", "qkv")),
        **named("attn.proj", linear("attention", "out")),
        **named("norm2", layer_norm("mlp_norm")),
        **named("mlp.fc1", linear("mlp", "up")),
        **named("mlp.fc2", linear("mlp", "down")),
    }
    layout |= named("blocks", repeated(sizes.layers, block))
    projections = ("pooling_attention", "qkv")
    pooling = {
        "latent": Place(("params", "query")),
        **named("q", linear_part(*projections, width=sizes.width, first=0, last=1)),
        **named("kv", linear_part(*projections, width=sizes.width, first=1, last=3)),
        **named("proj", linear("pooling_attention", "out")),
        **named("norm", layer_norm("pooling_norm")),
        **named("mlp.fc1", linear("pooling_mlp", "up")),
        **named("mlp.fc2", linear("pooling_mlp", "down")),
    }
    return layout | named("norm", layer_norm("norm")) | named("attn_pool", pooling)


def _resnet(sizes: ModifiedResNetSizes) -> Layout:
    layout = _three_convolutions()
    for stage, blocks in enumerate(sizes.blocks, start=1):
        for index in range(blocks):
            block = below((f"layer{stage}_{index}",), _bottleneck(shortcut=index == 0))
            layout |= named(f"layer{stage}.{index}", block)
    width = 32 * sizes.width
    pooling: Layout = {"positional_embedding": Place(("params", "positions"))}
    for number, letter in enumerate("qkv"):
        part = linear_part("attention", "qkv", width=width, first=number, last=number + 1)
        pooling |= named(f"{letter}_proj", part)
    pooling |= named("c_proj", linear("attention", "out"))
    return layout | named("attnpool", below(("pooling",), pooling))


def _bottleneck(*, shortcut: bool) -> Layout:
    layout = _three_convolutions()
    if shortcut:
        layout |= named("downsample.0", convolution("shortcut_conv"))
        layout |= named("downsample.1", batch_norm("shortcut_bn"))
    return layout


def _three_convolutions() -> Layout:
    """Returns the layout of three convolutions with a normalisation each."""
    layout: Layout = {}
    for number in (1, 2, 3):
        layout |= named(f"conv{number}", convolution(f"conv{number}"))
        layout |= named(f"bn{number}", batch_norm(f"bn{number}"))
    return layout
