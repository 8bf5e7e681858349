"""One of our trainings without the loop around it: steps on one batch, or on those of an epoch."""

import contextlib
import dataclasses
from collections.abc import Iterable

import jax
import ml_collections

from input_pipeline.splits.batches import prefetched
from kamcl_jax.benchmark import subject
from kamcl_jax.benchmark.step_parts import WHOLE, Steps
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.config import build
from kamcl_jax.step.encoding import Batch
from kamcl_jax.train import feed
from kamcl_jax.train.feed import Fetch


@dataclasses.dataclass(frozen=True)
class Training:
    """A compiled step with its state, which goes from each step to the next."""

    subject: Subject
    steps: Steps

    @classmethod
    def of(cls, config: ml_collections.ConfigDict) -> "Training":
        """Compiles a config's step and draws random weights."""
        made = subject.make(config)
        return cls(made, Steps(made))

    def take(self, count: int) -> None:
        """Takes so many steps on one batch and waits for the last."""
        self.take_on(self.steps.variants[WHOLE].batch for _ in range(count))

    def take_on(self, batches: Iterable[Batch]) -> list[jax.Array]:
        """Takes a step on each batch, waits for the last, and returns the losses f32[]."""
        compiled, losses = self.steps.variants[WHOLE].compiled, []
        for batch in batches:
            self.steps.state, metrics = compiled(self.steps.state, batch)
            losses.append(metrics["loss"])
        jax.block_until_ready(self.steps.state)
        return losses

    def take_with_input(self, fetch: Fetch, steps: Iterable[int]) -> list[jax.Array]:
        """Takes the steps of these numbers as a training does, their batches made ahead."""
        with contextlib.closing(prefetched(fetch, steps)) as batches:
            return self.take_on(batches)

    def open_feed(self, residency: str) -> Fetch:
        """Returns how batches are fetched with this `config.data.residency`."""
        config = ml_collections.ConfigDict(self.subject.config.to_dict())
        config.data.residency = residency
        return feed.choose(build.build(config), self.steps.memory.peak).open()
