"""Compares one forward pass and one training step with the PyTorch original, run beside ours.

Both programs compute in float64 from the same state, so that what differs is mathematics and not
rounding: in float32 two features closer than rounding trade places in a sorted list now and then,
and the gradient jumps.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from kamcl_jax.parallel import mesh
from kamcl_jax.step.state import TrainState
from kamcl_jax.torch_release import golden_inputs, quantities, state_dict
from kamcl_jax.torch_release import original as torch_original
from kamcl_jax.torch_release.original import TorchOriginal
from kamcl_jax.torch_release.quantities import LOSSES, GoldenRun, HostBatch, Quantities
from kamcl_jax.torch_release.tolerances import Row, compare, merge
from kamcl_jax.weights.torch_layout import StateDict

MANY = {"gradient": "gradients of all parameters", "after": "the state after the step"}
"""Kinds that have a tensor each parameter: one row together."""

BATCH_SIZE = 8


def check(
    config: ml_collections.ConfigDict, checkout: Path, seed: int = 0
) -> tuple[list[Row], tuple[str, ...]]:
    """Runs both programs and compares.

    The state is ours, drawn as the golden files' are, and handed over by
    `kamcl_torch.to_state_dict`; the step is the first one of the schedule's second part, so that
    every loss takes part.

    Args:
      config: of the release.
      checkout: folder of a clone of the original.
      seed: of the state and the batch.

    Returns:
      One row a quantity, tensors of a kind together; and the third-party packages of the original
      that are not installed and were replaced.

    Raises:
      TorchOriginalError: PyTorch or the checkout is missing, or its code fails.
    """
    words = golden_inputs.VOCABULARY_SIZE
    original = torch_original.load_original(checkout, words, config.queue_length, np.float64)
    run = GoldenRun(
        seed=seed,
        batch_size=BATCH_SIZE,
        epochs=(config.schedule.alignment_from_epoch,),
        learning_rate=config.optimizer.learning_rate,
        epsilon=1e-3,  # with Adam's usual one, entries whose gradient is noise move at random
    )
    config = quantities.config_of_run(config, run, "release")
    with jax.enable_x64(True):
        tensors = quantities.initial_tensors(config, seed)
        state = quantities.cast(state_dict.from_state_dict(tensors, config), np.float64)
        batch = quantities.cast(run.batch(0), np.float64)
        original.load(state_dict.to_state_dict(state))
        ours = _ours(run, config, state, batch)
    golden = _theirs(run, original, batch)
    rows = [compare(name, value, golden.get(name), noise=None) for name, value in ours.items()]
    single = [row for row in rows if row.name.partition("/")[0] not in MANY]
    together = [
        merge(title, [row for row in rows if row.name.partition("/")[0] == kind])
        for kind, title in MANY.items()
    ]
    return single + together, original.stand_ins


def _ours(
    run: GoldenRun, config: ml_collections.ConfigDict, state: TrainState, batch: HostBatch
) -> Quantities:
    encoded = jax.device_get(quantities.encode_stages(config, state, batch))
    outputs = {f"eval/{name}": encoded[name] for name in quantities.OUTPUTS}
    layout = quantities.one_device()
    step = quantities.make_observed_step(config, golden_inputs.VOCABULARY_SIZE + 1)
    state = state.replace(step=jnp.int32(run.epochs[0]))
    state = jax.device_put(state, layout.whole)
    state, metrics = step(state, mesh.put_batch(layout, batch))
    terms = quantities.loss_terms(config, metrics)
    gradients = state_dict.gradients_to_torch(jax.device_get(metrics["gradients"]))
    used = state_dict.used_names(state)
    after = {n: t for n, t in state_dict.to_state_dict(state).items() if n in used}
    compared = metrics["comparison"]
    return {
        **outputs,
        **{f"loss/{name}": np.array([terms[name]]) for name in LOSSES},
        "step/logits_image": quantities.concatenated(compared.image_logits),
        "step/logits_text": quantities.concatenated(compared.text_logits),
        "step/sims": np.asarray(compared.cosine),
        **{f"gradient/{name}": gradient for name, gradient in gradients.items()},
        **{f"after/{name}": tensor for name, tensor in after.items()},
    }


def _theirs(run: GoldenRun, original: TorchOriginal, batch: HostBatch) -> Quantities:
    outputs = {f"eval/{name}": value for name, value in original.encode(batch).items()}
    step = original.train_step(run.epochs[0], batch, run.learning_rate, run.epsilon)
    losses = {f"loss/{n}": np.array([v]) for n, v in zip(LOSSES, step["losses"], strict=True)}
    after: StateDict = original.state_dict()
    return {
        **outputs,
        **losses,
        **{f"step/{name}": step[name] for name in ("logits_image", "logits_text", "sims")},
        **{f"gradient/{name}": gradient for name, gradient in step["gradients"].items()},
        **{f"after/{name}": tensor for name, tensor in after.items()},
    }
