"""The picture of a benchmark: where a step's time goes, and the original beside ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kamcl_jax.benchmark.step_parts import PARTS, REST
from kamcl_jax.evaluate.figures import BAR, DOTS_PER_INCH, HIT, MISS


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws bars of the step's parts and, with the original, of the ratios.

    Args:
      path: of the PNG.
      results: as `run.run` returns them.
    """
    rows = results.get("original", {}).get("rows", [])
    names = (*PARTS, REST)
    figure = Figure(figsize=(12 if rows else 7, 3.8), layout="constrained")
    axes = figure.subplots(1, 2 if rows else 1, squeeze=False)[0]
    step, config = results["step"], results["config"]
    seconds = [step["parts"][name]["seconds"] for name in names]
    _bars(axes[0], names, [1e3 * value for value in seconds], "%.1f", [BAR] * len(names))
    title = f"training step: {1e3 * step['seconds']:.0f} ms, batch {config['batch_size']}"
    axes[0].set(xlabel="milliseconds", title=title)
    if rows:
        ratios = [row["ratio"] for row in rows]
        colours = [HIT if ratio >= 1 else MISS for ratio in ratios]
        _bars(axes[1], [row["what"] for row in rows], ratios, "%.2f", colours)
        axes[1].axvline(1, color="black", linestyle="--", linewidth=1)
        axes[1].set(
            xscale="log",
            xlabel="time of the PyTorch original / ours",
            title="above 1, ours is faster",
        )
    figure.suptitle(results["devices"], fontsize=9)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _bars(
    axis: Axes, names: Sequence[str], values: Sequence[float], number: str, colours: Sequence[str]
) -> None:
    """Draws one bar a name, the first on top, with room for its number."""
    bars = axis.barh(range(len(names)), values, color=colours, height=0.7)
    axis.bar_label(bars, fmt=number, padding=3, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
