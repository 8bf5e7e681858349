"""The two pictures of the check: the times of a step, and the race."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kamcl_jax.benchmark.gpu_check import step_times
from kamcl_jax.benchmark.gpu_check.step_times import DTYPES, RESIDENCIES
from kamcl_jax.benchmark.gpu_check.task import numbers_of
from kamcl_jax.evaluate.figures import BAR, DOTS_PER_INCH, MISS
from kamcl_jax.torch_release.original import PRECISIONS

STEPS, RACE = "step_times.png", "race.png"


def draw(folder: Path, found: dict[str, Any], batches: tuple[int, ...]) -> None:
    """Draws what there is; a part without numbers has no picture."""
    steps, race = (found.get(name, {}).get("results", {}) for name in ("steps", "race"))
    names = [
        *(step_times.theirs(p, batch) for batch in batches for p in PRECISIONS),
        *(step_times.ours(dtype, batch) for batch in batches for dtype in DTYPES),
        *(step_times.with_input(dtype, where) for where in RESIDENCIES for dtype in DTYPES),
    ]
    if rows := numbers_of(steps, names):
        _draw_steps(folder / STEPS, rows)
    runs = race.get("runs")
    if isinstance(runs, list) and any(any(run["curves"].values()) for run in runs):
        _draw_race(folder / RACE, runs)


def _draw_steps(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """Draws images a second: the longer a bar, the better, whatever the batch."""
    figure = Figure(figsize=(9, 1 + 0.32 * len(rows)), layout="constrained")
    axis = figure.subplots()
    names, rates = list(rows), [row["images_per_second"] for row in rows.values()]
    colours = [BAR if name.startswith("ours") else MISS for name in names]
    bars = axis.barh(range(len(names)), rates, color=colours, height=0.7)
    labels = [
        f"{rate:.0f}  ({1e3 * rows[n]['seconds']:.1f} ms)"
        for n, rate in zip(names, rates, strict=True)
    ]
    axis.bar_label(bars, labels=labels, padding=3, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.set(xlabel="images a second", title="training steps")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_race(path: Path, runs: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(11, 4), layout="constrained")
    by_epoch, by_minute = figure.subplots(1, 2)
    colours = {name: f"C{n}" for n, name in enumerate(runs[0]["curves"])}
    for number, run in enumerate(runs):
        for name, curve in run["curves"].items():
            scores = [point["mR"] for point in curve]
            label = name if number == 0 else None
            line = {"color": colours.get(name, "black"), "marker": "o", "markersize": 3}
            by_epoch.plot([point["epoch"] for point in curve], scores, label=label, **line)
            by_minute.plot([point["minutes"] for point in curve], scores, label=label, **line)
    by_epoch.set(xlabel="epoch", ylabel="test mR", title="by epochs")
    by_minute.set(xlabel="minutes of training steps", title="by time")
    for axis in (by_epoch, by_minute):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=DOTS_PER_INCH)
