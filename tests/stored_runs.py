"""Runs as a training leaves them, of random weights: what reads runs needs no training."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config

from kamcl_jax import best_checkpoint, from_config, run_record
from kamcl_jax.checkpoints import Checkpoints, folder_of
from kamcl_jax.history import History

STEPS_PER_EPOCH = 15
STEP = 2 * STEPS_PER_EPOCH


@dataclasses.dataclass(frozen=True)
class Runs:
    """Two runs on the same data, whose seeds differ.

    Attributes:
      one: folder of the run of seed 0.
      two: folder of the run of seed 1.
    """

    one: Path
    two: Path


def history():
    """Curves as a training has them."""
    rows = [{"step": step, "epoch": step / STEPS_PER_EPOCH} for step in range(5, STEP + 1, 5)]
    losses = [
        {
            **row,
            "loss": 90.0 - row["step"],
            "triplet": 9.0,
            "contrastive": 6.0,
            "alignment": math.sqrt(row["step"]),
        }
        for row in rows
    ]
    validated = [
        {"step": epoch * STEPS_PER_EPOCH, "epoch": float(epoch), "mR": 10.0 * epoch}
        for epoch in (1, 2)
    ]
    scores = dict.fromkeys((f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)), 10.0)
    return History(losses, [{**row, **scores} for row in validated], seconds=12.0)


def random_state(experiment):
    """A state drawn on the host: initialising a model as training does has to be compiled."""
    generator = np.random.default_rng(experiment.config.seed)

    def draw(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        if "var" in jax.tree_util.keystr(path[-1:]):
            return generator.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return (generator.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)

    state = jax.tree_util.tree_map_with_path(draw, experiment.abstract_state)
    return jax.device_put(state.replace(step=np.int32(STEP)), experiment.layout.state)


def store(config, workdir, encoders=None):
    """Makes a run with a checkpoint and a report.

    Args:
      config: of the run.
      workdir: of the run.
      encoders: compiled before, for the same model.

    Returns:
      The encoders.
    """
    experiment = from_config.build(config)
    encoders = encoders or best_checkpoint.make_encoders(experiment)
    with Checkpoints(folder_of(workdir)) as checkpoints:
        record = run_record.make(experiment, history())
        checkpoints.save(random_state(experiment), {"mR": 20.0}, record)
        best_checkpoint.report(experiment, checkpoints, encoders, history(), workdir)
    return encoders


@pytest.fixture(scope="session")
def stored_runs(tmp_path_factory) -> Runs:
    """Two runs; whoever changes one copies it first."""
    folder = tmp_path_factory.mktemp("runs")
    config = tiny_config()
    config.data.dir = str(folder / "data")
    config.num_epochs = 2
    config.mesh.data = 1
    encoders = store(config, folder / "one")
    config.seed = 1
    store(config, folder / "two", encoders)
    return Runs(folder / "one", folder / "two")
