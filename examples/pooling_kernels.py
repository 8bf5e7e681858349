"""Times the ways to rank a ResNet's low-level features on the device of this machine.

python examples/pooling_kernels.py --batch=100

It prints the median time of counting by XLA, of sorting and, on a GPU, of the Pallas kernel
(`config.image_encoder.pooling_kernel="pallas"`), for f32[B, 4096, 192]: ResNet-18 at 256 pixels.
The ways take turns, so that a device that slows down slows all of them, and they must agree.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax.benchmark import trials
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.models.gpo import COUNT_UP_TO, descending_ranks, sorted_ranks

Ranks = Callable[[jax.Array], jax.Array]


def ways(platform: str) -> dict[str, Ranks]:
    """Returns the ways that a platform, as JAX names it, can run; only a GPU has a kernel."""
    found: dict[str, Ranks] = {"counting": descending_ranks, "sort": sorted_ranks}
    if platform == "gpu":
        found["pallas"] = partial(descending_ranks, kernel="pallas")
    return found


def median_seconds(ranks: dict[str, Ranks], values: jax.Array, repeats: int) -> dict[str, float]:
    """Returns the median time of each way to rank f32[B, D, N], the ways taking turns.

    Each way runs `repeats` times, besides once to compile. Two ways that disagree are an error.
    """
    compiled = {name: jax.jit(way).lower(values).compile() for name, way in ranks.items()}
    (first, expected), *others = [(name, run(values)) for name, run in compiled.items()]
    for name, found in others:
        if not jnp.array_equal(found, expected):
            raise ValueError(f"{first} and {name} disagree")
    actions = {name: _action(run, values) for name, run in compiled.items()}
    budget = trials.Budget(rounds=repeats, seconds=0, most_rounds=repeats)
    return {name: timing.median for name, timing in trials.alternate(actions, budget).items()}


def _action(run: Ranks, values: jax.Array) -> trials.Action:
    return lambda: run(values).block_until_ready()


def describe(values: jax.Array, seconds: dict[str, float]) -> str:
    """Returns Markdown: the device, and each way's time beside that of counting."""
    device = next(iter(values.devices()))
    rows = [
        [name, f"{1e3 * taken:.2f}", f"{taken / seconds['counting']:.3f}"]
        for name, taken in seconds.items()
    ]
    title = f"Ranks of f32{list(values.shape)} on {device.device_kind} ({device.platform}):"
    return f"{title}\n\n{markdown_table(['way', 'ms', 'of counting'], rows)}"


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--positions", type=int, default=4096, help="positions of a map")
    parser.add_argument("--items", type=int, default=192, help=f"maps, at most {COUNT_UP_TO}")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each way")
    chosen = parser.parse_args(arguments)
    shape = (chosen.batch, chosen.positions, chosen.items)
    if min(*shape, chosen.repeats) < 1 or chosen.items > COUNT_UP_TO:
        parser.error(f"all numbers must be at least 1, and --items at most {COUNT_UP_TO}")
    # Rectified, as they are after a ResNet's stages: many ties at zero.
    normal = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    values = jax.device_put(np.maximum(normal, 0))
    seconds = median_seconds(ways(jax.default_backend()), values, chosen.repeats)
    print(describe(values, seconds))


if __name__ == "__main__":
    main()
