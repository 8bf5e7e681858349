"""Every field of a config in one table: its default, what it is, what it may be, what it decides.

A new field is one entry here, and one line where `build` hands it on. `configs/base.py` makes a
config of the defaults; docs/config.md is this table as a page.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from kamcl_jax.errors import ConfigError


class Rule(NamedTuple):
    """What a field may be.

    Attributes:
      words: The rule in words, after "it must be".
      holds: Whether a value keeps the rule.
    """

    words: str
    holds: Callable[[Any], bool]


class Decides(enum.Enum):
    """What depends on a field, and so whether it may change when a run is resumed."""

    EMBEDDINGS = "how images and captions are embedded"
    CAPTIONS = "how captions are embedded"
    TRAINING = "what is learnt"
    NOTHING_LEARNT = "nothing that is learnt: a resumed run may change it"


class Field(NamedTuple):
    """One entry of a config.

    Attributes:
      default: The value of the paper's RSICD training; its type is the field's type.
      rule: What it may be.
      about: What it is, in one sentence.
      decides: What depends on it.
    """

    default: Any
    rule: Rule
    about: str
    decides: Decides = Decides.TRAINING


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(least: int, *, below: int | None = None, also: int | None = None) -> Rule:
    """Returns the rule for whole numbers: at least `least`, below `below`, or just `also`."""
    words = f"a whole number of at least {least}"
    words += "" if below is None else f" and below {below}"
    words += "" if also is None else f", or {also}"
    top = float("inf") if below is None else below
    return Rule(words, lambda value: _is_whole(value) and (least <= value < top or value == also))


def one_of(*choices: Any) -> Rule:
    """Returns the rule that a value is one of several."""
    return Rule(f"one of {', '.join(map(repr, choices))}", lambda value: value in choices)


NOT_NEGATIVE = Rule("a number, 0 or more", lambda value: _is_number(value) and value >= 0)
POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
SHARE = Rule("at least 0 and below 1", lambda value: _is_number(value) and 0 <= value < 1)
SWITCH = Rule("True or False", lambda value: isinstance(value, bool))
TEXT = Rule("a text, or ''", lambda value: isinstance(value, str))
PATH = Rule("a path, or ''", lambda value: isinstance(value, str))
GROUP = Rule("a group of fields", lambda value: isinstance(value, Mapping))

EMBEDDINGS, CAPTIONS = Decides.EMBEDDINGS, Decides.CAPTIONS
FREE = Decides.NOTHING_LEARNT

FIELDS: dict[str, Field] = {
    # The training.
    "seed": Field(
        0,
        whole(0, below=2**31),
        "The seed of the initial weights, augmentation, dropout, order and validation split.",
    ),
    "fold": Field(0, whole(0), "Which of that seed's random validation splits is taken."),
    "num_folds": Field(10, whole(1), "How many folds `--mode=folds` trains.", FREE),
    "num_epochs": Field(
        20, whole(1), "The number of epochs; each shows every training caption once.", FREE
    ),
    "max_steps": Field(
        0, whole(0), "The step to stop at, for a trial run; 0 stands for no limit.", FREE
    ),
    "batch_size": Field(100, whole(1), "The image-caption pairs of a step, over all devices."),
    "image_size": Field(
        256, whole(1), "The side of the images that the encoder sees, in pixels.", EMBEDDINGS
    ),
    "embedding_size": Field(512, whole(1), "The size of an embedding.", EMBEDDINGS),
    "num_concepts": Field(512, whole(1), "The most concepts that are learnt; there may be fewer."),
    "queue_length": Field(8000, whole(1), "The past keys of each modality; at least `batch_size`."),
    "momentum": Field(0.999, SHARE, "The share of the key encoders that a step keeps."),
    "momentum_coverage": Field(
        "all",
        one_of("all", "release"),
        "'release': most of the image key encoder never moves, as in the PyTorch release.",
    ),
    "caption_padding": Field(
        "masked",
        one_of("masked", "release"),
        "'release': captions run on to the length of the batch's longest, as in the release.",
        CAPTIONS,
    ),
    "temperature": Field(
        0.07,
        POSITIVE,
        "It divides the contrastive similarities; a preset brings its own instead.",
    ),
    "learn_temperature": Field(
        False,
        SWITCH,
        "The temperature is learnt; it stops at 0.01, but that of a SigLIP does not.",
    ),
    "log_every_steps": Field(10, whole(1), "The steps between two lines of progress.", FREE),
    "dtype": Field(
        "float32",
        one_of("float32", "bfloat16"),
        "What the encoders compute in; parameters stay float32.",
        EMBEDDINGS,
    ),
    "gradient_accumulation": Field(
        1, whole(1), "In how many microbatches a batch is encoded, to save memory."
    ),
    "not_finite": Field(
        "stop",
        one_of("stop", "skip"),
        "'skip' leaves out an update whose loss or gradient is not finite.",
        FREE,
    ),
    # The data.
    "data.name": Field("rsicd", TEXT, "The data set, a key of `input_pipeline.datasets.BUILDERS`."),
    "data.dir": Field("data/rsicd", PATH, "The folder of what the publisher distributes.", FREE),
    "data.prepared_dir": Field(
        "", PATH, "The folder of prepared data; '' stands for `<data.dir>/prepared`.", FREE
    ),
    "data.options": Field({}, GROUP, "The data set's own options; docs/data.md lists them."),
    "data.bad_images": Field(
        "stop", one_of("stop", "skip"), "'skip' goes on without images that can't be read.", FREE
    ),
    "data.split_sizes": Field(
        "report",
        one_of("report", "require"),
        "'require' stops if the splits are not as large as the published ones.",
        FREE,
    ),
    "data.validation": Field(
        "random",
        one_of("auto", "published", "random"),
        "The validation split: drawn at random, or the publisher's, which 'auto' prefers.",
    ),
    "data.validation_fraction": Field(
        0.2, SHARE, "The share of the images outside of the test split, for a random split."
    ),
    "data.vocabulary_from": Field(
        "train",
        one_of("train", "train_and_test"),
        "'train_and_test' counts the test captions' words, too, as the release does.",
    ),
    "data.min_word_count": Field(5, whole(1), "Words that are seen less often are unknown."),
    "data.pad_concepts": Field(
        False, SWITCH, "Labels are `num_concepts` wide even where there are fewer concepts."
    ),
    "data.labels_by": Field(
        "image",
        one_of("image", "position"),
        "'position' gives most images the labels of another one, as the release does.",
    ),
    "data.residency": Field(
        "auto",
        one_of("auto", "device", "host"),
        "Where the training split lies: in the devices' memory, or read by the host.",
        FREE,
    ),
    "data.read_threads": Field(
        0,
        whole(0, below=1025),
        "The host's threads that share the images of a batch; 0: one a core, up to 16.",
        FREE,
    ),
    "data.max_tokens": Field(
        0, whole(0), "Captions and queries are cut to this many words; 0 cuts none.", CAPTIONS
    ),
    "concepts.min_repeats": Field(
        2, whole(1), "How many of an image's captions must repeat a word for it to be a label."
    ),
    "concepts.label_scale": Field(
        "largest",
        one_of("largest", "concepts", "captions", "present"),
        "What a word's count is divided by to be a label: the image's largest count, that of its "
        "concepts, or its captions; 'present': labels are 1.",
    ),
    "concepts.stop_words": Field(
        "english", TEXT, "Words that are no concepts: 'english', 'none', or a file, a word a line."
    ),
    "concepts.lemmatize": Field(
        False, SWITCH, "The forms of a word are one concept (needs `simplemma`).", CAPTIONS
    ),
    "augmentation.resize": Field(
        0,
        whole(0),
        "The side of training images before the crop, in pixels; 0: image_size * 278 / 256.",
    ),
    "augmentation.max_rotation": Field(90.0, NOT_NEGATIVE, "The largest rotation, in degrees."),
    "augmentation.flips": Field(
        False,
        SWITCH,
        "Images are mirrored at random, in both ways, unless the caption says a direction.",
    ),
    "augmentation.quarter_turns": Field(
        False,
        SWITCH,
        "Images are turned by 0 to 3 quarters at random, unless the caption says a direction.",
    ),
    # The devices and what is saved.
    "mesh.data": Field(
        -1, whole(1, also=-1), "The groups of fsdp devices that split a batch; -1 takes all.", FREE
    ),
    "mesh.fsdp": Field(
        1, whole(1), "The devices of a group, which share out the parameters as well.", FREE
    ),
    "mesh.fsdp_min_size": Field(
        2**16, whole(0), "Tensors with fewer entries stay whole on every device.", FREE
    ),
    "mesh.queue": Field(
        "replicated",
        one_of("replicated", "sharded"),
        "'sharded' splits the queues over all devices, for long queues.",
        FREE,
    ),
    "checkpoint.keep": Field(
        2, whole(1), "How many of the latest checkpoints stay, besides the best one.", FREE
    ),
    "checkpoint.every_steps": Field(
        0, whole(0), "The steps between checkpoints within an epoch; 0: at its end alone.", FREE
    ),
    # The encoders.
    "encoders.preset": Field(
        "",
        TEXT,
        "A published CLIP or SigLIP by its name in docs/published_models.md; '' takes the encoders "
        "below.",
        EMBEDDINGS,
    ),
    "encoders.pretrained": Field(
        "", PATH, "The preset's weights, a file or a folder; '' starts from random weights.", FREE
    ),
    "encoders.vocabulary": Field(
        "",
        PATH,
        "The preset's tokeniser, a file or its folder; '' looks beside the weights, for CLIP in "
        "open_clip_torch, too.",
        FREE,
    ),
    "encoders.cleaning": Field(
        "canonicalize",
        one_of("canonicalize", "lower"),
        "How captions are cleaned for a SigLIP: as open_clip does, or as big_vision does.",
        CAPTIONS,
    ),
    "encoders.hybrid": Field(
        True,
        SWITCH,
        "Concepts are added to a preset's embeddings, by a learnt factor that is 0 at first.",
        EMBEDDINGS,
    ),
    "encoders.attention": Field(
        "xla",
        one_of("xla", "cudnn"),
        "How a preset's attention is computed; cuDNN is for NVIDIA's GPUs and bfloat16.",
        FREE,
    ),
    "finetuning.trains": Field(
        "all",
        one_of("all", "heads", "blocks", "lora"),
        "What of a preset trains: all, what is behind the blocks, the last blocks as well, or "
        "adapters of low rank with the concept heads.",
    ),
    "finetuning.last_blocks": Field(
        2, whole(1), "With 'blocks': how many blocks of each tower train."
    ),
    "finetuning.lora_rank": Field(8, whole(1), "With 'lora': the rank of the adapters."),
    "finetuning.lora_alpha": Field(
        16.0, POSITIVE, "With 'lora': the adapters count alpha / rank times."
    ),
    "finetuning.layer_decay": Field(
        1.0,
        Rule("above 0 and at most 1", lambda value: _is_number(value) and 0 < value <= 1),
        "The learning rate of a preset's block, as a share of that of the block behind it.",
    ),
    "finetuning.new_rate": Field(
        1.0,
        POSITIVE,
        "What multiplies the learning rate of what is new to a preset: the concept heads with "
        "their gates, and the bias that SigLIP's loss adds to a CLIP.",
    ),
    "image_encoder.depth": Field(18, one_of(18, 34, 50, 101), "Which ResNet it is.", EMBEDDINGS),
    "image_encoder.width": Field(64, whole(1), "The channels of its first stage.", EMBEDDINGS),
    "image_encoder.rematerialise": Field(
        False,
        SWITCH,
        "The backward pass computes blocks once more, to save memory; with a preset those of both "
        "towers.",
        FREE,
    ),
    "image_encoder.pooling_kernel": Field(
        "auto",
        one_of("auto", "counting", "pallas"),
        "How both towers' poolings are computed: by a GPU's kernels, or by XLA's loops.",
        FREE,
    ),
    "image_encoder.pretrained": Field(
        "", PATH, "torchvision's .pth or .safetensors file; '' starts from random weights.", FREE
    ),
    "image_encoder.module": Field(
        "", TEXT, "Another encoder as 'package.module:Name'; '' takes the paper's.", EMBEDDINGS
    ),
    "image_encoder.options": Field({}, GROUP, "That other encoder's arguments.", EMBEDDINGS),
    "text_encoder.word_width": Field(620, whole(1), "The size of a word embedding.", CAPTIONS),
    "text_encoder.hidden_width": Field(2400, whole(1), "The size of the GRU's state.", CAPTIONS),
    "text_encoder.dropout": Field(0.25, SHARE, "The share of the GRU's outputs that is dropped."),
    "text_encoder.pretrained": Field(
        "", PATH, "The folder of the skip-thoughts files; '' starts from random weights.", FREE
    ),
    "text_encoder.module": Field(
        "", TEXT, "Another encoder as 'package.module:Name'; '' takes the paper's.", CAPTIONS
    ),
    "text_encoder.options": Field({}, GROUP, "That other encoder's arguments.", CAPTIONS),
    # The losses and their schedule.
    "loss.margin": Field(0.2, NOT_NEGATIVE, "The margin of the triplet loss."),
    "loss.negatives": Field(
        "queue",
        one_of("queue", "batch", "both"),
        "The negatives of the contrastive losses: past keys, the batch's other keys, or both.",
    ),
    "loss.mask_unfilled": Field(
        False, SWITCH, "The random keys that the queues start with are no negatives."
    ),
    "loss.positives": Field(
        "own",
        one_of("own", "equal", "concepts"),
        "What a query aims at: its own key, all keys of its image or text, or similar concepts.",
    ),
    "loss.concept_share": Field(
        0.2, SHARE, "How much of a target lies on similar concepts, with positives='concepts'."
    ),
    "loss.triplet_reduction": Field(
        "sum",
        one_of("sum", "mean"),
        "The triplet loss adds the queries of a batch up, or takes their mean.",
    ),
    "loss.triplet_weight": Field(1.0, NOT_NEGATIVE, "The weight of the triplet loss."),
    "loss.contrastive_weight": Field(10.0, NOT_NEGATIVE, "The weight of the contrastive losses."),
    "loss.batch_weight": Field(
        0.0, NOT_NEGATIVE, "The weight of the contrastive loss of a batch's queries, CLIP's."
    ),
    "loss.sigmoid_weight": Field(
        0.0, NOT_NEGATIVE, "The weight of SigLIP's loss of a batch's queries."
    ),
    "loss.alignment_weight": Field(
        10.0, NOT_NEGATIVE, "The weight of the concept alignment in step 2 of the schedule."
    ),
    "loss.mask_false_negatives": Field(
        False, SWITCH, "What is of a query's own image or text is no negative, in any loss."
    ),
    "loss.extra_terms": Field(
        {}, GROUP, "Losses of your own: name -> {'function': 'package.module:name', 'weight': 1.0}."
    ),
    "schedule.alignment_from_epoch": Field(
        11, whole(0), "The first epoch of step 2, counted from 0."
    ),
    "schedule.alignment_ramp_epochs": Field(
        0.0, NOT_NEGATIVE, "Over how many epochs the weight of the alignment grows, from 0."
    ),
    "optimizer.name": Field(
        "adam",
        one_of("adam", "muon"),
        "What turns gradients into updates: Adam, or Muon for kernels and Adam for the rest.",
    ),
    "optimizer.learning_rate": Field(2e-4, POSITIVE, "The first learning rate."),
    "optimizer.schedule": Field(
        "step",
        one_of("step", "cosine"),
        "The learning rate falls in steps, or to 0 at the last epoch along half a cosine.",
    ),
    "optimizer.warmup_steps": Field(
        0, whole(0), "The steps in which the learning rate first grows in a straight line."
    ),
    "optimizer.weight_decay": Field(
        0.0,
        NOT_NEGATIVE,
        "AdamW's decay of matrices, kernels and embeddings, with Muon of kernels; 0 is none.",
    ),
    "optimizer.epsilon": Field(1e-8, POSITIVE, "Adam's epsilon."),
    "optimizer.clip_norm": Field(
        0.0, NOT_NEGATIVE, "The largest global norm of the gradients; 0 does not clip."
    ),
    "optimizer.decay_factor": Field(0.5, POSITIVE, "What the learning rate is multiplied by ..."),
    "optimizer.decay_every_epochs": Field(10, whole(1), "... every so many epochs."),
    "evaluation.batch_size": Field(
        100, whole(1), "The images or captions that are encoded at once, over all devices.", FREE
    ),
    "evaluation.encoders": Field(
        "query",
        one_of("query", "key"),
        "What validates, reports and is exported: the trained encoders, or their momentum average.",
        EMBEDDINGS,
    ),
    "evaluation.ties": Field(
        "expected",
        one_of("expected", "argsort"),
        "How tied scores rank: in expectation over random orders, or as the release does.",
        FREE,
    ),
}

_OPTIONS_THAT_ARE_PATHS = frozenset({"data.options.images", "data.options.captions"})


def default_config() -> ml_collections.ConfigDict:
    """Returns a config with the default of every field."""
    nested: dict[str, Any] = {}
    for name, field in FIELDS.items():
        *groups, last = name.split(".")
        group = nested
        for one in groups:
            group = group.setdefault(one, {})
        group[last] = field.default
    return ml_collections.ConfigDict(nested)


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config's leaves under dotted names, tuples as lists, as JSON has them."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            leaves.update({f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            leaves[name] = _with_lists(value)
    return leaves


def _with_lists(value: Any) -> Any:
    return [_with_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Checks each field by itself.

    Raises:
      ConfigError: A field breaks its rule.
    """
    leaves = flatten(config)
    for name, field in FIELDS.items():
        value = {} if field.rule is GROUP else leaves[name]
        if not field.rule.holds(value):
            raise ConfigError(f"config.{name} is {value!r}; it must be {field.rule.words}")


def decides(name: str, leaves: Mapping[str, Any]) -> Decides:
    """Returns what a field decides.

    Args:
      name: The dotted name, also of an entry of a group of options. A field that is not in the
        table decides everything.
      leaves: The flattened config.
    """
    if name in _OPTIONS_THAT_ARE_PATHS:
        return FREE
    if name == "evaluation.batch_size" and leaves["caption_padding"] == "release":
        # The embedding of a caption then depends on the others that it is evaluated with.
        return CAPTIONS
    if name == "num_epochs" and leaves["optimizer.schedule"] == "cosine":
        return Decides.TRAINING  # the cosine ends with the last epoch
    while name not in FIELDS:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return EMBEDDINGS
    return FIELDS[name].decides


def check_against_checkpoint(config: ml_collections.ConfigDict, trained: dict[str, Any]) -> None:
    """Checks that a config continues the run that a checkpoint came from.

    Args:
      config: The config of this run.
      trained: The flattened config of the checkpoint.

    Raises:
      ConfigError: Fields differ that decide what is learnt; the sentence lists them all.
    """
    now = flatten(config)
    # A field that is newer than the checkpoint had what is now its default.
    trained = {**flatten(default_config()), **trained}
    differing = [
        f"config.{name}: {trained.get(name)} in the checkpoint, {now.get(name)} now"
        for name in sorted(now.keys() | trained.keys())
        if decides(name, now) is not FREE and now.get(name) != trained.get(name)
    ]
    if differing:
        raise ConfigError(
            "the working directory holds a run of another config (choose another --workdir): "
            + "; ".join(differing)
        )


def markdown_table() -> str:
    """Returns the table of fields as docs/config.md shows it."""
    rows = ["| field | default | what it is | it must be | decides |", "|---|---|---|---|---|"]
    for name, field in FIELDS.items():
        default = "" if field.rule is GROUP else f"`{field.default!r}`"
        cells = (f"`{name}`", default, field.about, field.rule.words, _SHORT[field.decides])
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


_SHORT = {
    Decides.EMBEDDINGS: "embeddings",
    Decides.CAPTIONS: "captions' embeddings",
    Decides.TRAINING: "training",
    Decides.NOTHING_LEARNT: "free to change",
}

if __name__ == "__main__":
    print(markdown_table())
