"""Checkpoints of the train state: the latest one to go on from, the best one to use."""

import dataclasses
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from kamcl_jax import hosts
from kamcl_jax.train_state import TrainState

BEST_METRIC = "mR"
FOLDER = "checkpoints"
DAMAGED = "damaged_checkpoints"
"""Folder beside the checkpoints that takes those that cannot be read."""

Record = dict[str, Any]


def folder_of(workdir: Path) -> Path:
    """Returns where a run keeps its checkpoints."""
    return workdir / FOLDER


def silence_writers() -> None:
    """Keeps orbax's threads from printing errors: `Checkpoints` raises them, in one sentence."""
    print_error = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith("orbax."):
            print_error(error)

    threading.excepthook = hook


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or none that can be read; told in one sentence."""


class DamagedCheckpointError(CheckpointError):
    """What is stored of a checkpoint is not what was written."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint holds.

    Attributes:
      step: it was written after.
      state: of training.
      record: what else travels with it, of JSON's types.
    """

    step: int
    state: TrainState
    record: Record


class Checkpoints:
    """An orbax `CheckpointManager` that keeps the latest states and the best by validation mR.

    Each checkpoint holds the state, a JSON record of whatever must travel with it, and checksums
    of the state. Used in a `with` statement, whose end waits for the last write.
    """

    def __init__(self, directory: Path, keep: int = 2, *, read_only: bool = False):
        """Opens a folder of checkpoints.

        Args:
          directory: created if absent.
          keep: latest checkpoints to keep besides the best.
          read_only: leaves everything as it is, even what a killed process has not finished.

        Raises:
          CheckpointError: the folder cannot be opened.
        """
        policy = managers.AnyPreservationPolicy(
            [
                managers.LatestN(keep),
                managers.BestN(
                    get_metric_fn=lambda metrics: metrics[BEST_METRIC],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics[BEST_METRIC],
            best_mode="max",
            # What a killed process left unfinished.
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._directory = Path(directory).absolute()
        with _told("opened"):
            self._manager = ocp.CheckpointManager(
                epath.Path(self._directory), options=options, item_names=("state", "record")
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError:
            if kind is None:  # else what ended the block says more
                raise

    def save(self, state: TrainState, metrics: Mapping[str, float] | None, record: Record) -> None:
        """Writes the state in the background, under its step.

        Args:
          state: to write; it may be donated as soon as this returns.
          metrics: of validation, if there was one at this step.
          record: of JSON's types.

        Raises:
          CheckpointError: this or the last checkpoint cannot be written.
        """
        stored = {"record": record, "checksums": checksums(state)}
        with self._told_writing():
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(stored)
                ),
                metrics=None if metrics is None else dict(metrics),
                force=True,
            )

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, None without any."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest validation mR, None where none was validated."""
        self.wait()
        return self._manager.best_step()

    @property
    def best_or_latest(self) -> int:
        """Step of the best checkpoint, of the latest where none was validated.

        Raises:
          CheckpointError: there is none.
        """
        best = self.best
        step = self.latest if best is None else best
        if step is None:
            raise CheckpointError(f"{self._directory} holds no checkpoint")
        return step

    def score(self, step: int) -> float | None:
        """Returns the validation mR that a checkpoint was saved with, if any."""
        metrics = self._manager.metrics(step)
        return None if metrics is None else float(metrics[BEST_METRIC])

    def record(self, step: int) -> Record:
        """Returns the JSON record of a checkpoint.

        Raises:
          DamagedCheckpointError: it cannot be read.
        """
        return self._stored(step)["record"]

    def restore(self, step: int, like: TrainState, sharding: Any) -> Restored:
        """Reads a checkpoint.

        Args:
          step: of the checkpoint.
          like: a state (or its `jax.eval_shape`) of the same structure and shapes.
          sharding: where its arrays go: one for all, or a tree of them.

        Raises:
          DamagedCheckpointError: it cannot be read, its shapes are not those of `like`, or it is
            not what was written.
        """
        stored = self._stored(step)
        places = sharding if isinstance(sharding, TrainState) else _everywhere(like, sharding)
        target = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like, places
        )
        with self._told_reading(step):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
            )
        now = checksums(restored.state)
        changed = [name for name, value in stored["checksums"].items() if now.get(name) != value]
        if changed:
            raise DamagedCheckpointError(
                f"the checkpoint of step {step} in {self._directory} is damaged: "
                f"{changed[0]} is not what was written"
            )
        return Restored(step, restored.state, stored["record"])

    def set_aside(self, steps: list[int]) -> Path:
        """Moves checkpoints out of the way of later ones of the same steps; returns where to."""
        aside = self._directory.parent / DAMAGED
        if hosts.is_first():
            aside.mkdir(exist_ok=True)
            for step in steps:
                free = next(
                    path
                    for path in (aside / f"{step}{'_' * again}" for again in range(1000))
                    if not path.exists()
                )
                (self._directory / str(step)).rename(free)
        hosts.barrier(f"set_aside_{steps[0]}", timeout_seconds=600)
        self._manager.reload()
        return aside

    def wait(self) -> None:
        """Waits for the last write to end.

        Raises:
          CheckpointError: it failed.
        """
        with self._told_writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last write and releases the directory.

        Raises:
          CheckpointError: the write failed.
        """
        try:
            self.wait()
        finally:
            with self._told_writing():
                self._manager.close()

    def _stored(self, step: int) -> Record:
        with self._told_reading(step):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )
            stored = restored.record
            if not isinstance(stored["record"], dict) or not isinstance(stored["checksums"], dict):
                raise TypeError("its record is of another shape")
        return stored

    @contextmanager
    def _told_reading(self, step: int) -> Iterator[None]:
        try:
            yield
        # Of damaged files, libraries raise anything.
        except Exception as error:
            raise DamagedCheckpointError(
                f"the checkpoint of step {step} in {self._directory} is damaged: {_line(error)}"
            ) from error

    @contextmanager
    def _told_writing(self) -> Iterator[None]:
        with _told(f"written to {self._directory}", lambda: self._kept()):
            yield

    def _kept(self) -> str:
        finished = [int(p.name) for p in self._directory.glob("*") if p.name.isdigit()]
        if not finished:
            return "; there is none"
        return f"; the last one is of step {max(finished)}"


@contextmanager
def _told(what: str, kept=lambda: "") -> Iterator[None]:
    """Turns the errors of disks into one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    # Full disks and the like come as OSError, ValueError or JAX's own errors.
    except Exception as error:
        raise CheckpointError(f"a checkpoint cannot be {what}: {_line(error)}{kept()}") from error


def _line(error: BaseException) -> str:
    """Returns what went wrong in a line: TensorStore's messages hide it behind long paths."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _everywhere(like: TrainState, sharding: Any) -> Any:
    return jax.tree.map(lambda _: sharding, like)


def checksums(state: TrainState) -> dict[str, int]:
    """Returns the sum of the bits of each of a state's arrays, wrapped around at 2**32.

    It depends neither on the order of summation nor on the devices, and finds every changed bit.
    """
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    sums = jax.device_get(_sums_of_bits(jax.tree.leaves(state)))
    return {name: int(value) for name, value in zip(names, sums, strict=True)}


@jax.jit
def _sums_of_bits(leaves: list[jax.Array]) -> list[jax.Array]:
    return [
        jnp.sum(jax.lax.bitcast_convert_type(leaf, jnp.uint32), dtype=jnp.uint32) for leaf in leaves
    ]
