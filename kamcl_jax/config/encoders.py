"""The encoders that a config describes: the paper's, a published model's, or your own.

What a published model expects of images and captions comes with it. docs/extending.md says what
encoders of your own have to be; they are tried on the shapes of a batch before anything is prepared
or compiled. What cannot be used raises a `ConfigError` in one sentence.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn
from jax.typing import DTypeLike

from input_pipeline.images.fitting import AS_RELEASE, Fitting
from input_pipeline.language import vocabulary_files
from input_pipeline.language.clip_tokenizer import ClipTokenizer, open_byte_pairs
from input_pipeline.language.siglip_tokenizer import SiglipTokenizer, open_pieces
from input_pipeline.language.tokenizer import Tokenizer
from kamcl_jax.config.fields import FIELDS, default_config, flatten
from kamcl_jax.config.plugins import first_line, import_named
from kamcl_jax.errors import ConfigError, PretrainedError
from kamcl_jax.models.clip import towers
from kamcl_jax.models.clip.presets import Preset, VisionTransformerSizes, preset
from kamcl_jax.models.towers import DualEncoder, ImageEncoder, TextEncoder
from kamcl_jax.parallel.mesh import runs_triton
from kamcl_jax.step.augmentation import IMAGENET, Normalisation
from kamcl_jax.step.encoding import cast_floats

TOWERS = ("image_encoder", "text_encoder")

_COLLECTIONS = frozenset({"params", "batch_stats"})  # of variables that the train state keeps

# Tower -> what only the package's own encoder can do: these fields keep their defaults for others.
_OWN: dict[str, tuple[str, ...]] = {
    "image_encoder": (
        *("image_encoder.pretrained", "image_encoder.rematerialise"),
        "momentum_coverage",
    ),
    "text_encoder": ("text_encoder.pretrained", "caption_padding", "momentum_coverage"),
}

# What a published model decides by itself: these fields keep their defaults beside it.
_DECIDED_BY_PRESET = (
    *(f"{tower}.{field}" for tower in TOWERS for field in ("module", "pretrained")),
    *("caption_padding", "momentum_coverage", "data.max_tokens"),
)
# What means nothing without a published model: these fields keep their defaults then.
_ONLY_WITH_PRESET = (
    *("encoders.pretrained", "encoders.vocabulary", "encoders.cleaning"),
    *("encoders.attention", "encoders.hybrid"),
    *("finetuning.trains", "finetuning.layer_decay", "finetuning.new_rate"),
)

_BATCH, _TOKENS = 2, 3  # the abstract inputs that another encoder is tried on


def published(config: ml_collections.ConfigDict) -> Preset | None:
    """Returns the published model whose encoders a config has; None for encoders of other kinds.

    Raises:
      ConfigError: There is no preset of that name.
    """
    return preset(config.encoders.preset) if config.encoders.preset else None


def config_of_published(
    path: str | Path, name: str, vocabulary: str | Path = "", cleaning: str = "canonicalize"
) -> ml_collections.ConfigDict:
    """Returns the config of a published model as it is; the arguments are `open_published`'s.

    Raises:
      ConfigError: There is no preset of that name, or its captions are not cleaned so.
      PretrainedError: There are no weights there.
    """
    model, config = preset(name), default_config()
    if not Path(path).expanduser().exists():
        raise PretrainedError(f"there are no weights at {path}")
    config.update_from_flattened_dict(
        {
            "encoders.preset": name,
            "encoders.pretrained": str(path),
            "encoders.vocabulary": str(vocabulary),
            "encoders.cleaning": cleaning,
            "encoders.hybrid": False,
            "image_size": model.image_size,
            "embedding_size": model.embedding_size,
            "data.name": "",
        }
    )
    _check_preset(config, flatten(config))
    return config


def with_published_encoders(
    config: ml_collections.ConfigDict, source: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """Returns a config whose encoders are those of a published model as it is.

    Args:
      config: It says all else.
      source: From `config_of_published`.
    """
    config = config.copy_and_resolve_references()
    # A crop of another size would mean nothing to the preset's.
    reset = (*_DECIDED_BY_PRESET, *_ONLY_WITH_PRESET, "augmentation.resize")
    changes = {name: FIELDS[name].default for name in reset}
    for tower in TOWERS:
        config[tower].options = ml_collections.ConfigDict()
    taken = ["image_size", "embedding_size", "dtype"]
    taken += [f"encoders.{name}" for name in source.encoders]
    leaves = flatten(source)
    config.update_from_flattened_dict(changes | {name: leaves[name] for name in taken})
    return config


def fitting(config: ml_collections.ConfigDict) -> Fitting:
    """Returns how images of any size become squares for the encoders."""
    model = published(config)
    return Fitting(model.resize, "bicubic") if model else AS_RELEASE


def normalisation(config: ml_collections.ConfigDict) -> Normalisation:
    """Returns what is made of the pixels' values for the encoders."""
    model = published(config)
    return Normalisation(model.mean, model.std) if model else IMAGENET


def tokenizer(config: ml_collections.ConfigDict, written: Path | None = None) -> Tokenizer | None:
    """Opens the tokeniser of a published model; None for encoders that learn words from captions.

    Args:
      config: The config.
      written: A folder that `Tokenizer.write` has written, which takes the place of the files that
        the config names.

    Raises:
      DataError: Its vocabulary is not found, or not read.
      ConfigError: The vocabulary is not as large as that of the text encoder.
    """
    model, files = published(config), config.encoders
    if model is None:
        return None
    named = Path(files.vocabulary).expanduser() if files.vocabulary else None
    places = (Path(files.pretrained).expanduser() if files.pretrained else None, written or named)
    if model.family == "siglip":
        file = vocabulary_files.find_siglip_vocabulary(*places)
        pieces = open_pieces(file)
        _check_size(file, pieces.size, files.preset, model)
        return SiglipTokenizer(pieces, model.text.context, files.cleaning)
    file = vocabulary_files.find_clip_vocabulary(*places)
    pairs = open_byte_pairs(file)
    _check_size(file, pairs.end_id + 1, files.preset, model)
    return ClipTokenizer(pairs, model.text.context)


def _check_size(file: Path, size: int, name: str, model: Preset) -> None:
    if size != model.text.vocabulary:
        raise ConfigError(
            f"the vocabulary '{file}' has {size} tokens, and the text encoder of the preset "
            f"{name} reads {model.text.vocabulary}"
        )


def make_model(
    config: ml_collections.ConfigDict,
    num_tokens: int,
    num_concepts: int,
    device: Any = None,
) -> DualEncoder:
    """Returns both towers: a published model's, the paper's, or those that the config names.

    Args:
      config: The config, checked.
      num_tokens: The rows of the word embedding, the padding included.
      num_concepts: The concepts that the data set really has.
      device: One that it will run on; None stands for the first that JAX finds here.
    """
    model = published(config)
    if model is not None:
        return towers.dual_encoder(
            model,
            num_concepts,
            concepts="gated" if config.encoders.hybrid else "beside",
            with_bias=config.loss.sigmoid_weight > 0,
            rematerialise=config.image_encoder.rematerialise,
            implementation=config.encoders.attention,
        )
    kernel = config.image_encoder.pooling_kernel
    if kernel == "auto":
        kernel = "pallas" if runs_triton(device or jax.devices()[0]) else "counting"
    sizes = {"num_concepts": num_concepts, "embedding_size": config.embedding_size}
    image, text = config.image_encoder, config.text_encoder
    return DualEncoder(
        _encoder(
            config,
            "image_encoder",
            ImageEncoder,
            sizes,
            depth=image.depth,
            width=image.width,
            rematerialise=image.rematerialise,
            pooling_kernel=kernel,
        ),
        _encoder(
            config,
            "text_encoder",
            TextEncoder,
            {"num_tokens": num_tokens, **sizes},
            word_width=text.word_width,
            hidden_width=text.hidden_width,
            dropout=text.dropout,
            caption_padding=config.caption_padding,
            pooling_kernel=kernel,
        ),
        initial_temperature=config.temperature if config.learn_temperature else None,
        initial_bias=towers.INITIAL_BIAS if config.loss.sigmoid_weight else None,
    )


def _encoder(
    config: ml_collections.ConfigDict,
    tower: str,
    own: type[nn.Module],
    sizes: dict[str, int],
    **options: Any,
) -> nn.Module:
    """Returns the encoder that the config names for a tower, else the package's own."""
    if config[tower].module:
        return _make_other(config, tower, sizes)
    return own(**sizes, **options)


def _make_other(config: ml_collections.ConfigDict, tower: str, sizes: dict[str, int]) -> nn.Module:
    field, path = f"config.{tower}.module", config[tower].module
    constructor = import_named(path, field)
    try:
        module = constructor(**sizes, **config[tower].options.to_dict())
    except Exception as error:  # it is the user's
        raise ConfigError(
            f"{field} is {path!r}, which cannot be made with {', '.join(sizes)} and "
            f"config.{tower}.options: {first_line(error)}"
        ) from None
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{field} is {path!r}, which makes an object of type {type(module).__name__}, no Flax "
            "Linen module"
        )
    return module


def check_encoders(config: ml_collections.ConfigDict, dtype: DTypeLike | None) -> None:
    """Checks the fields of both towers, and tries encoders of your own on a batch's shapes.

    Args:
      config: The config.
      dtype: The type that weights and inputs will be cast to; None leaves them.
    """
    leaves = flatten(config)
    _check_preset(config, leaves)
    for tower in TOWERS:
        _check_tower(config, tower, leaves)
    if not any(config[tower].module for tower in TOWERS):
        return
    # Fewer than the embedding is wide, so that outputs that are swapped are found.
    num_concepts = max(1, min(config.num_concepts, config.embedding_size - 1))
    model, side = make_model(config, _TOKENS + 1, num_concepts), config.image_size
    images = jax.ShapeDtypeStruct((_BATCH, side, side, 3), jnp.float32)
    texts = (
        jax.ShapeDtypeStruct((_BATCH, _TOKENS), jnp.int32),
        jax.ShapeDtypeStruct((_BATCH,), jnp.int32),
        jax.ShapeDtypeStruct((_BATCH, num_concepts), jnp.float32),
    )
    calls = {"image_encoder": (model.image, (images,)), "text_encoder": (model.text, texts)}
    for tower, (module, inputs) in calls.items():
        if config[tower].module:
            named = f"config.{tower}.module is {config[tower].module!r}, which"
            _try_encoder(named, module, inputs, (config.embedding_size, num_concepts), dtype)


def _check_preset(config: ml_collections.ConfigDict, leaves: Mapping[str, Any]) -> None:
    model, name = published(config), config.encoders.preset
    if model is None:
        for field in _ONLY_WITH_PRESET:
            if leaves[field] != FIELDS[field].default:
                raise ConfigError(
                    f"config.{field}={leaves[field]!r} is for a published model, which "
                    "config.encoders.preset names"
                )
        return
    if (
        model.family != "siglip"
        and leaves["encoders.cleaning"] != FIELDS["encoders.cleaning"].default
    ):
        raise ConfigError(
            f"config.encoders.cleaning={leaves['encoders.cleaning']!r} is for a SigLIP, and "
            f"config.encoders.preset={name!r} is none: its captions are cleaned in one way alone"
        )
    for field in _DECIDED_BY_PRESET:
        without = FIELDS[field].default
        if leaves[field] != without:
            raise ConfigError(
                f"config.{field}={leaves[field]!r} is for other encoders than those of "
                f"config.encoders.preset={name!r}; with them it must be {without!r}"
            )
    for field in ("image_size", "embedding_size"):
        if leaves[field] != getattr(model, field):
            raise ConfigError(
                f"config.{field} is {leaves[field]}; the model of config.encoders.preset={name!r} "
                f"has {getattr(model, field)}"
            )

    fine_tunes = config.finetuning.trains != "all" or config.finetuning.layer_decay != 1
    if fine_tunes and not isinstance(model.image, VisionTransformerSizes):
        raise ConfigError(
            f"config.encoders.preset={name!r} has an image tower without blocks, which can only be "
            "trained as a whole: config.finetuning.trains='all' and layer_decay=1"
        )


def _check_tower(config: ml_collections.ConfigDict, tower: str, leaves: Mapping[str, Any]) -> None:
    module, options = config[tower].module, config[tower].options
    try:
        json.dumps(options.to_dict())
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config.{tower}.options must be what JSON can hold, as checkpoints keep them: {error}"
        ) from None
    if not module and options:
        raise ConfigError(
            f"config.{tower}.options has {min(options)!r}, but config.{tower}.module names no "
            "encoder that could have options"
        )
    for name in _OWN[tower]:
        without = FIELDS[name].default
        if module and leaves[name] != without:
            raise ConfigError(
                f"config.{name}={leaves[name]!r} is for the package's own {tower}; with "
                f"config.{tower}.module={module!r} it must be {without!r}"
            )


def _try_encoder(
    named: str,
    module: nn.Module,
    inputs: tuple[jax.ShapeDtypeStruct, ...],
    widths: tuple[int, int],
    dtype: DTypeLike | None,
) -> None:
    def run(*inputs: jax.Array) -> tuple[Any, list[Any]]:
        key = jax.random.key(0)
        variables = module.init(key, *inputs, train=False)
        cast = {**variables, "params": variables.get("params", {})}
        if dtype is not None:
            cast["params"], inputs = cast_floats((cast["params"], inputs), dtype)
        trained, _ = module.apply(
            cast, *inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return variables, [trained, module.apply(cast, *inputs, train=False)]

    try:
        variables, outputs = jax.eval_shape(run, *inputs)
    except Exception as error:  # the module is the user's
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in inputs)
        raise ConfigError(f"{named} fails on {shapes}: {first_line(error)}") from None
    kept = set(variables) - _COLLECTIONS
    if kept:
        raise ConfigError(
            f"{named} has variables in the collection {min(kept)!r}; only "
            f"{' and '.join(sorted(_COLLECTIONS))} are trained and saved"
        )
    expected = tuple(jax.ShapeDtypeStruct((_BATCH, width), jnp.float32) for width in widths)
    for output in outputs:
        if _shapes(output) != _shapes(expected):
            raise ConfigError(
                f"{named} returns {_shapes(output)} for {_BATCH} inputs, not {_shapes(expected)}: "
                "hybrid embedding and concept probabilities"
            )


def _shapes(outputs: Any) -> str:
    if isinstance(outputs, tuple):
        return f"({', '.join(map(_shapes, outputs))})"
    if isinstance(outputs, jax.ShapeDtypeStruct):
        return f"{outputs.dtype}{list(outputs.shape)}"
    return f"a {type(outputs).__name__}"
