"""`--mode=export`: a trained run as files for other people and other programs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from kamcl_jax.config import encoders
from kamcl_jax.errors import ExportError
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.finished_run import FinishedRun
from kamcl_jax.export import embeddings, model_card, model_folder, open_clip_file, stablehlo
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.parallel import hosts
from kamcl_jax.runs.folder import check_out_folder, make_out_folder

OF_THE_WEIGHTS = (
    *(stablehlo.IMAGES, stablehlo.TEXTS, open_clip_file.NAME),
    *(name for split in finished_run.SPLITS for name in embeddings.file_names(split)),
)
"""Files that mean nothing beside the weights of another export."""


def export(
    workdir: Path,
    out: Path,
    *,
    split: str | None = None,
    config: ml_collections.ConfigDict | None = None,
) -> None:
    """Writes the best checkpoint of a run as a model folder, and its encoders as StableHLO.

    Custom encoders that cannot be exported for inputs of any size are left out, with a note. What
    an export has written into the folder before is replaced, or removed.

    Args:
      workdir: The run's folder.
      out: The folder to write to.
      split: One of `finished_run.SPLITS`, whose embeddings and concept probabilities are written
        too; this needs the data.
      config: The run's config, where its data lie elsewhere by now; if None, the checkpoint's.
    """
    _check_folder(out)
    run = finished_run.read(workdir)
    data = None
    if split is not None:
        data = finished_run.open_data(run, config, train_as_tested=split == "train")
    make_out_folder(out)
    _say_what_report_lacks(run)
    model, sizes = run.model(), None
    if data is not None:
        splits = {name: getattr(data, name) for name in finished_run.SPLITS}
        sizes = {name: (len(of.file_names), len(of.captions)) for name, of in splits.items()}
    names = _write(out, model, run.results_of_step, sizes)
    if split is not None:
        embeddings.write(out, split, model, getattr(data, split))
        names += embeddings.file_names(split)
    _say_what_is_there(out, names)


def export_published(model: TrainedModel, out: Path) -> None:
    """Writes a published model as `export` writes a run's."""
    _check_folder(out)
    make_out_folder(out)
    _say_what_is_there(out, _write(out, model, None, None))


def _write(
    out: Path,
    model: TrainedModel,
    results: dict[str, Any] | None,
    sizes: Mapping[str, tuple[int, int]] | None,
) -> list[str]:
    """Writes all but embeddings, and returns the names of the files."""
    others: dict[str, bytes | bytearray] = dict(_encoders(model))
    card = model_card.write(model, results, sizes, stablehlo=bool(others))
    if encoders.published(model.config) is not None:
        others |= _for_open_clip(model)
    # First, so that an export that is cut short leaves nothing of other weights beside the new.
    for name in OF_THE_WEIGHTS:
        (out / name).unlink(missing_ok=True)
    model_folder.write(out, model, card)
    for name, content in others.items():
        model_folder.write_bytes(out / name, content)
    return [*model_folder.FILES, *others]


def _say_what_is_there(out: Path, names: list[str]) -> None:
    for name in names:
        hosts.say(f"{out / name} ({(out / name).stat().st_size / 1e3:,.0f} kB)")


def _check_folder(out: Path) -> None:
    """Refuses to replace files of the same names that are of something else."""
    check_out_folder(out)
    found = [name for name in (*model_folder.FILES, *OF_THE_WEIGHTS) if (out / name).exists()]
    if found and not _is_ours(out / model_folder.CONFIG):
        raise ExportError(f"{out / found[0]} is not of a finished export; choose another --out")


def _is_ours(config: Path) -> bool:
    try:
        return json.loads(config.read_text("utf-8"))["model_type"] == model_folder.MODEL_TYPE
    except (OSError, LookupError, TypeError, ValueError):
        return False


def _say_what_report_lacks(run: FinishedRun) -> None:
    if run.results is None:
        hosts.warn(
            f"{run.folder} has no report, and the model card no scores; --mode=evaluate scores it"
        )
    elif run.results_of_step is None:
        hosts.warn(
            f"the report of {run.folder} is of step {run.results['best_step']}, the checkpoint of "
            f"step {run.step}: the model card has no scores; --mode=evaluate scores it anew"
        )


def _for_open_clip(model: TrainedModel) -> dict[str, bytes]:
    try:
        return {open_clip_file.NAME: open_clip_file.contents(model)}
    except ExportError as error:
        hosts.warn(f"no {open_clip_file.NAME} is written: {error}")
        return {}


def _encoders(model: TrainedModel) -> dict[str, bytearray]:
    try:
        return {
            stablehlo.IMAGES: stablehlo.image_encoder(model),
            stablehlo.TEXTS: stablehlo.text_encoder(model),
        }
    except ExportError as error:
        hosts.warn(f"no StableHLO is written: {error}")
        return {}
