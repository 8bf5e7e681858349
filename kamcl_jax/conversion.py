"""Turns checkpoints of the PyTorch release into runs of ours, and runs into such checkpoints."""

from pathlib import Path

import jax
import ml_collections

from kamcl_jax import (
    best_checkpoint,
    config_check,
    encoders_from_config,
    from_config,
    run_folder,
    run_record,
    sharding,
    training,
)
from kamcl_jax.checkpoints import BEST_METRIC, Checkpoints, folder_of
from kamcl_jax.config_check import ConfigError
from kamcl_jax.from_config import Experiment
from kamcl_jax.history import History
from kamcl_jax.pretrained import kamcl_torch, tensor_files
from kamcl_jax.pretrained.errors import PretrainedError
from kamcl_jax.pretrained.tensor_files import Stored


def from_torch(config: ml_collections.ConfigDict, workdir: Path, source: Path) -> None:
    """Makes a run out of a checkpoint of the release, to evaluate or to train on.

    Args:
      config: that describes the checkpoint, as `configs/rsicd.py:release`.
      workdir: of the new run.
      source: `.pth.tar` (needs PyTorch) or `.safetensors`.

    Raises:
      PretrainedError: the file cannot be used or does not fit config and data.
      ConfigError: the config cannot be, or `workdir` cannot be written or holds a run.
      DataError: the data cannot be used.
    """
    _check_towers(config)
    run_folder.check(workdir)
    folder = folder_of(workdir)
    if folder.exists():
        with Checkpoints(folder, read_only=True) as checkpoints:
            if checkpoints.latest is not None:
                raise ConfigError(f"{workdir} already holds a run; choose another --workdir")
    stored = tensor_files.read(source)
    experiment = from_config.build(config)
    _check_sizes(experiment, stored, source)
    state = kamcl_torch.from_state_dict(stored.tensors, config, str(source))
    state = jax.device_put(state, experiment.layout.state)
    with run_folder.lock(workdir), Checkpoints(folder) as checkpoints:
        training.write_config(experiment, workdir)
        score = {BEST_METRIC: stored.score or 0.0}
        checkpoints.save(state, score, run_record.make(experiment, History()))
    trained = "" if stored.epoch is None else f", epoch {stored.epoch}"
    scored = "" if stored.score is None else f", validation mR {stored.score:.2f}"
    print(f"{source}: {len(stored.tensors)} tensors, step {int(state.step)}{trained}{scored}")
    print(f"run: {workdir} (score it with --mode=evaluate and the same config)")


def to_torch(config: ml_collections.ConfigDict, workdir: Path, target: Path) -> None:
    """Writes a run's best checkpoint as the release stores its own.

    The data are not needed.

    Args:
      config: of the run.
      workdir: of the run.
      target: `.safetensors`, or anything else for PyTorch's format (needs PyTorch).

    Raises:
      ConfigError: there is no checkpoint, or it is of another config.
      PretrainedError: the release cannot have such a model, or the file cannot be written.
    """
    _check_towers(config)
    config_check.check(config)
    tensor_files.check_target(target)
    with best_checkpoint.open_checkpoints(workdir) as checkpoints:
        best = checkpoints.best_or_latest
        record = checkpoints.record(best)
        config_check.check_against_checkpoint(config, record["config"])
        like = from_config.abstract_state(
            config, len(record["vocabulary"]) + 1, record["concept_width"]
        )
        one_device = sharding.replicated(sharding.make_mesh(devices=jax.devices()[:1]))
        state = checkpoints.restore(best, like, one_device.whole).state
        score = checkpoints.score(best) or 0.0
    tensors = kamcl_torch.to_state_dict(state)
    epoch = round(best / record["steps_per_epoch"])
    tensor_files.write(target, tensors, epoch=epoch, score=score)
    print(f"{target}: {len(tensors)} tensors of step {best}")


def _check_towers(config: ml_collections.ConfigDict) -> None:
    for tower in encoders_from_config.others(config):
        raise PretrainedError(
            "the release has the package's own encoders alone; "
            f"config.{tower}.module is {config[tower].module!r}"
        )


def _check_sizes(experiment: Experiment, stored: Stored, source: Path) -> None:
    """Refuses weights for other words or concepts: rows would stand for the wrong ones."""
    for name, ours, what in (
        (kamcl_torch.EMBEDDING, len(experiment.data.vocabulary) + 1, "words and the padding"),
        (kamcl_torch.CONCEPT_BIAS, experiment.data.num_concepts, "concepts"),
    ):
        if name in stored.tensors and len(stored.tensors[name]) != ours:
            raise PretrainedError(
                f"the tensor {name} of {source} has {len(stored.tensors[name])} rows, but the "
                f"config's data give {ours} ({what}); the release counts words as "
                "config.data.vocabulary_from='train_and_test' does, and always has "
                "config.data.pad_concepts"
            )
