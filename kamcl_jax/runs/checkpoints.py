"""Checkpoints of the train state: the latest one to go on from, the best one to use."""

import contextlib
import errno
import itertools
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from kamcl_jax.errors import CheckpointError, ConfigError, DamagedCheckpointError
from kamcl_jax.parallel import hosts
from kamcl_jax.runs import folder
from kamcl_jax.runs.record import sums_of_bits
from kamcl_jax.step.state import TrainState

T = TypeVar("T")
BEST_METRIC = "mR"
FOLDER = "checkpoints"
DAMAGED = "damaged_checkpoints"
"""The folder beside the checkpoints that takes those that cannot be read."""

Record = dict[str, Any]
"""What travels with a state, of JSON's types."""

_OF_THE_MACHINE = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
"""The errors that do not mean that a checkpoint is damaged: another try may read it."""


def folder_of(workdir: Path) -> Path:
    """Returns where a run keeps its checkpoints."""
    return workdir / FOLDER


def finished_steps(directory: Path) -> list[int]:
    """Returns the steps of the whole checkpoints in a folder, ascending; none if it is absent."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit())


class Restored(NamedTuple):
    """What a checkpoint holds: the state of training, and what else travels with it."""

    state: TrainState
    record: Record


class Checkpoints:
    """An orbax `CheckpointManager` that keeps the latest states and the best by validation mR.

    Each checkpoint holds the state, a JSON record of whatever must travel with it, and checksums
    of the state. Use it in a `with` statement, whose end waits for the last write.
    """

    def __init__(self, directory: Path, keep: int = 2, *, read_only: bool = False):
        """Opens a folder of checkpoints, and makes it if it is absent.

        Args:
          directory: The folder.
          keep: How many of the latest checkpoints are kept besides the best.
          read_only: Leaves everything as it is, even what a killed process has not finished.
        """
        score = operator.itemgetter(BEST_METRIC)
        best = managers.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        self._directory = Path(directory).absolute()
        self._check_metrics(set_aside=not read_only)
        with _without_warnings():
            options = ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(keep), best]),
                best_fn=score,
                best_mode="max",
                read_only=read_only,
                cleanup_tmp_directories=not read_only,  # which a killed process has left
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
          state: The state, which may be donated as soon as this returns.
          metrics: The metrics of validation, if there was one at this step.
          record: What travels with the state.
        """
        stored = {"record": record, "checksums": sums_of_bits(state)}  # of what is frozen, too
        with self._failure_of_writing():
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state.saved), record=ocp.args.JsonSave(stored)
                ),
                metrics=None if metrics is None else dict(metrics),
                force=True,
            )

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None without any."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def best_or_latest(self) -> int:
        """The step of the best checkpoint, or of the latest where none was validated."""
        return self.best_first[0]

    @property
    def best_first(self) -> list[int]:
        """The steps of all checkpoints: the best first, then those not validated."""
        self.wait()
        scores = {step: self.score(step) for step in self.steps}
        validated = [step for step, score in scores.items() if score is not None]
        validated.sort(key=lambda step: (scores[step], step), reverse=True)
        return validated + [step for step in reversed(self.steps) if scores[step] is None]

    @property
    def last_whole(self) -> int | None:
        """The step of the newest checkpoint that is on the disk, whatever came of the last."""
        with contextlib.suppress(CheckpointError):
            self.wait()
        return self._finished[-1] if self._finished else None

    @property
    def _finished(self) -> list[int]:
        return finished_steps(self._directory)

    def score(self, step: int) -> float | None:
        """Returns the validation mR that a checkpoint was saved with, if any."""
        metrics = self._manager.metrics(step)
        return None if metrics is None else float(metrics[BEST_METRIC])

    def record(self, step: int) -> Record:
        """Returns the JSON record of a checkpoint."""
        return self._stored(step)["record"]

    def restore(self, step: int, like: TrainState, sharding: Any) -> Restored:
        """Reads a checkpoint; what is frozen is not in it, see `check_frozen`.

        Args:
          step: The step of the checkpoint.
          like: A state (or its `jax.eval_shape`) of the same structure and shapes.
          sharding: Where its arrays go: one sharding for all, or a tree of them.

        Raises:
          DamagedCheckpointError: It cannot be read, its shapes are not those of `like`, or it is
            not what was written.
        """
        fields, record = self._restore(step, _target(like, sharding).saved)
        return Restored(TrainState(**fields), record)

    def restore_fields(
        self, step: int, like: TrainState, sharding: Any, fields: Mapping[str, str]
    ) -> dict[str, Any]:
        """Reads some fields of a `TrainState` alone: what retrieves is a small part of it.

        `fields` gives the names in the result and the fields that they stand for. The other
        arguments and the errors are those of `restore`.
        """
        target = _target(like, sharding)
        wanted = {field: getattr(target, field) for field in fields.values()}
        restored, _ = self._restore(step, wanted)
        return {name: restored[field] for name, field in fields.items()}

    def check_frozen(self, step: int, frozen: Any, source: str) -> None:
        """Checks that frozen parameters are those beside which a checkpoint was written.

        Args:
          step: The step of the checkpoint.
          frozen: `TrainState.frozen`.
          source: Where they come from, for the error.

        Raises:
          CheckpointError: They are others.
        """
        if not frozen:
            return
        written, found = self._stored(step)["checksums"], sums_of_bits({"frozen": frozen})
        changed = [name for name, value in found.items() if written.get(name) != value]
        if changed:
            raise CheckpointError(
                f"{self._name_of(step)} holds only what was trained, and {source} does not give "
                f"the rest as it was then: {changed[0]} is another"
            )

    def _restore(self, step: int, target: Any) -> tuple[Any, Record]:
        stored = self._stored(step)
        arguments = ocp.args.PyTreeRestore(
            target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        with self._failure_of_reading(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(state=arguments)).state
        written = stored["checksums"]
        changed = [name for name, value in sums_of_bits(restored).items() if written[name] != value]
        if changed:
            raise DamagedCheckpointError(
                f"{self._name_of(step)} is damaged: {changed[0]} is not what was written"
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
        # Orbax reads the metrics of all steps at once, and damage of one would hide them all.
        damaged = [
            step
            for step in self._finished
            if not _readable_metrics(self._directory / str(step) / "metrics" / "metrics")
        ]
        if not damaged:
            return
        sentence = f"{self._name_of(damaged[0])} has damaged metrics"
        if not set_aside:
            raise DamagedCheckpointError(f"{sentence}; --mode=train sets it aside")
        hosts.say(f"note: {sentence}; moved to {self._move_aside(damaged)}")

    def wait(self) -> None:
        """Waits for the last write to end, and raises a `CheckpointError` if it failed."""
        with self._failure_of_writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits like `wait`, and releases the folder."""
        try:
            self.wait()
        finally:
            with self._failure_of_writing():
                self._manager.close()

    def _stored(self, step: int) -> Record:
        with self._failure_of_reading(step):
            arguments = ocp.args.Composite(record=ocp.args.JsonRestore())
            stored: Record = self._manager.restore(step, args=arguments).record
        if not isinstance(stored, dict):
            raise DamagedCheckpointError(f"the record of {self._name_of(step)} is damaged")
        if "checksums" not in stored:
            raise CheckpointError(
                f"{self._name_of(step)} was written by an earlier version of this program"
            )
        return stored

    def _name_of(self, step: int) -> str:
        return f"the checkpoint of step {step} in {self._directory}"

    @contextlib.contextmanager
    def _failure_of_reading(self, step: int) -> Iterator[None]:
        failure: Exception | None = None
        try:
            yield
        # Damaged files make the libraries raise anything.
        except Exception as error:
            failure = error
        # All processes give a checkpoint up, or none: else they would wait for each other.
        host = hosts.failing(failure is not None)
        if host is None:
            return
        which = self._name_of(step)
        if failure is None:
            raise DamagedCheckpointError(f"{which} cannot be read by host {host}")
        if _is_of_the_machine(failure):
            raise CheckpointError(f"{which} cannot be read: {_reason(failure)}") from failure
        raise DamagedCheckpointError(f"{which} is damaged: {_reason(failure)}") from failure

    @contextlib.contextmanager
    def _failure_of_writing(self) -> Iterator[None]:
        try:
            yield
        # Full disks and the like come as OSError, ValueError or JAX's own errors.
        except Exception as error:
            finished = self._finished
            kept = f"the last one is of step {finished[-1]}" if finished else "there is none"
            raise CheckpointError(
                f"a checkpoint cannot be written to {self._directory}: {_reason(error)}; {kept}"
            ) from error


@contextlib.contextmanager
def open_checkpoints(workdir: Path) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run to read them; there is at least one."""
    if not folder_of(workdir).is_dir():
        if folder.holds_exported_model(workdir):
            raise ConfigError(
                f"{workdir} is an exported model, without the checkpoints and data of its training;"
                " this needs the folder of the run that it was exported from"
            )
        raise ConfigError(f"{workdir} holds no checkpoints; train there first")
    with Checkpoints(folder_of(workdir), read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise ConfigError(f"{workdir} holds no finished checkpoint; train there first")
        yield checkpoints


def first_readable(
    steps: Iterable[int],
    read: Callable[[int], T],
    tell: Callable[[DamagedCheckpointError], None] = lambda error: None,
) -> T:
    """Reads the first of one or more checkpoints that is not damaged, and tells of those before."""
    *others, last = steps
    for step in others:
        try:
            return read(step)
        except DamagedCheckpointError as error:
            tell(error)
    return read(last)


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
    if not path.exists():  # the checkpoint was not validated
        return True
    try:
        return isinstance(json.loads(path.read_text())[BEST_METRIC], int | float)
    except (ValueError, TypeError, KeyError, OSError):
        return False


def _target(like: TrainState, sharding: Any) -> TrainState:
    is_tree = isinstance(sharding, TrainState)
    places = sharding if is_tree else jax.tree.map(lambda _: sharding, like)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like, places
    )


def _is_of_the_machine(error: Exception) -> bool:
    memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
    return memory or _system_code(error) in _OF_THE_MACHINE


def _reason(error: Exception) -> str:
    """Returns what went wrong in a line: TensorStore's messages hide it behind long paths."""
    code = _system_code(error)
    if code is not None:
        return os.strerror(code)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _system_code(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os_error_code='(\d+)'", str(error))  # as TensorStore says it
    return int(found[1]) if found else None
