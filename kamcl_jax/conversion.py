"""Turns checkpoints of the PyTorch release into runs of ours, and runs into such checkpoints."""

from pathlib import Path

import jax
import ml_collections

from kamcl_jax import config_check, from_config, sharding, training
from kamcl_jax.checkpoints import BEST_METRIC, Checkpoints
from kamcl_jax.config_check import ConfigError
from kamcl_jax.from_config import Experiment
from kamcl_jax.history import History
from kamcl_jax.pretrained import kamcl_torch, tensor_files
from kamcl_jax.pretrained.errors import PretrainedError
from kamcl_jax.pretrained.tensor_files import Stored
from kamcl_jax.train_state import TrainState


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
    config_check.check_workdir(workdir)
    folder = workdir / training.CHECKPOINT_FOLDER
    if folder.exists():
        with Checkpoints(folder) as checkpoints:
            if checkpoints.latest is not None:
                raise ConfigError(f"{workdir} already holds a run; choose another --workdir")
    stored = tensor_files.read(source)
    experiment = from_config.build(config)
    _check_sizes(experiment, stored, source)
    state = kamcl_torch.from_state_dict(stored.tensors, config, str(source))
    _check_pointers(config, state, source)
    state = jax.device_put(state, sharding.replicated(experiment.mesh))
    workdir.mkdir(parents=True, exist_ok=True)
    training.write_config(experiment, workdir)
    with Checkpoints(folder) as checkpoints:
        score = {BEST_METRIC: stored.score or 0.0}
        checkpoints.save(state, score, training.record(experiment, History()))
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
    config_check.check(config, num_devices=1)
    tensor_files.check_target(target)
    with training.open_checkpoints(workdir) as checkpoints:
        best = checkpoints.best
        assert best is not None  # open_checkpoints refuses a folder without any
        record = checkpoints.record(best)
        config_check.check_against_checkpoint(config, record["config"])
        like = from_config.abstract_state(
            config, len(record["vocabulary"]) + 1, record["concept_width"]
        )
        mesh = sharding.make_mesh(jax.devices()[:1])
        state = checkpoints.restore(best, like, sharding.replicated(mesh))
        score = checkpoints.score(best)
    tensors = kamcl_torch.to_state_dict(state)
    epoch = round(best / record["steps_per_epoch"])
    tensor_files.write(target, tensors, epoch=epoch, score=score)
    print(f"{target}: {len(tensors)} tensors of step {best}")


def _check_pointers(config: ml_collections.ConfigDict, state: TrainState, source: Path) -> None:
    """Refuses queues that batches of the config's size would not fill evenly."""
    for queue in (state.image_queue, state.text_queue):
        if int(queue.pointer) % config.batch_size:
            raise PretrainedError(
                f"the queues of {source} are filled to row {int(queue.pointer)}, which is no "
                f"multiple of config.batch_size {config.batch_size}"
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
