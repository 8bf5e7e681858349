"""Compares one forward pass and one training step with the PyTorch original, run beside ours.

Both programs compute in float64 from the same state, so that what differs is mathematics and not
rounding: in float32 two features closer than rounding trade places in a sorted list now and then,
and the gradient jumps.
"""

from pathlib import Path

import jax
import ml_collections
import numpy as np

from kamcl_jax.torch_release import golden_inputs
from kamcl_jax.torch_release.golden_file import GoldenRun, Quantities
from kamcl_jax.torch_release.original import TorchOriginal
from kamcl_jax.torch_release.our_program import OurProgram
from kamcl_jax.torch_release.quantities import OUTPUTS, Program
from kamcl_jax.torch_release.tolerances import Row, compare, merge

MANY = {"gradient/": "gradients of all parameters", "after/": "the state after the step"}
"""Beginnings of the names of quantities that each parameter has; they get one row together."""


def run_both(
    config: ml_collections.ConfigDict, checkout: Path
) -> tuple[list[Row], tuple[str, ...]]:
    """Runs both programs and compares what they compute.

    The state is ours, drawn as the golden files' are, and handed over under the original's names;
    the step is the first one of the schedule's second part, so that every loss takes part.

    Returns:
      One row for each quantity, the tensors of a kind together; and the third-party packages of the
      original that are not installed and were replaced.
    """
    words = golden_inputs.VOCABULARY_SIZE
    original = TorchOriginal(checkout, words, config.queue_length, np.float64)
    run = GoldenRun(
        seed=0,
        batch_size=8,
        epochs=(config.schedule.alignment_from_epoch,),
        learning_rate=config.optimizer.learning_rate,
        epsilon=1e-3,  # with Adam's usual one, entries whose gradient is noise move at random
    )
    with jax.enable_x64(True):
        program = OurProgram(config, np.float64)
        shapes = program.tensor_shapes()
        program.load({n: golden_inputs.draw_tensor(n, s, run.seed) for n, s in shapes.items()}, run)
        original.load(program.state_dict(), run)
        used = program.used_names()
        ours = _compute(program, run, used)
        theirs = _compute(original, run, used)
    rows = [compare(name, value, theirs.get(name), noise=None) for name, value in ours.items()]
    single = [row for row in rows if not row.name.startswith(tuple(MANY))]
    together = [
        merge(title, [row for row in rows if row.name.startswith(kind)])
        for kind, title in MANY.items()
    ]
    return single + together, original.stand_ins


def _compute(program: Program, run: GoldenRun, used: set[str]) -> Quantities:
    """Encodes a batch and takes a step; `used` are the tensors of the state that are compared."""
    batch = run.batch(0)
    encoded = program.encode_stages(batch)
    step = program.train_step(run.epochs[0], batch, "release")
    return {
        **{f"eval/{name}": encoded[name] for name in OUTPUTS},
        **{f"loss/{name}": np.array([loss]) for name, loss in step["losses"].items()},
        **{f"step/{name}": step[name] for name in ("logits_image", "logits_text", "sims")},
        **{f"gradient/{name}": gradient for name, gradient in step["gradients"].items()},
        **{f"after/{name}": t for name, t in program.state_dict().items() if name in used},
    }
