"""Checkpoints of the train state: the latest one to go on from, the best one to use."""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from kamcl_jax.errors import CheckpointError, ConfigError, DamagedCheckpointError
from kamcl_jax.parallel import hosts
from kamcl_jax.runs import disk_errors
from kamcl_jax.runs.checksums import checksums
from kamcl_jax.step.state import TrainState

T = TypeVar("T")
BEST_METRIC = "mR"
FOLDER = "checkpoints"
DAMAGED = "damaged_checkpoints"
"""Folder beside the checkpoints that takes those that cannot be read."""

Record = dict[str, Any]


def folder_of(workdir: Path) -> Path:
    """Returns where a run keeps its checkpoints."""
    return workdir / FOLDER


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
          DamagedCheckpointError: the metrics of a checkpoint cannot be read, and `read_only` keeps
            it from being set aside.
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
        self._directory = Path(directory).absolute()
        self._check_metrics(set_aside=not read_only)
        with _told("opened"), _without_warnings():
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=lambda metrics: metrics[BEST_METRIC],
                best_mode="max",
                # What a killed process left unfinished.
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            )
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
                    state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(stored)
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

    @property
    def best_first(self) -> list[int]:
        """Steps of all checkpoints: the validated ones, the best first, then the others."""
        self.wait()
        scores = {step: self.score(step) for step in self.steps}
        validated = [step for step, score in scores.items() if score is not None]
        validated.sort(key=lambda step: (scores[step], step), reverse=True)
        return validated + [step for step in reversed(self.steps) if scores[step] is None]

    @property
    def last_whole(self) -> int | None:
        """Step of the newest checkpoint that is completely written, whatever came of the last."""
        with contextlib.suppress(CheckpointError):
            self.wait()
        return self._finished[-1] if self._finished else None

    @property
    def _finished(self) -> list[int]:
        return sorted(int(path.name) for path in self._directory.glob("*") if path.name.isdigit())

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
        state, record = self._restore(step, _target(like, sharding))
        return Restored(step, state, record)

    def restore_fields(
        self, step: int, like: TrainState, sharding: Any, fields: Sequence[str]
    ) -> dict[str, Any]:
        """Reads some fields of a state alone: what retrieves is a small part of what trains.

        Args:
          step: of the checkpoint.
          like: as in `restore`.
          sharding: as in `restore`.
          fields: of `TrainState`.

        Raises:
          DamagedCheckpointError: as in `restore`.
        """
        target = _target(like, sharding)
        return self._restore(step, {field: getattr(target, field) for field in fields})[0]

    def _restore(self, step: int, target: Any) -> tuple[Any, Record]:
        """Reads what `target` has of the state, and the record."""
        stored = self._stored(step)
        arguments = ocp.args.PyTreeRestore(
            target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        with self._told_reading(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(state=arguments)).state
        written = stored["checksums"]
        changed = [name for name, value in checksums(restored).items() if written[name] != value]
        if changed:
            raise DamagedCheckpointError(
                f"the checkpoint of step {step} in {self._directory} is damaged: "
                f"{changed[0]} is not what was written"
            )
        return restored, stored["record"]

    def set_aside(self, steps: list[int]) -> Path:
        """Moves checkpoints out of the way of later ones of the same steps; returns where to."""
        aside = self._move_aside(steps)
        self._manager.reload()
        return aside

    def _move_aside(self, steps: list[int]) -> Path:
        aside = self._directory.parent / DAMAGED
        if hosts.is_first():
            aside.mkdir(exist_ok=True)
            for step in steps:
                names = (f"{step}{'_' * again}" for again in itertools.count())
                free = next(aside / name for name in names if not (aside / name).exists())
                (self._directory / str(step)).rename(free)
        hosts.barrier("damaged checkpoints", timeout_seconds=600)
        return aside

    def _check_metrics(self, *, set_aside: bool) -> None:
        """Finds metrics that orbax, which reads those of all steps at once, would stumble over."""
        damaged = [
            step
            for step in self._finished
            if not _readable_metrics(self._directory / str(step) / "metrics" / "metrics")
        ]
        if not damaged:
            return
        sentence = f"the checkpoint of step {damaged[0]} in {self._directory} has damaged metrics"
        if not set_aside:
            raise DamagedCheckpointError(f"{sentence}; --mode=train sets it aside")
        hosts.say(f"note: {sentence}; moved to {self._move_aside(damaged)}")

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
            if not isinstance(stored, dict):
                raise TypeError("its record is of another shape")
        if "checksums" not in stored:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._directory} was written by an earlier "
                "version of this program"
            )
        return stored

    @contextlib.contextmanager
    def _told_reading(self, step: int) -> Iterator[None]:
        failure: Exception | None = None
        try:
            yield
        # Of damaged files, libraries raise anything.
        except Exception as error:
            failure = error
        # All processes give a checkpoint up, or none: else they would wait for each other.
        host = hosts.failing(failure is not None)
        if host is None:
            return
        which = f"the checkpoint of step {step} in {self._directory}"
        if failure is None:
            raise DamagedCheckpointError(f"{which} cannot be read by host {host}")
        if disk_errors.is_of_machine(failure):
            raise CheckpointError(
                f"{which} cannot be read: {disk_errors.reason(failure)}"
            ) from failure
        raise DamagedCheckpointError(
            f"{which} is damaged: {disk_errors.reason(failure)}"
        ) from failure

    @contextlib.contextmanager
    def _told_writing(self) -> Iterator[None]:
        with _told(f"written to {self._directory}", self._kept):
            yield

    def _kept(self) -> str:
        finished = self._finished
        return f"; the last one is of step {finished[-1]}" if finished else "; there is none"


@contextlib.contextmanager
def _told(what: str, kept: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turns the errors of disks into one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    # Full disks and the like come as OSError, ValueError or JAX's own errors.
    except Exception as error:
        raise CheckpointError(
            f"a checkpoint cannot be {what}: {disk_errors.reason(error)}{kept()}"
        ) from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps orbax from warning of what `read_only` means."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _readable_metrics(path: Path) -> bool:
    """Whether a checkpoint's metrics can be read, or it has none, as it was not validated."""
    if not path.exists():
        return True
    try:
        return isinstance(json.loads(path.read_text())[BEST_METRIC], int | float)
    except (ValueError, TypeError, KeyError, OSError):
        return False


def _target(like: TrainState, sharding: Any) -> TrainState:
    places = sharding
    if not isinstance(sharding, TrainState):
        places = jax.tree.map(lambda _: sharding, like)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like, places
    )


@contextlib.contextmanager
def open_checkpoints(workdir: Path) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run to read them; there is at least one.

    Raises:
      ConfigError: there is none.
    """
    folder = folder_of(workdir)
    if not folder.is_dir():
        raise ConfigError(f"{workdir} holds no checkpoints; train there first")
    with Checkpoints(folder, read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise ConfigError(f"{workdir} holds no finished checkpoint; train there first")
        yield checkpoints


def first_readable(
    steps: Iterable[int],
    read: Callable[[int], T],
    tell: Callable[[DamagedCheckpointError], None] = lambda error: None,
) -> T:
    """Reads the first of one or more checkpoints that is not damaged.

    Raises:
      DamagedCheckpointError: the last of them is damaged, too.
    """
    *others, last = steps
    for step in others:
        try:
            return read(step)
        except DamagedCheckpointError as error:
            tell(error)
    return read(last)
