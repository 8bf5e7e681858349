"""Kills trainings at random moments, goes on each time, and compares with one never killed.

python examples/kill_and_resume.py --kills=24 --seed=0 --workdir=runs/kill_and_resume

One training runs undisturbed. Others run in folders of their own: each is killed (SIGKILL, with
its whole process group) while it compiles, takes steps, validates, writes a checkpoint and makes
its report, and the same command goes on every time. In the end the last state, the history and the
scores must be those of the undisturbed one, bit for bit. `WORKDIR/kills.md` lists the kills.

All other flags are those of `main.py`: `--config=configs/rsicd.py
--config.checkpoint.every_steps=50` tests that training instead of a tiny one. `JAX_PLATFORMS` names
the devices, by default the CPU.
"""

import argparse
import dataclasses
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from absl import logging

from examples.watched_training import PHASES, ROOT, Schedule, Seen, Training
from kamcl_jax.config import build
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.runs import record as run_record
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of

TINY = (
    f"--config={ROOT / 'configs' / 'synthetic.py'}",
    "--config.batch_size=8",
    "--config.embedding_size=16",
    "--config.num_concepts=12",
    "--config.queue_length=16",
    "--config.image_encoder.width=4",
    "--config.text_encoder.word_width=6",
    "--config.text_encoder.hidden_width=10",
    "--config.schedule.alignment_from_epoch=1",
    "--config.data.options.train=24",
    "--config.data.options.validation=48",
    "--config.data.options.test=6",
    "--config.data.options.size=48",
    "--config.evaluation.batch_size=4",  # a validation lasts longer than a step
    "--config.num_epochs=4",
    # Several checkpoints an epoch, and logging intervals that a checkpoint interrupts.
    "--config.checkpoint.every_steps=7",
    "--config.log_every_steps=6",
)
"""The flags of the training that is killed by default: 60 steps of a whole but tiny KAMCL."""

_GLIMPSE = 0.02  # seconds


@dataclasses.dataclass(frozen=True)
class Result:
    """What must not depend on interruptions."""

    state: dict[str, np.ndarray]  # the arrays of the last checkpoint by name
    others: dict[str, Any]  # history and scores, of JSON's types


def result_of(workdir: Path) -> tuple[Result, Schedule]:
    """Reads what a finished run leaves, and compares its last state with the checksums."""
    with Checkpoints(folder_of(workdir), read_only=True) as checkpoints:
        latest = checkpoints.latest
        if latest is None:
            sys.exit(f"error: {workdir} holds no checkpoint")
        record = checkpoints.record(latest)
        experiment = build.build(build.on_these_devices(run_record.config_of(record)))
        state = checkpoints.restore(
            latest, experiment.abstract_state, experiment.layout.state
        ).state
    named = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    history = record["history"]
    others = {f"history: {name}": rows for name, rows in history.items() if name != "seconds"}
    metrics = json.loads((workdir / "report" / "metrics.json").read_text())
    others |= {f"metrics: {name}": value for name, value in metrics.items() if name != "seconds"}
    return (
        Result({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in named}, others),
        Schedule(record["steps_per_epoch"], latest),
    )


def differences(one: Result, other: Result) -> list[str]:
    """Returns the names of what differs, if only in the last bit."""
    names = [
        name
        for name in one.state.keys() | other.state.keys()
        if _bits(one.state.get(name)) != _bits(other.state.get(name))
    ]
    # As text: equal numbers have equal digits, and "not a number" equals itself.
    names += [
        name
        for name in one.others.keys() | other.others.keys()
        if json.dumps(one.others.get(name)) != json.dumps(other.others.get(name))
    ]
    return sorted(names)


def _bits(array: np.ndarray | None) -> Any:
    return None if array is None else (array.shape, array.dtype.str, array.tobytes())


@dataclasses.dataclass(frozen=True)
class Whole:
    """A training that was never killed."""

    result: Result
    schedule: Schedule
    seconds: dict[str, float]  # that each phase takes


@dataclasses.dataclass(frozen=True)
class Kill:
    """A moment at which a training was killed."""

    run: str  # the name of its folder
    output: Path  # what the process printed
    phases: str  # that it was in, and the one that was waited for if that had just ended
    step: int  # that it had started last
    seconds: float  # since its process started


class Trial:
    """Trainings of the same arguments below one folder."""

    def __init__(self, arguments: list[str], folder: Path):
        """Makes the folder for runs, outputs and compiled programs."""
        self._arguments, self._folder = arguments, folder
        (folder / "outputs").mkdir(parents=True)
        self._starts: dict[str, list[Path]] = {}

    def workdir(self, run: str) -> Path:
        """Returns the folder of a run."""
        return self._folder / run

    def outputs(self, run: str) -> list[Path]:
        """Returns the files with what the processes of a run printed, in their order."""
        return self._starts[run]

    def start(self, run: str, *, compiles: bool = False) -> Training:
        """Starts a training or goes on with it; it may compile anew what others have compiled."""
        outputs = self._starts.setdefault(run, [])
        outputs.append(self._folder / "outputs" / f"{run}_{len(outputs) + 1}.txt")
        compiled = None if compiles else self._folder / "compiled"
        return Training(self._arguments, self.workdir(run), outputs[-1], compiled)

    def finish(self, run: str) -> Result:
        """Goes on to the end of a run."""
        with self.start(run) as training:
            training.process.wait()
            training.check()
        return result_of(self.workdir(run))[0]

    def whole(self) -> Whole:
        """Trains undisturbed and measures the phases; compiles everything for later processes."""
        changes: list[tuple[float, Seen]] = []

        def changed(seen: Seen) -> bool:
            if not changes or changes[-1][1] != seen:
                changes.append((training.seconds, seen))
            return False

        with self.start("whole") as training:
            training.wait_for(changed)
            changes.append((training.seconds, changes[-1][1]))
            training.check()
        result, schedule = result_of(self.workdir("whole"))
        return Whole(result, schedule, _seconds(changes, schedule))

    def kill(
        self, run: str, phase: str, from_step: int, whole: Whole, random: np.random.Generator
    ) -> Kill | None:
        """Starts or goes on, and kills at a random moment of a phase.

        Args:
          run: The name of the run's folder.
          phase: The phase, of `PHASES`, for which it waits.
          from_step: The step that must have been started before; 0 for compiling.
          whole: The undisturbed training, which tells how long the phase takes.
          random: Draws the moment.

        Returns:
          The kill with the phases that it really fell into, or None if the training ended before.
        """
        compiles = phase == "compiling"
        with self.start(run, compiles=compiles) as training:

            def begun(seen: Seen) -> bool:
                return phase in whole.schedule.phases(seen) and seen.step >= from_step

            training.wait_for(begun)
            moment = training.seconds + random.uniform(0, whole.seconds[phase])
            # Where the phase is shorter this time, the end of it is a good moment, too.
            training.wait_for(
                lambda seen: training.seconds >= moment or phase not in whole.schedule.phases(seen)
            )
            seconds = training.seconds
            if not training.kill():
                training.check()
                return None
        seen = training.look()
        hit = " and ".join(whole.schedule.phases(seen))
        if phase not in hit:
            hit += f", after {phase}"
        return Kill(run, self.outputs(run)[-1], hit, seen.step, seconds)

    def goes_on_from(self, kill: Kill) -> str:
        """Returns where the next process that restored or began a state went on from."""
        starts = self.outputs(kill.run)
        for output in starts[starts.index(kill.output) + 1 :]:
            text = output.read_text(errors="replace")
            if found := re.search(r"going on from the checkpoint of (step \d+)", text):
                return found[1]
            if "starts from" in text:
                return "the start"
        return "-"


def _seconds(changes: list[tuple[float, Seen]], schedule: Schedule) -> dict[str, float]:
    """Returns how long a phase usually lasts at a stretch."""
    stretches: dict[str, list[float]] = {phase: [] for phase in PHASES}
    previous: list[str] = []
    for (since, seen), (until, _) in pairwise([(0.0, Seen()), *changes]):
        phases = schedule.phases(seen)
        for phase in phases:
            if phase not in previous:
                stretches[phase].append(0.0)
            stretches[phase][-1] += until - since
        previous = phases
    # Left out are the moments between a step's end and the folder of its checkpoint, and the first
    # of several stretches, which compiles.
    lasting = {phase: [x for x in found if x > _GLIMPSE] for phase, found in stretches.items()}
    return {
        phase: float(np.median(found[1:] or found or [_GLIMPSE]))
        for phase, found in lasting.items()
    }


def plan(schedule: Schedule, random: np.random.Generator) -> list[tuple[str, int]]:
    """Returns the kills of a run: each phase once, in random order, with the step to wait for."""
    order = random.permutation([phase for phase in PHASES if phase != "report"]).tolist()
    window = schedule.last / len(order)
    steps = [int(random.uniform(i, i + 1) * window) for i in range(len(order))]
    steps = [0 if x == "compiling" else step for x, step in zip(order, steps, strict=True)]
    return [*zip(order, steps, strict=True), ("report", schedule.last)]


def table(trial: Trial, kills: list[Kill]) -> str:
    """Returns the kills as a Markdown table."""
    rows = [
        [
            str(number),
            kill.run,
            kill.phases,
            str(kill.step),
            f"{kill.seconds:.2f}",
            trial.goes_on_from(kill),
        ]
        for number, kill in enumerate(kills, start=1)
    ]
    header = ["kill", "run", "while", "last step", "seconds after start", "next went on from"]
    return markdown_table(header, rows)


def main() -> None:
    """Kills, goes on and compares; the exit status is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=24, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workdir", type=Path, default=Path("runs/kill_and_resume"))
    flags, arguments = parser.parse_known_args()
    if flags.workdir.exists():
        sys.exit(f"error: --workdir={flags.workdir} exists; it must be a new folder")
    if not any(argument.split("=")[0] == "--config" for argument in arguments):
        arguments = [*TINY, f"--config.data.dir={flags.workdir.absolute() / 'data'}", *arguments]
    logging.set_verbosity(logging.ERROR)
    jax.config.update("jax_platforms", "cpu")
    random = np.random.default_rng(flags.seed)
    trial = Trial(arguments, flags.workdir.absolute())
    whole = trial.whole()
    seconds = ", ".join(f"{phase} {value:.2f}" for phase, value in whole.seconds.items())
    print(f"seconds of a phase: {seconds}", flush=True)
    kills: list[Kill] = []
    different: dict[str, list[str]] = {}
    runs = 0
    while len(kills) < flags.kills:
        runs += 1
        for phase, from_step in plan(whole.schedule, random)[: flags.kills - len(kills)]:
            kill = trial.kill(f"killed{runs}", phase, from_step, whole, random)
            if kill:
                kills.append(kill)
                print(f"{len(kills)}: {kill.run} in {kill.phases}, step {kill.step}", flush=True)
        result = trial.finish(f"killed{runs}")
        if differing := differences(whole.result, result):
            different[f"killed{runs}"] = differing
    verdict = f"{len(kills)} kills of {runs} trainings: " + (
        "; ".join(f"{run} differs in {', '.join(names)}" for run, names in different.items())
        or f"all {len(whole.result.state)} arrays of the state, the history and the scores are "
        "those of the training that was never killed, bit for bit"
    )
    text = f"{table(trial, kills)}\n\n{verdict}\n"
    (flags.workdir / "kills.md").write_text(text)
    print(text)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
