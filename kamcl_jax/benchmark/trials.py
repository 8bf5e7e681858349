"""Times several actions in turn, so that a machine that slows down slows all of them down."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping

Action = Callable[[], object]
"""Does the work and waits for its end; what it returns is forgotten."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long an action took: the seconds of each trial, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds of the middle trial."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds that a quarter and that three quarters of the trials stay below."""
        if len(self.seconds) == 1:
            return self.seconds * 2  # type: ignore[return-value]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def summary(self) -> dict[str, float | int]:
        """Returns what a report keeps of it."""
        low, high = self.quartiles
        quartiles = {"quartile_low": low, "quartile_high": high}
        return {"seconds": self.median, **quartiles, "trials": len(self.seconds)}


@dataclasses.dataclass(frozen=True)
class Budget:
    """How often a group of actions is timed."""

    rounds: int = 5  # at least
    seconds: float = 20.0  # how long further rounds follow
    most_seconds: float = 180.0  # then three rounds are enough
    most_rounds: int = 100

    def is_spent(self, rounds: int, elapsed: float) -> bool:
        """Returns whether so many rounds in so many seconds are enough."""
        if rounds >= self.most_rounds:
            return True
        if rounds >= self.rounds:
            return elapsed >= self.seconds
        return rounds >= 3 and elapsed >= self.most_seconds


def alternate(
    actions: Mapping[str, Action],
    budget: Budget | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times actions in rounds: each once a round, every second round in reverse order.

    Which action comes right after which is then no advantage of any. Each is done once before,
    untimed. All have the same number of trials.
    """
    budget = budget or Budget()
    for act in actions.values():
        act()
    trials: dict[str, list[float]] = {name: [] for name in actions}
    order, rounds, started = list(actions), 0, clock()
    while actions and not budget.is_spent(rounds, clock() - started):
        for name in order:
            before = clock()
            actions[name]()
            trials[name].append(clock() - before)
        order.reverse()
        rounds += 1
    return {name: Timing(tuple(seconds)) for name, seconds in trials.items()}
