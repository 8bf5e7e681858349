"""The numbers of all parts as Markdown: first the goals, then a section a part."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from kamcl_jax.benchmark.gpu_check import race, step_times
from kamcl_jax.benchmark.gpu_check.runner import OK
from kamcl_jax.benchmark.gpu_check.step_times import DTYPES, RESIDENCIES, WORKERS
from kamcl_jax.benchmark.gpu_check.task import FAILED, LEFT_OUT
from kamcl_jax.benchmark.report import milliseconds
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.torch_release.original import PRECISIONS

Found = dict[str, Any]
"""Name of a part -> how it ended and its results, as `runner.run` returns it."""

NOTHING = "-"


class Goal(NamedTuple):
    """Something that is to be reached on a GPU.

    Attributes:
      words: What it is.
      least: The least that is asked for.
      measured: The numbers -> what was measured; None where it was not.
    """

    words: str
    least: float
    measured: Callable[[Found, int], float | None]


def text(found: Found, batches: Iterable[int], *, rehearsal: bool) -> str:
    """Returns the report of the parts that there are; `batches` are the sizes that were timed."""
    batches = list(batches)
    sections = [_heading(found, rehearsal), _goals(found, batches[0]), _parts(found)]
    for name, write in _SECTIONS.items():
        if name in found:
            sections += [f"## {found[name]['title']}", write(_results(found, name), batches)]
    return "\n\n".join([*filter(None, sections), *_failures(found)]) + "\n"


def _results(found: Found, name: str) -> dict[str, Any]:
    return found.get(name, {}).get("results", {})


def _heading(found: Found, rehearsal: bool) -> str:
    device = _row(_results(found, "machine"), "device")
    kind = device.get("kind", "an unknown device")
    sentences = [f"# What {kind} says"]
    if rehearsal:
        sentences.append("**A rehearsal: toy sizes and few steps. Its times mean nothing.**")
    elif device.get("platform") == "cpu":
        sentences.append("**JAX sees no GPU here.** Is its CUDA plugin installed?")
    return "\n\n".join(sentences)


def _row(results: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a measurement's numbers, {} where there are none."""
    row = results.get(name)
    if not isinstance(row, dict) or {FAILED, LEFT_OUT} & row.keys():
        return {}
    return row


def step_ratio(dtype: str, found: Found, batch: int) -> float | None:
    """Returns the original's time of a step, as PyTorch comes, over ours."""
    steps = _results(found, "steps")
    original = _row(steps, step_times.theirs(PRECISIONS[0], batch)).get("seconds")
    mine = _row(steps, step_times.ours(dtype, batch)).get("seconds")
    return original / mine if original and mine else None


def epoch_ratio(found: Found, batch: int, workers: int = 1) -> float | None:
    """Returns the original's time of a step with input over ours in bfloat16.

    One worker is the training process itself, which loads and then computes. Several load while it
    computes, each as fast as one alone: more than can be had.
    """
    steps = _results(found, "steps")
    original = _row(steps, step_times.theirs(PRECISIONS[0], batch)).get("seconds")
    loaded = _row(steps, step_times.LOADER).get("images_per_second")
    times = [
        _row(steps, step_times.with_input(DTYPES[1], residency)).get("seconds")
        for residency in RESIDENCIES
    ]
    mine = min(filter(None, times), default=None)
    if not (original and loaded and mine):
        return None
    loading = batch / loaded
    whole = original + loading if workers == 1 else max(original, loading / workers)
    return whole / mine


def busy(found: Found, _: int) -> float | None:
    """Returns the smallest share of the time in which the GPU computed."""
    profile = _results(found, "profile")
    return min(filter(None, (_row(profile, d).get("busy") for d in DTYPES)), default=None)


FLOAT32, BFLOAT16 = DTYPES

GOALS = (
    Goal("step in float32, original / ours", 1.5, partial(step_ratio, FLOAT32)),
    Goal("step in bfloat16, original in float32 / ours", 4.0, partial(step_ratio, BFLOAT16)),
    Goal("epoch with input, original loading by itself / ours in bfloat16", 8.0, epoch_ratio),
    Goal("share of the time that the GPU computes", 0.9, busy),
)


def _goals(found: Found, batch: int) -> str:
    rows = []
    for goal in GOALS:
        value = goal.measured(found, batch)
        met = NOTHING if value is None else "yes" if value >= goal.least else "no"
        rows.append([goal.words, f"{goal.least:g}", _number(value), met])
    workers = epoch_ratio(found, batch, WORKERS)
    words = f"epoch with input, original with {WORKERS} perfect loaders / ours in bfloat16"
    rows.append([words, NOTHING, _number(workers), NOTHING])
    return f"## Goals\n\n{markdown_table(['goal', 'at least', 'measured', 'met'], rows)}"


def _parts(found: Found) -> str:
    rows = [
        [name, f"{part['seconds']:.0f}", f"{part['limit']:.0f}", part["ended"].splitlines()[-1]]
        for name, part in found.items()
    ]
    return markdown_table(["part", "seconds", "at most", "ended"], rows)


def _machine(results: dict[str, Any], _: list[int]) -> str:
    rows = []
    for name in ("device", "driver", "PyTorch", "versions"):
        value = results.get(name)
        pairs = ", ".join(f"{k} {v}" for k, v in _row(results, name).items())
        rows.append([name, pairs or (value if isinstance(value, str) else NOTHING)])
    for name in results:
        row = _row(results, name)
        if "flops_per_second" in row:
            said = f"{row['flops_per_second'] / 1e12:.1f} TFLOP/s"
            rows.append([name, f"{said}, copies {row['bytes_per_second'] / 1e9:.0f} GB/s"])
    return markdown_table(["what", "is"], rows)


def _data(results: dict[str, Any], _: list[int]) -> str:
    row = _row(results, "data")
    return ", ".join(f"{name} {_number(value)}" for name, value in row.items()) or NOTHING


def _kernels(results: dict[str, Any], _: list[int]) -> str:
    rows = []
    for name in results:
        row = _row(results, name)
        if row:
            times = [milliseconds(row[f"{who}_seconds"]) for who in ("kernel", "twin")]
            agrees = "yes" if row["agrees"] else "**NO**"
            errors = [f"{row['error']:.1e}", f"{row['tolerance']:.0e}", agrees]
            rows.append([name, str(row["shapes"][0]), *times, *errors])
        else:
            rows.append([name, _why(results[name]), *[NOTHING] * 5])
    head = ["kernel or twin", "first input", "kernel ms", "twin ms", "largest error", "allowed"]
    return markdown_table([*head, "agrees"], rows)


def _precision(results: dict[str, Any], _: list[int]) -> str:
    groups = list(dict.fromkeys(g for n in results for g in _row(results, n).get("errors", {})))
    rows = []
    for name in results:
        row = _row(results, name)
        errors = [f"{row['errors'][g]:.1e}" if row else NOTHING for g in groups]
        beyond = len(row["beyond_float32_tolerance"]) if row else NOTHING
        of = row.get("quantities", NOTHING)
        said = f"{beyond} of {of}" if row else _why(results[name])
        rows.append([name, *errors, said])
    return (
        "The largest error beside the original's float64 numbers, as a share of the magnitude. The "
        "last column counts the quantities that are further off than the tolerance of float32, "
        "which float32 alone has to meet.\n\n"
        + markdown_table(["computed in", *groups, "beyond float32's tolerance"], rows)
    )


def _steps(results: dict[str, Any], batches: list[int]) -> str:
    rows = []
    for name in results:
        row = _row(results, name)
        if "seconds" not in row:
            if not row:
                rows.append([name, _why(results[name]), *[NOTHING] * 4])
            continue
        ends = [milliseconds(row[end]) for end in ("quartile_low", "quartile_high") if end in row]
        quartiles = " to ".join(ends) or NOTHING
        memory = f"{row['bytes'] / 1e9:.2f}" if row.get("bytes") else NOTHING
        compiled = f"{row['compile_seconds']:.0f}" if "compile_seconds" in row else NOTHING
        rate = f"{row['images_per_second']:.0f}"
        rows.append([name, milliseconds(row["seconds"]), quartiles, rate, memory, compiled])
    head = ["step", "ms", "quartiles", "images/s", "GB", "compiled in s"]
    parts = [markdown_table(head, rows), _ratios(results, batches)]
    if loader := _row(results, step_times.LOADER):
        parts.append(
            f"The original's own loader reads {loader['images_per_second']:.0f} images/s in one "
            f"process; its options ask for {WORKERS}."
        )
    parts.append(
        "GB are the peak: by XLA's plan for ours, by PyTorch's count for the original. Ours in "
        "float32 multiplies in TF32, as JAX does on a GPU; the original in float32 convolves in "
        "TF32 and multiplies in float32, as PyTorch does; `bfloat16` is PyTorch's autocast around "
        "the model. The programs of one batch size are compiled two at a time."
    )
    return "\n\n".join(filter(None, parts))


def _ratios(results: dict[str, Any], batches: list[int]) -> str:
    """Returns the table of the original's times over ours."""
    rows = []
    for batch in batches:
        for precision in PRECISIONS:
            theirs = _row(results, step_times.theirs(precision, batch)).get("seconds")
            if theirs is None:
                continue
            mine = [_row(results, step_times.ours(d, batch)).get("seconds") for d in DTYPES]
            ratios = [_number(theirs / one if one else None) for one in mine]
            rows.append([f"original in {precision}, batch {batch}", *ratios])
    head = ["time of the original / ours", *(f"ours in {dtype}" for dtype in DTYPES)]
    return markdown_table(head, rows) if rows else ""


def _profile(results: dict[str, Any], _: list[int]) -> str:
    parts = []
    for dtype in results:
        row = _row(results, dtype)
        if not row:
            parts.append(f"{dtype}: {_why(results[dtype])}")
            continue
        parts.append(
            f"In {dtype} something runs {100 * row['busy']:.1f} % of the time; a step takes "
            f"{milliseconds(row['seconds_a_step'])} ms and launches {row['launches_a_step']:.0f} "
            "kernels and copies. The longest:"
        )
        rows = [
            [
                f"`{kernel['name'][:70]}`",
                milliseconds(kernel["seconds_a_step"]),
                f"{kernel['runs_a_step']:.1f}",
                f"{100 * kernel['share']:.1f} %",
            ]
            for kernel in row["longest"]
        ]
        parts.append(markdown_table(["kernel", "ms a step", "runs a step", "share"], rows))
    return "\n\n".join(parts)


def _race(results: dict[str, Any], _: list[int]) -> str:
    runs = results.get("runs")
    if not isinstance(runs, list):
        return _why(runs)
    rows = []
    for run in runs:
        for name, last in at_the_same_epoch(run).items():
            own = last.get("mR_by_original")
            minutes = f"{last['minutes']:.2f}"
            score = [f"{last['mR']:.2f}", NOTHING if own is None else f"{own:.2f}"]
            start = f"{run['start_seconds'][name]:.0f}"
            loss = f"{last['loss']:.2f}"
            rows.append([str(run["seed"]), name, str(last["epoch"]), *score, minutes, start, loss])
    head = ["seed", "who", "epochs", "test mR", "by the original's ranking", "minutes"]
    settings = results.get("config", {})
    slow = [race.THROUGH_HOST in last for run in runs for last in at_the_same_epoch(run).values()]
    return (
        f"The first epochs of the published schedule of {settings.get('num_epochs')}, batch "
        f"{settings.get('batch_size')}, {settings.get('image_size')} pixels, random weights. "
        "The test split is scored after every epoch, and no epoch is chosen. Minutes are of "
        "training steps alone. Both programs get the same pairs, which lie decoded in the GPU's "
        "memory; rotation, crop and normalisation are ours for both. Model, losses, optimiser, "
        "schedule and ranking of the original are its own code.\n\n"
        + ("**The original's batches went through the host.**\n\n" if any(slow) else "")
        + markdown_table([*head, "seconds to start", "mean loss"], rows)
    )


def at_the_same_epoch(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns where each runner was after the last epoch that all of them have trained."""
    curves = {name: curve for name, curve in run["curves"].items() if curve}
    last = min(map(len, curves.values()), default=0)
    return {name: curve[last - 1] for name, curve in curves.items()}


def _evaluation(results: dict[str, Any], _: list[int]) -> str:
    rows = []
    for name in results:
        row = _row(results, name)
        if not row:
            rows.append([name, _why(results[name])])
        elif name == "ranking":
            rows += [
                [f"ranking, {who}", f"{milliseconds(one['seconds'])} ms"]
                for who, one in row.items()
            ]
        elif name == "indexing":
            images = f"{row['images']} files at {row['images_per_second']:.0f} images/s"
            rows.append([name, images])
        elif "pairs_per_second" in row:
            rows.append([name, f"{row['pairs_per_second']:.0f} pairs/s"])
        elif "captions_per_second" in row:
            rates = f"{row['images_per_second']:.0f} images/s"
            rows.append([name, f"{rates}, {row['captions_per_second']:.0f} captions/s"])
    return markdown_table(["what", "rate"], rows)


_SECTIONS: dict[str, Callable[[dict[str, Any], list[int]], str]] = {
    "machine": _machine,
    "data": _data,
    "kernels": _kernels,
    "precision": _precision,
    "steps": _steps,
    "profile": _profile,
    "race": _race,
    "evaluation": _evaluation,
}


def _failures(found: Found) -> list[str]:
    """Returns the tracebacks of all that failed."""
    told = []
    for name, part in found.items():
        if part["ended"] != OK:
            told.append((name, part["ended"]))
        for what, result in part["results"].items():
            if isinstance(result, dict) and FAILED in result:
                told.append((f"{name}: {what}", result[FAILED]))
        runs = part["results"].get("runs")
        for run in runs if isinstance(runs, list) else ():
            told += [(f"{name}: {what}", why) for what, why in run["failed"].items()]
    blocks = [f"### {what}\n\n```\n{why.strip()}\n```" for what, why in told]
    return ["## What failed", *blocks] if blocks else []


def _why(result: Any) -> str:
    """Returns in a few words why there are no numbers."""
    if isinstance(result, dict) and LEFT_OUT in result:
        return f"left out: {result[LEFT_OUT]}"
    if isinstance(result, dict) and FAILED in result:
        return f"failed: {result[FAILED].strip().splitlines()[-1][:80]}"
    return NOTHING


def _number(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return NOTHING if value is None else f"{value:.3g}"
