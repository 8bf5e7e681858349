"""The numbers of a benchmark as they are saved, printed and drawn."""

import importlib.metadata
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kamcl_jax.benchmark import roofline, step_parts
from kamcl_jax.benchmark.input_and_retrieval import RSICD_TEST, SplitSample
from kamcl_jax.benchmark.roofline import Roofline
from kamcl_jax.benchmark.step_parts import PARTS, REST, WHOLE, Steps
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.benchmark.trials import Timing
from kamcl_jax.evaluate.figures import BAR, DOTS_PER_INCH, HIT, MISS
from kamcl_jax.evaluate.tables import markdown_table

Results = dict[str, Any]
Timings = dict[str, Timing]

IMAGES, CAPTIONS, PAIRED_IMAGES = "images", "captions", "an image a caption"
RSICD_RANKING, OWN_RANKING = f"{RSICD_TEST[0]} x {RSICD_TEST[1]}", "the config's test split"
READ, READ_AND_AUGMENT = "read", "read and augment"
ORIGINAL = "original"


def described(timed: Subject) -> Results:
    """Returns what tells one benchmark's config from another's."""
    config = timed.config
    return {
        "data": config.data.name,
        "random_data": timed.data is None,
        "batch_size": config.batch_size,
        "image_size": config.image_size,
        "dtype": config.dtype,
        "queue_length": config.queue_length,
        "num_concepts": timed.num_concepts,
        "words": timed.num_tokens - 1,
        "longest_caption": timed.longest,
    }


def versions(with_torch: bool) -> dict[str, str]:
    """Returns the releases of what computes."""
    names = ["jax", "flax", "numpy", *(["torch"] if with_torch else [])]
    return {name: importlib.metadata.version(name) for name in names}


def summaries(timings: Timings) -> Results:
    """Returns what is kept of our timings; the original's have a place of their own."""
    return {name: t.summary() for name, t in timings.items() if name != ORIGINAL}


def step_results(timed: Subject, steps: Steps, timings: Timings) -> Results:
    """Returns the times of the training step and of its parts, see `step_parts.split`."""
    whole = timings[WHOLE]
    return {
        "compile_seconds": steps.compile_seconds,
        **whole.summary(),
        "images_per_second": timed.config.batch_size / whole.median,
        "parts": {
            name: {"seconds": seconds, "share": seconds / whole.median, "timed": _how_timed(name)}
            for name, seconds in step_parts.split(timings).items()
        },
        "peak_bytes": steps.memory.peak,
    }


def _how_timed(part: str) -> str:
    if part == REST:
        return "the whole less all parts"
    return "alone" if part in step_parts.ALONE else "the whole less a step without it"


def roofline_results(steps: Steps, timings: Timings) -> Results:
    """Returns the step's cost on a device, the machine's rates, and how near to them it comes."""
    flops_rate = roofline.flops_per_second(timings[roofline.MATMUL].median)
    bytes_rate = roofline.bytes_per_second(timings[roofline.COPY].median)
    cost, seconds = steps.cost + steps.loop_cost, timings[WHOLE].median
    limit = Roofline(cost.flops / flops_rate, cost.bytes / bytes_rate)
    return {
        "flops": cost.flops,
        "flops_of_loops_added": steps.loop_cost.flops,
        "bytes": cost.bytes,
        "bytes_of_loops_added": steps.loop_cost.bytes,
        "flops_a_byte": cost.intensity,
        "matmul_flops_per_second": flops_rate,
        "copy_bytes_per_second": bytes_rate,
        "compute_seconds": limit.compute_seconds,
        "memory_seconds": limit.memory_seconds,
        "bound": limit.bound,
        "share_of_matmul_rate": limit.compute_seconds / seconds,
        "share_of_copy_rate": limit.memory_seconds / seconds,
        "share_of_roofline": limit.seconds / seconds,
    }


def encoding_results(sample: SplitSample, timings: Timings) -> Results:
    """Returns the rates of the image and the text encoder in evaluation."""
    return {
        "batch_size": sample.batch_size,
        "images": len(sample.images),
        "captions": sample.captions,
        "images_per_second": len(sample.images) / timings[IMAGES].median,
        "captions_per_second": sample.captions / timings[CAPTIONS].median,
        "timings": summaries(timings),
    }


def input_results(timings: Timings, images: dict[str, int], threads: int) -> Results:
    """Returns the rates of the input; so many threads read, in a trial of each name, its images."""
    rates = {name: images[name] / timings[name].median for name in (READ, READ_AND_AUGMENT)}
    return {
        "read_threads": threads,
        "images_per_second": rates[READ],
        "images_per_second_with_augmentation": rates[READ_AND_AUGMENT],
        "timings": summaries(timings),
    }


def comparison(
    step: Timings, encoding: Timings, ranking: Timings, read: Timings, images: dict[str, int]
) -> list[Results]:
    """Returns what the original needs for the same work, row by row; see `ratio`.

    The encoding or the input may have been left out; `images` are what a trial of the input reads.
    """
    rows = [ratio("training step", step[ORIGINAL], [step[WHOLE]])]
    if ORIGINAL in read:
        names = {"input, an image": READ, "input and augmentation, an image": READ_AND_AUGMENT}
        for title, name in names.items():
            scale = images[name] / images[ORIGINAL]
            rows.append(ratio(title, read[ORIGINAL], [read[name]], scale, images[name]))
    if ORIGINAL in encoding:
        theirs, captions = encoding[ORIGINAL], encoding[CAPTIONS]
        rows.append(ratio("encoding a test set", theirs, [encoding[IMAGES], captions]))
        pairs = [encoding[PAIRED_IMAGES], captions]
        rows.append(ratio("encoding as many images as captions", theirs, pairs))
    rows.append(ratio(f"ranking {RSICD_RANKING}", ranking[ORIGINAL], [ranking[RSICD_RANKING]]))
    return rows


def ratio(
    title: str, original: Timing, ours: list[Timing], scale: float = 1.0, units: int = 1
) -> Results:
    """Returns one row of the comparison: above 1, ours is faster.

    Our timings are of the same rounds; together they are `scale` times the original's work. The
    seconds are told of one of the `units` of work in a trial of ours.
    """
    rounds = [
        scale * theirs / sum(seconds)
        for theirs, *seconds in zip(original.seconds, *(t.seconds for t in ours), strict=True)
    ]
    low, high = Timing(tuple(rounds)).quartiles
    theirs, mine = scale * original.median, sum(t.median for t in ours)
    return {
        "what": title,
        "original_seconds": theirs / units,
        "our_seconds": mine / units,
        "ratio": theirs / mine,
        "quartile_low": low,
        "median_of_rounds": statistics.median(rounds),
        "quartile_high": high,
        "trials": len(rounds),
    }


def text(results: Results) -> str:
    """Returns the tables that are printed."""
    parts = [_step_table(results["step"]), _roofline_sentence(results), _rates_table(results)]
    if "original" in results:
        parts.append(_comparison_table(results["original"]))
    return "\n\n".join(parts)


def _step_table(step: Results) -> str:
    rows = [
        [name, milliseconds(step["parts"][name]["seconds"]), _percent(step["parts"][name]["share"])]
        for name in (*PARTS, REST)
    ]
    rows.append([WHOLE, milliseconds(step["seconds"]), _percent(1.0)])
    return (
        f"{markdown_table(['part of a training step', 'ms', 'share'], rows)}\n"
        f"median of {step['trials']} trials, quartiles {milliseconds(step['quartile_low'])} to "
        f"{milliseconds(step['quartile_high'])} ms; {step['images_per_second']:.1f} images/s; "
        f"compiled in {step['compile_seconds']:.1f} s"
    )


def _roofline_sentence(results: Results) -> str:
    of = results["roofline"]
    cached = "; above 100 % as caches serve what that count takes from memory"
    return (
        f"a step computes {of['flops'] / 1e9:.1f} GFLOP and moves {of['bytes'] / 1e9:.2f} GB by "
        f"XLA's count ({of['flops_a_byte']:.1f} FLOP a byte); the machine multiplies matrices at "
        f"{of['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s and copies "
        f"{of['copy_bytes_per_second'] / 1e9:.1f} GB/s: at least "
        f"{milliseconds(max(of['compute_seconds'], of['memory_seconds']))} ms, bound by "
        f"{of['bound']}; the step is at {_percent(of['share_of_roofline'])} of that"
        f"{cached if of['share_of_roofline'] > 1 else ''}; "
        f"at {_percent(of['share_of_matmul_rate'])} of the matrix product's rate"
    )


def _rates_table(results: Results) -> str:
    rows: list[list[str]] = []
    if of := results.get("input"):
        by = f"input, {of['read_threads']} reading threads"
        rows.append([by, f"{of['images_per_second']:.0f} images/s"])
        rate = of["images_per_second_with_augmentation"]
        rows.append(["input and augmentation", f"{rate:.0f} images/s"])
    if of := results.get("encoding"):
        rows.append(["encoding images", f"{of['images_per_second']:.1f} images/s"])
        rows.append(["encoding captions", f"{of['captions_per_second']:.1f} captions/s"])
    for name, timing in results["ranking"].items():
        rows.append([f"ranking {name}", f"{milliseconds(timing['seconds'])} ms"])
    return markdown_table(["beside the step", ""], rows)


def _comparison_table(original: Results) -> str:
    rows = [
        [
            row["what"],
            milliseconds(row["original_seconds"]),
            milliseconds(row["our_seconds"]),
            f"{row['ratio']:.2f}",
            f"{row['quartile_low']:.2f} to {row['quartile_high']:.2f}",
        ]
        for row in original["rows"]
    ]
    head = ["medians", "original ms", "ours ms", "original / ours", "quartiles"]
    lines = [markdown_table(head, rows)]
    if original["stand_ins"]:
        names = ", ".join(original["stand_ins"])
        lines.append(f"cannot be imported, replaced by stand-ins of ours: {names}")
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """Returns milliseconds with about three digits."""
    value = 1e3 * seconds
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def draw(path: Path, results: Results) -> None:
    """Draws bars of the step's parts and, with the original, of the ratios, as a PNG."""
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
        label = "time of the PyTorch original / ours"
        axes[1].set(xscale="log", xlabel=label, title="above 1, ours is faster")
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
