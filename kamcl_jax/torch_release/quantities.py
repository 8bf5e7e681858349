"""What our modules and our training step make of the golden inputs, under the golden file's names.

Everything is computed by what users run: the Flax modules built by `from_config`, the step made by
`make_train_step`, both driven by a config.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from kamcl_jax.config import build
from kamcl_jax.models import layers
from kamcl_jax.models.gpo import GPO
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import momentum
from kamcl_jax.step.losses import Logits
from kamcl_jax.step.objective import Comparison
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import TrainStep, make_train_step
from kamcl_jax.torch_release import golden_inputs, state_dict
from kamcl_jax.weights.torch_layout import StateDict

Quantities = dict[str, np.ndarray]

HostBatch = dict[str, np.ndarray]
"""As `train_step.Batch`, its images prepared, in host memory."""

COVERAGE_OF_MODE = {"release": "release", "paper": "all"}
"""The file's mode -> `config.momentum_coverage`: all that its two modes differ in."""

LOSSES = ("total", "triplet", "info_nce_sum", "concept_bce")
"""The terms that the original's loss function returns, in its order; see `loss_terms`."""

OUTPUTS = ("visual", "visual_concept", "text", "text_concept", "sims")
"""What the encoders return of a batch, and its cosines."""

_STAGES = {
    "final": ("image", "aggregator", "final_gpo"),
    "low": ("image", "aggregator", "low_linear"),
    "high": ("image", "aggregator", "high_linear"),
    "states": ("text", "skip_thoughts"),
    "pooled": ("text", "word_gpo"),
}


@dataclasses.dataclass(frozen=True)
class GoldenRun:
    """What a golden file was made from.

    Attributes:
      seed: of weights and batches.
      batch_size: B.
      epochs: the epoch that each step belongs to, one step an entry.
      learning_rate: of Adam, constant.
      epsilon: of Adam.
      loss_columns: the loss terms, in the file's order.
      tensor_names: state_dict entries whose values are recorded.
      gradient_names: parameters whose gradients are recorded.
      modes: keys of `COVERAGE_OF_MODE`.
      pool_lengths: numbers of items for which pooling weights are recorded.
      caption_lengths: words of the shortest and of the longest caption that may be drawn.
    """

    seed: int
    batch_size: int
    epochs: tuple[int, ...]
    learning_rate: float
    epsilon: float
    loss_columns: tuple[str, ...] = ()
    tensor_names: tuple[str, ...] = ()
    gradient_names: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    pool_lengths: tuple[int, ...] = ()
    caption_lengths: tuple[int, int] = golden_inputs.CAPTION_LENGTHS

    def batch(self, number: int) -> HostBatch:
        """Draws the batch of a step, from 0; see `golden_inputs.batch`."""
        return golden_inputs.batch(number, self.seed, self.batch_size, self.caption_lengths)

    def records_state_after(self, steps: int) -> bool:
        """Returns whether the whole state is recorded after so many steps: one, or all."""
        return steps in (1, len(self.epochs))


def compute(run: GoldenRun, config: ml_collections.ConfigDict, dtype: type) -> Quantities:
    """Computes every quantity of a golden file.

    Args:
      run: what the file was made from.
      config: of the release; its optimiser, dropout, batch and momentum coverage are set to the
        file's.
      dtype: of weights and batches, `numpy.float32` or `numpy.float64`, and so of all arithmetic.
    """
    with jax.enable_x64(dtype == np.float64):
        tensors = initial_tensors(config, run.seed)
        state = cast(state_dict.from_state_dict(tensors, config_of_run(config, run)), dtype)
        unused = cast(unused_tensors(tensors, state), dtype)
        del tensors  # in float64 memory is tight on a laptop
        batches = [cast(batch, dtype) for batch in padded_batches(run)]
        quantities = evaluation_quantities(run, config, state, batches[0])
        for mode in run.modes:
            config_of_mode = config_of_run(config, run, COVERAGE_OF_MODE[mode])
            of_mode = training_quantities(run, config_of_mode, state, unused, batches)
            quantities |= {f"{mode}/{name}": value for name, value in of_mode.items()}
    return quantities


def initial_tensors(config: ml_collections.ConfigDict, seed: int) -> StateDict:
    """Draws the whole state_dict of a seed."""
    shapes = state_dict.tensor_shapes(
        config, golden_inputs.VOCABULARY_SIZE + 1, golden_inputs.NUM_CONCEPTS
    )
    return {name: golden_inputs.tensor(name, shape, seed) for name, shape in shapes.items()}


def cast(tree: Any, dtype: type) -> Any:
    """Casts the floating-point leaves of a tree."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def config_of_run(
    config: ml_collections.ConfigDict, run: GoldenRun, momentum_coverage: str = "all"
) -> ml_collections.ConfigDict:
    """Returns a config with the numbers of a golden run; one epoch is one step."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.batch_size = run.batch_size
    config.momentum_coverage = momentum_coverage
    config.text_encoder.dropout = 0.0
    config.optimizer.learning_rate = run.learning_rate
    config.optimizer.decay_factor = 1.0
    config.optimizer.epsilon = run.epsilon
    return config


def padded_batches(run: GoldenRun) -> list[HostBatch]:
    """Returns the run's batches, captions padded to one length so that one compilation serves."""
    batches = [run.batch(number) for number in range(len(run.epochs))]
    longest = max(batch["tokens"].shape[1] for batch in batches)
    for batch in batches:
        missing = longest - batch["tokens"].shape[1]
        batch["tokens"] = np.pad(batch["tokens"], ((0, 0), (0, missing)))
    return batches


def evaluation_quantities(
    run: GoldenRun, config: ml_collections.ConfigDict, state: TrainState, batch: HostBatch
) -> Quantities:
    """Returns the outputs of every stage in evaluation mode, and pooling weights."""
    outputs = jax.device_get(encode_stages(config, state, batch))
    outputs |= condense_states(outputs.pop("states")[:, : batch["lengths"].max()])
    gpo = {"params": state.params["image"]["aggregator"]["gpo"]}
    for length in run.pool_lengths:
        count = jnp.array([length])
        weights = GPO().apply(gpo, count, length, method="weights")
        outputs[f"pool_weights_{length}"] = np.asarray(weights)[0]
    return {f"eval/{name}": value for name, value in outputs.items()}


def condense_states(states: np.ndarray) -> Quantities:
    """Condenses all states of the text GRU, f32[B, T, H], to means and first values."""
    return {
        "skipthoughts_mean": states.mean(axis=-1, dtype=np.float64),
        "skipthoughts_head": states[..., :8],
    }


def encode_stages(
    config: ml_collections.ConfigDict, state: TrainState, batch: HostBatch
) -> dict[str, jax.Array]:
    """Encodes a batch in evaluation mode.

    Returns:
      `final`, `low`, `high`: the levels of the image network, f32[B, E]; `states`: of the GRU,
      f32[B, T, H]; `sentence`: f32[B, E]; `visual`, `text`: hybrid embeddings f32[B, E];
      `visual_concept`, `text_concept`: f32[B, N]; `sims`: their cosines f32[B, B].
    """
    num_tokens = len(state.params["text"]["skip_thoughts"]["embedding"])
    model = build.make_model(config, num_tokens, batch["word_concepts"].shape[1])

    @jax.jit
    def encode(variables, batch):
        inputs = [batch[name] for name in ("image", "tokens", "lengths", "word_concepts")]
        (image, text), captured = model.apply(
            variables,
            *inputs,
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        stages = {name: _output(captured, path) for name, path in _STAGES.items()}
        unit_image, unit_text = layers.l2_normalise(image[0]), layers.l2_normalise(text[0])
        pooled = stages.pop("pooled")
        return {
            **stages,
            "sentence": jnp.tanh(pooled),
            "visual": image[0],
            "visual_concept": image[1],
            "text": text[0],
            "text_concept": text[1],
            "sims": unit_image @ unit_text.T,
        }

    return encode(state.variables, {name: jnp.asarray(array) for name, array in batch.items()})


def _output(captured: Mapping[str, Any], path: Iterable[str]) -> jax.Array:
    node: Any = captured["intermediates"]
    for name in path:
        node = node[name]
    return node["__call__"][0]


def make_observed_step(config: ml_collections.ConfigDict, num_tokens: int) -> TrainStep:
    """Returns the training step on one device, with gradients and similarities in its metrics."""

    def observe(gradients: Any, compared: Comparison) -> dict[str, Any]:
        return {"gradients": gradients, "comparison": compared}

    return make_train_step(
        build.make_model(config, num_tokens, golden_inputs.NUM_CONCEPTS),
        build.make_optimizer(config, steps_per_epoch=1),
        build.make_settings(config, steps_per_epoch=1),
        one_device(),
        observe,
    )


def one_device() -> Layout:
    """Returns the layout with everything on the first device."""
    return mesh.replicated(mesh.make_mesh(devices=jax.devices()[:1]))


def concatenated(logits: Logits) -> np.ndarray:
    """Returns logits as the original has them, f32[B, 1 + K], the match first."""
    return np.concatenate([logits.match[:, None], logits.negatives], axis=1)


def training_quantities(
    run: GoldenRun,
    config: ml_collections.ConfigDict,
    state: TrainState,
    unused: StateDict,
    batches: list[HostBatch],
) -> Quantities:
    """Takes the run's steps and returns losses, gradients, logits and states.

    Args:
      run: its epochs and what is recorded.
      config: of the run.
      state: before the first step; left as it is.
      unused: from `unused_tensors`, before the first step.
      batches: one a step.
    """
    layout = one_device()
    step = make_observed_step(config, golden_inputs.VOCABULARY_SIZE + 1)
    # A copy, as the step's first argument is donated.
    state = jax.device_put(jax.tree.map(jnp.copy, state), layout.whole)
    quantities: Quantities = {}
    loss_rows = []
    for number, epoch in enumerate(run.epochs):
        # One step an epoch: the step count is what the schedule reads the epoch from.
        state = state.replace(step=jax.device_put(jnp.int32(epoch), layout.whole))
        state, metrics = step(state, mesh.put_batch(layout, batches[number]))
        unused = average_unused(unused, config)
        terms = loss_terms(config, metrics)
        loss_rows.append([terms[column] for column in run.loss_columns])
        gradients = state_dict.gradients_to_torch(jax.device_get(metrics["gradients"]))
        recorded = [gradients[name] for name in run.gradient_names]
        quantities[f"step{number}/grad_norms"] = np.array([l2(g) for g in recorded])
        if number == 0:
            quantities |= _first_step(recorded, metrics["comparison"])
        if run.records_state_after(number + 1):
            now = {**state_dict.to_state_dict(state), **unused}
            described = describe_state(now, run.tensor_names)
            quantities |= {f"after{number + 1}/{n}": value for n, value in described.items()}
    quantities["losses"] = np.array(loss_rows)
    return quantities


def unused_tensors(tensors: StateDict, state: TrainState) -> StateDict:
    """Returns the tensors that the release stores and never computes with."""
    used = state_dict.used_names(state)
    return {
        name: value
        for name, value in tensors.items()
        if name not in used and np.issubdtype(value.dtype, np.floating)
    }


def average_unused(unused: StateDict, config: ml_collections.ConfigDict) -> StateDict:
    """Takes the step that they take too: momentum moves the key encoders' if it covers them."""
    if config.momentum_coverage != "all":
        return unused
    keys = {name: value for name, value in unused.items() if "modelK." in name}
    queries = {name: unused[name.replace("modelK.", "modelQ.")] for name in keys}
    averaged = momentum.average(keys, queries, config.momentum)
    return {**unused, **jax.tree.map(np.asarray, averaged)}


def loss_terms(config: ml_collections.ConfigDict, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns a step's losses as the original counts them: their sum, and each with its weight."""
    return {
        "total": float(metrics["loss"]),
        "triplet": float(metrics["triplet"]),
        "info_nce_sum": config.loss.contrastive_weight * float(metrics["contrastive"]),
        "concept_bce": config.loss.alignment_weight * float(metrics["alignment"]),
    }


def _first_step(gradients: list[np.ndarray], compared: Comparison) -> Quantities:
    return {
        "step0/grad_first4": np.stack([first4(gradient) for gradient in gradients]),
        "step0/logits_image_head": concatenated(compared.image_logits),
        "step0/logits_text_head": concatenated(compared.text_logits),
        "step0/sims": np.asarray(compared.cosine),
    }


def describe_state(tensors: StateDict, names: Iterable[str]) -> Quantities:
    """Condenses a state to norms, means, first values and queues."""
    recorded = [tensors[name] for name in names]
    return {
        "l2": np.array([l2(tensor) for tensor in recorded]),
        "mean": np.array([tensor.mean(dtype=np.float64) for tensor in recorded]),
        "first4": np.stack([first4(tensor) for tensor in recorded]),
        "queue_image": tensors["queue_im"],
        "queue_text": tensors["queue_tx"],
        "queue_pointer": np.concatenate([tensors["queue_ptr_im"], tensors["queue_ptr_tx"]]),
    }


def l2(tensor: np.ndarray) -> float:
    """Returns the Euclidean norm, added up in float64."""
    return float(np.linalg.norm(tensor.astype(np.float64)))


def first4(tensor: np.ndarray) -> np.ndarray:
    """Returns the first four values; a tensor with fewer repeats those that it has."""
    return np.resize(tensor, 4)
