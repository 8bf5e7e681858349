"""Our program with the outside of the PyTorch original, so that both can be compared.

Everything is computed by what you run: the Flax modules that `config.build` makes and the step of
`make_train_step`, both driven by a config.
"""

import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from kamcl_jax.config import build, recipe
from kamcl_jax.models import layers
from kamcl_jax.models.gpo import GPO
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import momentum
from kamcl_jax.step.encoding import cast_floats
from kamcl_jax.step.losses import Logits
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import TrainStep, make_train_step
from kamcl_jax.torch_release import golden_inputs, state_dict
from kamcl_jax.torch_release.golden_file import GoldenRun, Quantities
from kamcl_jax.torch_release.quantities import HostBatch
from kamcl_jax.weights.torch_layout import StateDict

NUM_TOKENS = golden_inputs.VOCABULARY_SIZE + 1

_STAGES = {
    "final": ("image", "aggregator", "final_gpo"),
    "low": ("image", "aggregator", "low_linear"),
    "high": ("image", "aggregator", "high_linear"),
    "states": ("text", "skip_thoughts"),
    "pooled": ("text", "word_gpo"),
}
"""Stage -> the path of the module that returns it."""


class OurProgram:
    """Our model with its training step, on the first device; see `quantities.Program`.

    In float64 you call it within `jax.enable_x64(True)`.
    """

    _state: TrainState

    def __init__(self, config: ml_collections.ConfigDict, dtype: type):
        """Takes the config of the release and the dtype of weights, batches and all arithmetic."""
        self._given = config
        self._dtype = dtype
        self._steps: dict[str, TrainStep] = {}

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the names and shapes of the release's state_dict, in its order."""
        return state_dict.tensor_shapes(self._given, NUM_TOKENS, golden_inputs.NUM_CONCEPTS)

    def load(self, tensors: StateDict, run: GoldenRun) -> None:
        """Overwrites the whole state; Adam starts afresh, with the numbers of the run."""
        self._config = config_of_run(self._given, run)
        self._longest = run.caption_lengths[1]
        state = self._cast(state_dict.from_state_dict(tensors, self._config))
        self._state = jax.device_put(state, _one_device().whole)
        used = self.used_names()
        self._unused: StateDict = {
            name: value.astype(self._dtype)
            for name, value in tensors.items()
            if name not in used and value.dtype.kind == "f"
        }

    def used_names(self) -> set[str]:
        """Returns the names of the tensors that take part in the computation."""
        return state_dict.used_names(self._state)

    def state_dict(self) -> StateDict:
        """Returns the whole state, with what the release stores and never computes with."""
        return {**state_dict.to_state_dict(self._state), **self._unused}

    def encode_stages(self, batch: HostBatch) -> Quantities:
        """Encodes a batch in evaluation mode; see `quantities.Program`."""
        model = build.make_model(self._config, NUM_TOKENS, golden_inputs.NUM_CONCEPTS)

        dtype = recipe.compute_dtype(self._config)

        @jax.jit
        def encode(variables, batch):
            inputs = [batch[name] for name in ("image", "tokens", "lengths", "word_concepts")]
            if dtype is not None:
                params, inputs = cast_floats((variables["params"], inputs), dtype)
                variables = {**variables, "params": params}
            (image, text), captured = model.apply(
                variables,
                *inputs,
                train=False,
                capture_intermediates=True,
                mutable=["intermediates"],
            )
            stages = {name: _output(captured, path) for name, path in _STAGES.items()}
            sentence = jnp.tanh(stages.pop("pooled"))
            unit_image, unit_text = layers.l2_normalise(image[0]), layers.l2_normalise(text[0])
            return {
                **stages,
                "sentence": sentence,
                "visual": image[0],
                "visual_concept": image[1],
                "text": text[0],
                "text_concept": text[1],
                "sims": unit_image @ unit_text.T,
            }

        outputs = jax.device_get(encode(self._state.variables, self._prepared(batch)))
        outputs["states"] = outputs["states"][:, : batch["lengths"].max()]
        return outputs

    def pool_weights(self, lengths: tuple[int, ...]) -> list[np.ndarray]:
        """Returns the image network's last pooling weights for each of these numbers of items."""
        longest = max(lengths, default=1)
        gpo = {"params": self._state.params["image"]["aggregator"]["gpo"]}
        pool = jax.jit(functools.partial(GPO().apply, method="weights"), static_argnums=(1, 2))
        padded = np.asarray(pool(gpo, longest, True))
        return [padded[length - 1, :length] for length in lengths]

    def train_step(self, epoch: int, batch: HostBatch, momentum_coverage: str) -> dict[str, Any]:
        """Takes one step; see `quantities.Program`."""
        config, layout = self._config, _one_device()
        if momentum_coverage not in self._steps:
            config.momentum_coverage = momentum_coverage
            self._steps[momentum_coverage] = _observed_step(config, NUM_TOKENS)
        # One step an epoch: the step count is what the schedule reads the epoch from.
        state = self._state.replace(step=jax.device_put(jnp.int32(epoch), layout.whole))
        step, prepared = self._steps[momentum_coverage], self._prepared(batch)
        self._state, metrics = step(state, mesh.put_batch(layout, prepared))
        if momentum_coverage == "all":
            self._average_unused()  # it moves the unused tensors of the key encoders, too
        compared = metrics["comparison"]
        return {
            "losses": _loss_terms(config, metrics),
            "gradients": state_dict.gradients_to_torch(jax.device_get(metrics["gradients"])),
            "logits_image": _concatenated(compared.image_logits),
            "logits_text": _concatenated(compared.text_logits),
            "sims": np.asarray(compared.cosine),
        }

    def _average_unused(self) -> None:
        keys = {name: value for name, value in self._unused.items() if "modelK." in name}
        queries = {name: self._unused[name.replace("modelK.", "modelQ.")] for name in keys}
        averaged = momentum.average(keys, queries, self._config.momentum)
        self._unused |= jax.tree.map(np.asarray, averaged)

    def _prepared(self, batch: HostBatch) -> HostBatch:
        """Casts a batch, and pads its captions to one length so that one compilation serves."""
        tokens = batch["tokens"]
        missing = self._longest - tokens.shape[1]
        return self._cast({**batch, "tokens": np.pad(tokens, ((0, 0), (0, missing)))})

    def _cast(self, tree: Any) -> Any:
        return jax.tree.map(
            lambda x: x.astype(self._dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )


def config_of_run(config: ml_collections.ConfigDict, run: GoldenRun) -> ml_collections.ConfigDict:
    """Returns the config with the numbers of a golden run; one epoch is one step."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.batch_size = run.batch_size
    config.text_encoder.dropout = 0.0
    config.optimizer.learning_rate = run.learning_rate
    config.optimizer.decay_factor = 1.0
    config.optimizer.epsilon = run.epsilon
    return config


def _observed_step(config: ml_collections.ConfigDict, num_tokens: int) -> TrainStep:
    """Returns the training step on one device, with gradients and comparison in its metrics."""
    return make_train_step(
        build.make_model(config, num_tokens, golden_inputs.NUM_CONCEPTS),
        recipe.make_optimizer(config, steps_per_epoch=1),
        recipe.make_settings(config, steps_per_epoch=1),
        _one_device(),
        lambda gradients, compared: {"gradients": gradients, "comparison": compared},
    )


def _one_device() -> Layout:
    return mesh.replicated(mesh.make_mesh(devices=jax.devices()[:1]))


def _loss_terms(config: ml_collections.ConfigDict, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns a step's losses as the original counts them: their sum, and each with its weight."""
    return {
        "total": float(metrics["loss"]),
        "triplet": float(metrics["triplet"]),
        "info_nce_sum": config.loss.contrastive_weight * float(metrics["contrastive"]),
        "concept_bce": config.loss.alignment_weight * float(metrics["alignment"]),
    }


def _concatenated(logits: Logits) -> np.ndarray:
    """Returns logits as the original has them, f32[B, 1 + K], the match first."""
    return np.concatenate([logits.match[:, None], logits.negatives], axis=1)


def _output(captured: Mapping[str, Any], path: Iterable[str]) -> jax.Array:
    return functools.reduce(operator.getitem, path, captured["intermediates"])["__call__"][0]
