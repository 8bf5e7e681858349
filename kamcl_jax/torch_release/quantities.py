"""What is recorded of either program, the PyTorch original or ours, under a golden file's names."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from kamcl_jax.torch_release import golden_inputs
from kamcl_jax.torch_release.golden_file import COVERAGE_OF_MODE, GoldenRun, Quantities
from kamcl_jax.weights.torch_layout import StateDict

LOSSES = ("total", "triplet", "info_nce_sum", "concept_bce")
"""What the original's loss function returns, in its order: the sum, and the weighted terms."""

OUTPUTS = ("visual", "visual_concept", "text", "text_concept", "sims")
"""What the encoders return of a batch, and its cosines."""

HostBatch = dict[str, np.ndarray]
"""A batch as `golden_inputs.draw_batch` returns it."""

_LOGITS = 16
"""The number of columns of the logits that are kept."""


class Program(Protocol):
    """A program that computes KAMCL: `original.TorchOriginal` or `our_program.OurProgram`."""

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the names and shapes of the state_dict, in its order."""

    def load(self, state_dict: StateDict, run: GoldenRun) -> None:
        """Overwrites the whole state; Adam starts afresh, with the numbers of the run."""

    def state_dict(self) -> StateDict:
        """Returns a copy of the whole state."""

    def encode_stages(self, batch: HostBatch) -> Quantities:
        """Encodes a batch with the query towers in evaluation mode.

        Returns:
          `visual`, `text`: the hybrid embeddings f32[B, 512]; `visual_concept`, `text_concept`:
          f32[B, 512]; `sims`: the cosines f32[B, B] of image i and caption j; `final`, `low`,
          `high`: the levels of the image network, and `sentence`, f32[B, 512]; `states`: the
          states of the text's GRU, f32[B, T, 2400].
        """

    def pool_weights(self, lengths: tuple[int, ...]) -> list[np.ndarray]:
        """Returns the image network's last pooling weights for each of these numbers of items."""

    def train_step(self, epoch: int, batch: HostBatch, momentum_coverage: str) -> dict[str, Any]:
        """Takes one step; the epoch decides on the losses that take part.

        Returns:
          `losses`: name -> number, of `LOSSES`; `gradients`: name -> f32 array, of the parameters
          that got one; `logits_image`, `logits_text`: f32[B, 1 + K], the match first; `sims`:
          f32[B, B].
        """


def record(program: Program, run: GoldenRun) -> Quantities:
    """Lets a program do what a golden file was made from; its state is overwritten.

    A run without names of tensors and gradients takes those of the program, and they are recorded.
    """
    shapes = program.tensor_shapes()
    start = {n: golden_inputs.draw_tensor(n, shape, run.seed) for n, shape in shapes.items()}
    numbers = [n for n, tensor in start.items() if tensor.dtype.kind == "f"]
    names = run.tensor_names or tuple(n for n in numbers if not n.startswith("queue_"))
    program.load(start, run)
    recorded = {"tensor_names": np.array(names)}
    recorded |= {f"eval/{name}": value for name, value in _evaluate(program, run).items()}
    for number, mode in enumerate(run.modes):
        if number > 0:
            program.load(start, run)
        of_mode = _train(program, run, COVERAGE_OF_MODE[mode], names)
        recorded |= {f"{mode}/{name}": value for name, value in of_mode.items()}
    return recorded


def _evaluate(program: Program, run: GoldenRun) -> Quantities:
    outputs = program.encode_stages(run.batch(0))
    states = outputs.pop("states")
    outputs["skipthoughts_mean"] = states.mean(axis=-1, dtype=np.float64)
    outputs["skipthoughts_head"] = states[..., :8]
    weights = program.pool_weights(run.pool_lengths)
    for length, weights_of_length in zip(run.pool_lengths, weights, strict=True):
        outputs[f"pool_weights_{length}"] = weights_of_length
    return outputs


def _train(
    program: Program, run: GoldenRun, momentum_coverage: str, tensor_names: Iterable[str]
) -> Quantities:
    recorded: Quantities = {}
    losses = []
    for number, epoch in enumerate(run.epochs):
        step = program.train_step(epoch, run.batch(number), momentum_coverage)
        losses.append([step["losses"][column] for column in run.loss_columns])
        names = run.gradient_names or tuple(step["gradients"])
        gradients = [step["gradients"][name] for name in names]
        recorded[f"step{number}/grad_norms"] = np.array([_l2(g) for g in gradients])
        if number == 0:
            recorded |= {
                "grad_names": np.array(names),
                "step0/grad_first4": np.stack([_first4(g) for g in gradients]),
                "step0/logits_image_head": step["logits_image"][:, :_LOGITS],
                "step0/logits_text_head": step["logits_text"][:, :_LOGITS],
                "step0/sims": step["sims"],
            }
        if number + 1 in (1, len(run.epochs)):
            # The keys that were written, and a batch of those that nobody may have touched.
            keys = (number + 2) * run.batch_size
            described = _describe_state(program.state_dict(), tensor_names, keys)
            recorded |= {f"after{number + 1}/{name}": value for name, value in described.items()}
    return {**recorded, "losses": np.array(losses)}


def _describe_state(tensors: StateDict, names: Iterable[str], keys: int) -> Quantities:
    """Condenses a state to norms, means, first values and the first keys of both queues."""
    recorded = [tensors[name] for name in names]
    return {
        "l2": np.array([_l2(tensor) for tensor in recorded]),
        "mean": np.array([tensor.mean(dtype=np.float64) for tensor in recorded]),
        "first4": np.stack([_first4(tensor) for tensor in recorded]),
        "queue_image": tensors["queue_im"][:, :keys],
        "queue_text": tensors["queue_tx"][:, :keys],
        "queue_pointer": np.concatenate([tensors["queue_ptr_im"], tensors["queue_ptr_tx"]]),
    }


def _l2(tensor: np.ndarray) -> float:
    """Returns the Euclidean norm, added up in float64."""
    return float(np.linalg.norm(tensor.astype(np.float64)))


def _first4(tensor: np.ndarray) -> np.ndarray:
    """Returns the first four values; a tensor with fewer repeats those that it has."""
    return np.resize(tensor, 4)
