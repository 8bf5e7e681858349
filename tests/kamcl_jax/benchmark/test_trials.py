import pytest

from kamcl_jax.benchmark.trials import Budget, Timing, alternate


class FakeClock:
    """Actions take the time that they are told to."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def action(self, name, *seconds):
        durations = iter(seconds)

        def act():
            self.log.append(name)
            self.now += next(durations)

        return act


def test_actions_alternate_and_the_warming_up_is_not_timed():
    clock = FakeClock()
    actions = {"a": clock.action("a", 100, 5, 1, 2), "b": clock.action("b", 50, 7, 7, 9)}
    timings = alternate(actions, Budget(rounds=3, seconds=0), clock)
    assert "".join(clock.log) == "ab" + "ab" + "ba" + "ab"  # every second round runs backwards
    assert timings["a"].seconds == (5, 1, 2)
    assert timings["b"].median == 7
    quartiles = {"quartile_low": 1.5, "quartile_high": 3.5}
    assert timings["a"].summary() == {"seconds": 2, **quartiles, "trials": 3}
    assert Timing((3.0,)).quartiles == (3, 3)


@pytest.mark.parametrize(
    ("duration", "rounds"),
    [
        (10.0, 5),  # enough at once
        (2.0, 10),  # until 20 seconds are over
        (0.01, 100),  # but not for ever
        (50.0, 4),  # fewer, if they take too long
        (400.0, 3),
    ],
)
def test_the_budget_in_rounds_and_seconds(duration, rounds):
    clock = FakeClock()
    timings = alternate({"a": clock.action("a", *[duration] * 200)}, Budget(), clock)
    assert len(timings["a"].seconds) == rounds
