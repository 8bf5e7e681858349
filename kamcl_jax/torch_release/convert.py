"""Turns checkpoints of the PyTorch release into runs of ours, and runs into such checkpoints."""

from pathlib import Path

import jax
import ml_collections

from kamcl_jax.config import build, checks, fields
from kamcl_jax.config.build import Experiment
from kamcl_jax.config.encoders import TOWERS
from kamcl_jax.errors import ConfigError, PretrainedError
from kamcl_jax.parallel import mesh
from kamcl_jax.runs import folder as run_folder
from kamcl_jax.runs import record as run_record
from kamcl_jax.runs.checkpoints import BEST_METRIC, Checkpoints, folder_of, open_checkpoints
from kamcl_jax.runs.record import History
from kamcl_jax.torch_release import state_dict
from kamcl_jax.train import loop
from kamcl_jax.weights import tensor_files
from kamcl_jax.weights.tensor_files import Stored


def from_torch(config: ml_collections.ConfigDict, workdir: Path, source: Path) -> None:
    """Makes a run out of a checkpoint of the release, to evaluate or to train on.

    The checkpoint is a `.pth.tar` (which needs PyTorch) or a `.safetensors`, and the config
    describes it, as `configs/rsicd.py:release` does.
    """
    _check_towers(config)
    if config.learn_temperature:
        raise PretrainedError("the release learns no temperature; config.learn_temperature is True")
    run_folder.check_writable(workdir)
    folder = folder_of(workdir)
    if folder.exists():
        with Checkpoints(folder, read_only=True) as checkpoints:
            if checkpoints.latest is not None:
                raise ConfigError(f"{workdir} already holds a run; choose another --workdir")
    stored = tensor_files.read(source)
    experiment = build.build(config)
    _check_sizes(experiment, stored, source)
    state = state_dict.from_state_dict(stored.tensors, config, str(source))
    state = jax.device_put(state, experiment.layout.state)
    with run_folder.lock(workdir), Checkpoints(folder) as checkpoints:
        loop.write_config(experiment, workdir)
        score = {BEST_METRIC: stored.score or 0.0}
        checkpoints.save(state, score, run_record.make(experiment, History()))
    trained = "" if stored.epoch is None else f", epoch {stored.epoch}"
    scored = "" if stored.score is None else f", validation mR {stored.score:.2f}"
    print(f"{source}: {len(stored.tensors)} tensors, step {int(state.step)}{trained}{scored}")
    print(f"run: {workdir} (score it with --mode=evaluate and the same config)")


def to_torch(config: ml_collections.ConfigDict, workdir: Path, target: Path) -> None:
    """Writes a run's best checkpoint as the release stores its own; the data are not needed.

    With any suffix but `.safetensors` it has PyTorch's format, and needs PyTorch.
    """
    _check_towers(config)
    checks.check_config(config)
    tensor_files.check_format(target)
    if target.is_dir():
        raise ConfigError(f"--to_torch={target} is a folder; it must name a file")
    with open_checkpoints(workdir) as checkpoints:
        best = checkpoints.best_or_latest
        record = checkpoints.record(best)
        fields.check_against_checkpoint(config, record["config"])
        like = build.abstract_state(config, len(record["vocabulary"]) + 1, record["concept_width"])
        one_device = mesh.replicated(mesh.make_mesh(devices=jax.devices()[:1]))
        state = checkpoints.restore(best, like, one_device.whole).state
        score = checkpoints.score(best) or 0.0
    tensors = state_dict.to_state_dict(state)
    epoch = round(best / record["steps_per_epoch"])
    tensor_files.write(target, tensors, epoch=epoch, score=score)
    print(f"{target}: {len(tensors)} tensors of step {best}")


def _check_towers(config: ml_collections.ConfigDict) -> None:
    if config.encoders.preset:
        raise PretrainedError(
            "the release has the package's own encoders alone; config.encoders.preset is "
            f"{config.encoders.preset!r}"
        )
    for tower in [tower for tower in TOWERS if config[tower].module]:
        raise PretrainedError(
            "the release has the package's own encoders alone; "
            f"config.{tower}.module is {config[tower].module!r}"
        )


def _check_sizes(experiment: Experiment, stored: Stored, source: Path) -> None:
    """Refuses weights for other words or concepts, whose rows would stand for the wrong ones."""
    for name, ours, what in (
        (state_dict.EMBEDDING, len(experiment.data.vocabulary) + 1, "words and the padding"),
        (state_dict.CONCEPT_BIAS, experiment.data.num_concepts, "concepts"),
    ):
        if name in stored.tensors and len(stored.tensors[name]) != ours:
            raise PretrainedError(
                f"the tensor {name} of {source} has {len(stored.tensors[name])} rows, but the "
                f"config's data give {ours} ({what}); the release counts words as "
                "config.data.vocabulary_from='train_and_test' does, and always has "
                "config.data.pad_concepts"
            )
