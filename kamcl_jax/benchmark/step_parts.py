"""Where a training step's time goes.

A tower's time is the step's minus that of a step without it. There the tower gives way, for the
queries or for the keys, to a stand-in with one small linear map; its parameters stay, so that
averaging and Adam have as much to do, and the losses compute the same gradients. Both steps are
compiled from `train_step.train_step`. What comes before and after the towers (augmentation, losses,
update) is short and would drown in the noise of a difference: it is timed alone, compiled from the
functions that the step calls.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.benchmark import roofline
from kamcl_jax.benchmark.roofline import Cost
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.benchmark.trials import Action, Timing
from kamcl_jax.config import build
from kamcl_jax.models.towers import DualEncoder, Encoded
from kamcl_jax.parallel import compilation, mesh
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import momentum
from kamcl_jax.step.encoding import Batch, Encodings
from kamcl_jax.step.key_queue import PairIds
from kamcl_jax.step.objective import compare, weighted_sum
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import StepSettings, augment, make_train_step, update

WHOLE, LOSSES, REST = "whole step", "losses", "rest"
AUGMENTATION, UPDATE = "augmentation", "update"
IMAGE_QUERIES, IMAGE_KEYS, TEXT = "image queries", "image keys", "text"

LEFT_OUT = (IMAGE_QUERIES, IMAGE_KEYS, TEXT)
"""Parts whose time is the step's minus that of a step without them."""

ALONE = (AUGMENTATION, LOSSES, UPDATE)
"""Parts that are timed alone."""

PARTS = (AUGMENTATION, IMAGE_QUERIES, IMAGE_KEYS, TEXT, LOSSES, UPDATE)

_STAND_IN = "stand_in"
_REPLACED = {
    IMAGE_QUERIES: (("image",), ()),
    IMAGE_KEYS: ((), ("image",)),
    TEXT: (("text",), ("text",)),
}
"""Part -> the towers that are replaced, for queries and for keys."""


class Replaceable(nn.Module):
    """A tower that gives way to a stand-in where its statistics hold the stand-in's kernel.

    Queries and keys have statistics of their own, so that either can be replaced. The tower is an
    image or text encoder; its parameters keep their names.
    """

    tower: nn.Module

    def setup(self) -> None:
        """Puts the tower's parameters where this module's would be."""
        nn.share_scope(self, self.tower)

    def __call__(self, *inputs: jax.Array, train: bool) -> Encoded:
        """Encodes as the tower does, or maps the last input by the kernel f32[F, E + N]."""
        if not self.has_variable("batch_stats", _STAND_IN):
            return self.tower(*inputs, train=train)
        kept: Any = self.get_variable("batch_stats", _STAND_IN)
        kernel, width = kept["kernel"], kept["width"].shape[0]
        features = inputs[-1].astype(kernel.dtype)
        if features.ndim == 4:
            features = features.mean((1, 2))
        # A parameter takes part: without one the gradient of the losses would be left out, too.
        learned = min(jax.tree.leaves(self.variables["params"]), key=lambda leaf: leaf.size)
        outputs = features @ kernel + learned.mean().astype(kernel.dtype)
        return outputs[:, :width], jax.nn.sigmoid(outputs[:, width:])


def replaceable(model: DualEncoder) -> DualEncoder:
    """Returns the model with towers that can give way to stand-ins."""
    return model.clone(image=Replaceable(model.image), text=Replaceable(model.text))


def stand_in(features: int, embedding_size: int, num_concepts: int) -> dict[str, jax.Array]:
    """Returns the statistics that replace a tower whose stand-in reads so many features."""
    shape = (features, embedding_size + num_concepts)
    kernel = jax.random.normal(jax.random.key(0), shape) / features**0.5
    # The widths are told by a shape, the only thing that is known while compiling.
    return {"kernel": kernel, "width": jnp.zeros((embedding_size, 0))}


def own_statistics(
    part: str, state: TrainState, num_concepts: int, embedding_size: int
) -> dict[str, Any]:
    """Returns the fields of a state that replace the towers of a part, one of `LEFT_OUT`."""
    features = {"image": 3, "text": num_concepts}

    def replaced(statistics: Any, towers: tuple[str, ...]) -> Any:
        kept = {name: stats for name, stats in statistics.items() if name not in towers}
        stand_ins = {
            tower: {_STAND_IN: stand_in(features[tower], embedding_size, num_concepts)}
            for tower in towers
        }
        # Copies: the state is donated to the step.
        return {**jax.tree.map(jnp.copy, kept), **stand_ins}

    queries, keys = _REPLACED[part]
    return {
        "batch_stats": replaced(state.batch_stats, queries),
        "key_batch_stats": replaced(state.key_batch_stats, keys),
    }


@dataclasses.dataclass
class Variant:
    """A compiled step, whole or without a part."""

    compiled: Any
    batch: Any
    own: dict[str, Any]  # the fields of the state that the variant has for itself


class Steps:
    """The whole step and those without a part, on one state that goes from each to the next."""

    def __init__(self, subject: Subject):
        """Compiles the whole step, and measures how long that takes."""
        self._subject = subject
        self.state, self.layout = first_state(subject)
        self.variants: dict[str, Variant] = {}
        layout = self.layout
        step = make_train_step(subject.model, subject.optimizer, subject.settings, layout)
        batch = mesh.put_batch(layout, subject.batch)
        started = time.perf_counter()
        compiled = _compile(step, self.state, batch, layout)
        self.compile_seconds = time.perf_counter() - started
        self.variants[WHOLE] = Variant(compiled, batch, {})
        self.cost: Cost = roofline.compiled_cost(compiled)
        loops = roofline.uncounted_loop_cost(step.trace(self.state, batch).jaxpr, subject.longest)
        self.loop_cost: Cost = loops / layout.mesh.size
        self.memory = compilation.memory(compiled)

    def add(self, part: str) -> None:
        """Compiles the step without one of `LEFT_OUT`."""
        subject = self._subject
        sizes = (subject.num_concepts, subject.config.embedding_size)
        own = own_statistics(part, self.state, *sizes)
        state = self.state.replace(**own)
        layout = build.make_layout(subject.config, subject.mesh, _abstract(state))
        own = {n: jax.device_put(value, getattr(layout.state, n)) for n, value in own.items()}
        step = make_train_step(
            replaceable(subject.model), subject.optimizer, subject.settings, layout
        )
        batch = self.variants[WHOLE].batch
        self.variants[part] = Variant(_compile(step, state, batch, layout), batch, own)

    def actions(self) -> dict[str, Action]:
        """Returns what takes a step of each variant, and what does each of `ALONE`."""
        return {
            **{name: partial(self._take, name) for name in self.variants},
            AUGMENTATION: self._augmentation(),
            LOSSES: self._losses(),
            UPDATE: self._update(),
        }

    def _take(self, name: str) -> None:
        variant = self.variants[name]
        shared = {field: getattr(self.state, field) for field in variant.own}
        after, _ = variant.compiled(self.state.replace(**variant.own), variant.batch)
        variant.own = {field: getattr(after, field) for field in variant.own}
        self.state = jax.block_until_ready(after.replace(**shared))

    def _augmentation(self) -> Action:
        augment = augmenter(self._subject.settings, self.layout)
        batch = self.variants[WHOLE].batch
        return lambda: jax.block_until_ready(augment(batch))

    def _losses(self) -> Action:
        settings, layout = self._subject.settings, self.layout

        @jax.jit
        def compute(queries: Encodings, keys: Encodings, state: TrainState, batch: Batch) -> Any:
            def loss(queries: Encodings) -> jax.Array:
                queues = (state.image_queue, state.text_queue)
                compared = compare(
                    queries, keys, batch, *queues, state.step, settings.contrast, layout
                )
                return weighted_sum(settings.terms, compared)["loss"]

            return jax.value_and_grad(loss)(queries)

        queries, keys = (self._encodings(seed) for seed in (0, 1))
        batch = self.variants[WHOLE].batch
        batch = {**batch, "image": augmenter(settings, layout)(batch)}
        return lambda: jax.block_until_ready(compute(queries, keys, self.state, batch))

    def _update(self) -> Action:
        optimizer, settings = self._subject.optimizer, self._subject.settings
        batch = self.variants[WHOLE].batch
        ids = PairIds.of_batch(batch) if settings.contrast.needs_ids else None

        def move(state: TrainState, gradients: Any, keys: Encodings, ids: Any) -> TrainState:
            key_params = momentum.average(
                state.key_params, state.params, settings.momentum, settings.momentum_mask
            )
            return update(state, gradients, keys, optimizer, ids).replace(key_params=key_params)

        places = self.layout.state
        compiled = jax.jit(
            move,
            in_shardings=(places, places.params, None, None),
            out_shardings=places,
            donate_argnums=0,
        )
        gradients = jax.tree.map(lambda x: 1e-3 * jnp.ones_like(x), self.state.params)
        keys = self._encodings(1)

        def run() -> None:
            self.state = jax.block_until_ready(compiled(self.state, gradients, keys, ids))

        return run

    def _encodings(self, seed: int) -> Encodings:
        subject = self._subject
        batch, embedding_size = len(subject.batch["lengths"]), subject.config.embedding_size
        drawn = random_encodings(seed, batch, embedding_size, subject.num_concepts)
        return jax.device_put(drawn, self.layout.batch)


def first_state(subject: Subject) -> tuple[TrainState, Layout]:
    """Returns the state at step 0 with random weights, and where it and its batches lie."""
    config, concepts = subject.config, subject.num_concepts
    make = partial(build.make_state, config, subject.model, subject.optimizer, concepts)
    layout = build.make_layout(config, subject.mesh, jax.eval_shape(make))
    return build.run_once(make, layout.state), layout


def augmenter(settings: StepSettings, layout: Layout) -> Callable[[Batch], jax.Array]:
    """Returns what makes a step's images f32[B, S, S, 3] of a batch."""
    compiled = jax.jit(partial(augment, settings=settings), out_shardings=layout.batch)
    return partial(compiled, jax.random.key(0))


def random_encodings(seed: int, batch: int, embedding_size: int, num_concepts: int) -> Encodings:
    """Returns unit vectors f32[B, E] and probabilities f32[B, N]."""
    vectors_key, concepts_key = jax.random.split(jax.random.key(seed))
    vectors = jax.random.normal(vectors_key, (2, batch, embedding_size))
    vectors /= jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    concepts = jax.random.uniform(concepts_key, (2, batch, num_concepts))
    return Encodings(*vectors, *concepts)


def split(timings: dict[str, Timing]) -> dict[str, float]:
    """Returns the seconds of each of `PARTS`, and the `REST`; they add up to the whole step.

    A part that is lost in the noise may come out negative; nothing is cut off.
    """
    whole = timings[WHOLE].median
    parts = {
        part: timings[part].median if part in ALONE else whole - timings[part].median
        for part in PARTS
    }
    return {**parts, REST: whole - sum(parts.values())}


def _compile(step: Any, state: TrainState, batch: Any, layout: Layout) -> Any:
    return compilation.compile_step(step, _abstract(state), _abstract(batch), layout)


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
