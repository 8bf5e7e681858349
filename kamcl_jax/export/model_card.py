"""The model card: what a model is, how to use it, how good it is, and what it cannot do.

Laid out as Hugging Face reads it: YAML between two `---` lines, then Markdown.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from kamcl_jax.evaluate import tables
from kamcl_jax.export import card_texts, model_folder
from kamcl_jax.export import stablehlo as portable
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.ranking.metrics import RECALL_AT, RESAMPLES

FIELDS_SHOWN = (
    "seed",
    "num_epochs",
    "batch_size",
    "image_size",
    "dtype",
    "image_encoder.module",
    "image_encoder.depth",
    "image_encoder.pretrained",
    "text_encoder.module",
    "text_encoder.hidden_width",
    "text_encoder.pretrained",
    "queue_length",
    "momentum",
    "temperature",
    "loss.margin",
    "loss.negatives",
    "loss.mask_false_negatives",
    "loss.triplet_weight",
    "loss.contrastive_weight",
    "loss.alignment_weight",
    "schedule.alignment_from_epoch",
    "optimizer.learning_rate",
)
"""Of the config, where they are set to something; `config.json` has all."""

NOTHING = ("''", "False", "None")
"""Values of fields that are not shown."""

OURS = {"image_encoder": "image_encoder.depth", "text_encoder": "text_encoder.hidden_width"}
"""Tower -> its field of those shown that a custom encoder does not read."""

FREE_FIELDS = (*(f"{tower}.options." for tower in OURS), "loss.extra_terms.")
"""Beginnings of fields whose names the config's writer chooses."""


class Sizes(NamedTuple):
    """How much there is of a split.

    Attributes:
      images: of them.
      captions: of them.
    """

    images: int
    captions: int


def write(
    model: TrainedModel,
    results: dict[str, Any] | None,
    sizes: Mapping[str, Sizes] | None = None,
    *,
    stablehlo: bool = True,
) -> str:
    """Returns the text of the model card.

    Args:
      model: that the card is of.
      results: the contents of the run's `report/metrics.json`, if they are of this model.
      sizes: of the splits that it was trained and tested with, where they are known.
      stablehlo: whether the encoders lie beside the card, see `portable`.
    """
    return f"""---
{_header(model, results)}---

{card_texts.WHAT_IT_IS.format(data=_data_name(model), step=model.step)}
{card_texts.WITH_THE_PROGRAM}{_custom_modules(model)}{_by_jax_alone(model) if stablehlo else ""}
{card_texts.RESULTS}
{_scores(model, results)}
{card_texts.TRAINING}
{_training(model)}
{card_texts.DATA}
{_data(model, sizes)}
{card_texts.limits(model.config.data.name, model.config.image_size, model.config.data.max_tokens)}
{card_texts.CITATION}"""


def _data_name(model: TrainedModel) -> str:
    return card_texts.DATA_SETS.get(model.config.data.name, model.config.data.name)


def _header(model: TrainedModel, results: dict[str, Any] | None) -> str:
    header: dict[str, Any] = {
        "license": "unknown",
        "language": "en",
        "library_name": "kamcl-jax",
        "pipeline_tag": "feature-extraction",
        "tags": ["remote-sensing", "image-text-retrieval", "jax", "flax"],
        "datasets": [model.config.data.name],
        "metrics": ["recall"],
    }
    if results is not None:
        header["model-index"] = [_index_entry(model, results["test"])]
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)


def _index_entry(model: TrainedModel, scores: Mapping[str, float]) -> dict[str, Any]:
    measured = [
        (f"{way}_r{k}", f"{words} recall@{k} (%)")
        for way, words in tables.WAYS.items()
        for k in RECALL_AT
    ]
    measured.append(("mR", "mean of the six recalls (%)"))
    name = model.config.data.name
    return {
        "name": f"KAMCL on {name}",
        "results": [
            {
                "task": {"type": "image-text-retrieval", "name": "Image-text retrieval"},
                "dataset": {"type": name, "name": _data_name(model), "split": "test"},
                "metrics": [
                    {"type": "recall", "name": words, "value": round(scores[metric], 2)}
                    for metric, words in measured
                ],
            }
        ],
    }


def _custom_modules(model: TrainedModel) -> str:
    modules = [model.config[tower].get("module", "") for tower in OURS]
    named = " and ".join(f"`{module}`" for module in modules if module)
    return card_texts.CUSTOM_MODULES.format(modules=named) if named else ""


def _by_jax_alone(model: TrainedModel) -> str:
    max_tokens = model.config.data.max_tokens
    return card_texts.BY_JAX_ALONE.format(
        size=model.config.image_size,
        cut=f"[:{max_tokens}]" if max_tokens else "",
        first=card_texts.FIRST_TOKENS.format(max_tokens=max_tokens) if max_tokens else "",
        most_tokens=portable.most_tokens(model),
        words=len(model.vocabulary),
        concepts=len(model.concepts),
        forms=card_texts.LEMMAS if model.config.concepts.lemmatize else "",
        padding=card_texts.RELEASE_PADDING if model.config.caption_padding == "release" else "",
    )


def _scores(model: TrainedModel, results: dict[str, Any] | None) -> str:
    if results is None:
        return card_texts.NO_RESULTS.format(step=model.step)
    return card_texts.SCORES.format(
        epoch=results["best_epoch"],
        chosen=card_texts.CHOSEN if results["val"] is not None else "",
        scores=tables.scores(results),
        resamples=RESAMPLES,
        intervals=tables.intervals(results),
    )


def _training(model: TrainedModel) -> str:
    fields = model_folder.published_fields(model.config)
    unused = {of_ours for tower, of_ours in OURS.items() if fields.get(f"{tower}.module")}
    free = [name for name in fields if name.startswith(FREE_FIELDS)]
    rows = [
        [f"`{name}`", f"`{fields[name]!r}`".replace("|", "\\|")]
        for name in (*FIELDS_SHOWN, *free)
        if name in fields and name not in unused and repr(fields[name]) not in NOTHING
    ]
    return tables.markdown_table(("field of the config", "value"), rows, left=2)


def _data(model: TrainedModel, sizes: Mapping[str, Sizes] | None) -> str:
    if sizes is None:
        counts = card_texts.UNKNOWN_SIZES
    else:
        rows = [
            [split, str(of_split.images), str(of_split.captions)]
            for split, of_split in sizes.items()
        ]
        counts = tables.markdown_table(("split", "images", "captions"), rows)
    return card_texts.OF_DATA.format(
        data=_data_name(model),
        name=model.config.data.name,
        counts=counts,
        words=len(model.vocabulary) - 1,  # without <unk>
        concepts=len(model.concepts),
    )
