"""Checkpoints of the train state: the latest one to go on from, the best one to use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from orbax.checkpoint import checkpoint_managers as managers

from kamcl_jax.train_state import TrainState

BEST_METRIC = "mR"


class Checkpoints:
    """An orbax `CheckpointManager` that keeps the latest states and the best by validation mR.

    Each checkpoint holds the state and a JSON record of whatever must travel with it. Used in a
    `with` statement, whose end waits for the last write.
    """

    def __init__(self, directory: Path, keep: int = 1):
        """Opens or creates `directory`, keeping `keep` latest checkpoints besides the best."""
        policy = managers.AnyPreservationPolicy(
            [
                managers.LatestN(keep),
                managers.BestN(get_metric_fn=lambda metrics: metrics[BEST_METRIC], n=1),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics[BEST_METRIC],
            best_mode="max",
        )
        self._manager = ocp.CheckpointManager(
            Path(directory).absolute(), options=options, item_names=("state", "record")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, state: TrainState, metrics: Mapping[str, float], record: dict[str, Any]) -> None:
        """Writes the state in the background, under its step; `metrics` are of validation."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
            ),
            metrics=dict(metrics),
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, None without any."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest validation mR, None without any."""
        self.wait()
        return self._manager.best_step()

    def score(self, step: int) -> float:
        """Returns the validation mR that a checkpoint was saved with."""
        metrics = self._manager.metrics(step)
        assert metrics is not None  # save() asks for them
        return float(metrics[BEST_METRIC])

    def record(self, step: int) -> dict[str, Any]:
        """Returns the JSON record of a checkpoint."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
        )
        return restored.record

    def restore(self, step: int, like: TrainState, sharding: Sharding) -> TrainState:
        """Reads a state.

        Args:
          step: of the checkpoint.
          like: a state (or its `jax.eval_shape`) of the same structure and shapes.
          sharding: where all its arrays go.

        Raises:
          ValueError: the stored shapes are not those of `like`.
        """
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
        )
        return restored.state

    def wait(self) -> None:
        """Waits for the last write to end."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last write and releases the directory."""
        self.wait()
        self._manager.close()
