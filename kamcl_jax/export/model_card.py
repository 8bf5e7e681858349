"""The model card: what a model is, how to use it, how good it is, and what it cannot do.

`templates/model_card.md` has its text, and `published_model_card.md` that of a published model.
They are laid out as Hugging Face reads them: YAML between two `---` lines, then Markdown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from kamcl_jax.config import encoders
from kamcl_jax.evaluate import tables
from kamcl_jax.export import model_folder, open_clip_file
from kamcl_jax.export.stablehlo import most_tokens
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.ranking.metrics import RECALL_AT, RESAMPLES

DATA_SETS = {
    "rsicd": "RSICD (Lu et al. 2017)",
    "rsitmd": "RSITMD (Yuan et al. 2022)",
    "nwpu_captions": "NWPU-Captions (Cheng et al. 2022)",
    "ucm_captions": "UCM-Captions (Qu et al. 2016)",
    "sydney_captions": "Sydney-Captions (Qu et al. 2016)",
    "synthetic": "scenes drawn by a program",
    "caption_folder": "images and captions of the trainer's own",
}
FIELDS_SHOWN = (
    *("seed", "num_epochs", "batch_size", "image_size", "dtype"),
    *("encoders.preset", "encoders.pretrained", "encoders.hybrid"),
    *("finetuning.trains", "finetuning.last_blocks", "finetuning.lora_rank"),
    *("image_encoder.module", "image_encoder.depth", "image_encoder.pretrained"),
    *("text_encoder.module", "text_encoder.hidden_width", "text_encoder.pretrained"),
    *("queue_length", "momentum", "temperature"),
    *("loss.margin", "loss.negatives", "loss.mask_false_negatives"),
    *("loss.triplet_weight", "loss.contrastive_weight", "loss.alignment_weight"),
    *("schedule.alignment_from_epoch", "optimizer.learning_rate", "evaluation.encoders"),
)
"""The fields of the config that are shown, where they are set to something."""

OURS = {"image_encoder": "image_encoder.depth", "text_encoder": "text_encoder.hidden_width"}
"""Tower -> the field among those shown that a custom encoder does not read."""

FREE_FIELDS = (*(f"{tower}.options." for tower in OURS), "loss.extra_terms.")
"""The beginnings of fields whose names the config's writer chooses; they are shown, too."""


def write(
    model: TrainedModel,
    results: dict[str, Any] | None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    *,
    stablehlo: bool = True,
) -> str:
    """Returns the text of the model card.

    Args:
      model: The model that the card is of.
      results: The contents of the run's `report/metrics.json`, if they are of this model.
      sizes: How many images and captions each split of its data has, where that is known.
      stablehlo: Whether the encoders lie beside the card as StableHLO.
    """
    config = model.config
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kamcl_jax.export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    published = encoders.published(config)
    if published is not None:
        return environment.get_template("published_model_card.md").render(
            model=model,
            config=config,
            preset=config.encoders.preset,
            pretrained=Path(config.encoders.pretrained).name,
            data=DATA_SETS.get(config.data.name, config.data.name),
            size=config.image_size,
            context=published.text.context,
            open_clip=open_clip_file.NAME if open_clip_file.fits(model) else "",
            open_clip_name=config.encoders.preset.removesuffix("-gelu"),
            open_clip_differs=published.activation == "gelu_tanh",
            concepts=len(model.concepts),
            results=results,
            scores=tables.scores(results) if results else "",
            intervals=tables.intervals(results) if results else "",
            resamples=RESAMPLES,
            fields=_fields(model),
        )
    modules = [config[tower].module for tower in OURS if config[tower].module]
    return environment.get_template("model_card.md").render(
        model=model,
        config=config,
        data=DATA_SETS.get(config.data.name, config.data.name),
        modules=" and ".join(f"`{module}`" for module in modules),
        most_tokens=most_tokens(model) if stablehlo else 0,
        max_tokens=config.data.max_tokens,
        size=config.image_size,
        words=len(model.vocabulary) - 1,  # without <unk>
        concepts=len(model.concepts),
        results=results,
        metrics=_metrics(results["test"]) if results else {},
        scores=tables.scores(results) if results else "",
        intervals=tables.intervals(results) if results else "",
        known_concepts=tables.concepts(results) if results else "",
        resamples=RESAMPLES,
        fields=_fields(model),
        sizes=_sizes(sizes) if sizes else "",
    )


def _metrics(scores: Mapping[str, float]) -> dict[str, float]:
    recalls = {
        f"{words} recall@{k} (%)": round(scores[f"{way}_r{k}"], 2)
        for way, words in tables.WAYS.items()
        for k in RECALL_AT
    }
    return {**recalls, "mean of the six recalls (%)": round(scores["mR"], 2)}


def _fields(model: TrainedModel) -> str:
    fields = model_folder.published_fields(model.config)
    preset, trains = bool(fields["encoders.preset"]), fields["finetuning.trains"]
    unread = {field for tower, field in OURS.items() if preset or fields[f"{tower}.module"]}
    unread |= {"temperature"} if preset else {"encoders.hybrid", "finetuning.trains"}
    for choice, field in (("blocks", "last_blocks"), ("lora", "lora_rank")):
        if trains != choice:
            unread.add(f"finetuning.{field}")
    free = [name for name in fields if name.startswith(FREE_FIELDS)]
    rows = [
        [f"`{name}`", f"`{fields[name]!r}`".replace("|", "\\|")]
        for name in (*FIELDS_SHOWN, *free)
        if name not in unread and repr(fields[name]) not in ("''", "False", "None")  # 0 is shown
    ]
    return tables.markdown_table(("field of the config", "value"), rows, left=2)


def _sizes(sizes: Mapping[str, tuple[int, int]]) -> str:
    rows = [[split, str(images), str(captions)] for split, (images, captions) in sizes.items()]
    return tables.markdown_table(("split", "images", "captions"), rows)
