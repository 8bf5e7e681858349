"""`--mode=benchmark`: times everything of a config, prints it and saves it."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from kamcl_jax.benchmark import (
    against_original,
    report,
    roofline,
    step_parts,
    subject,
    trials,
)
from kamcl_jax.benchmark.against_original import TimedOriginal, TimedOriginalInput
from kamcl_jax.benchmark.input_and_retrieval import (
    RSICD_TEST,
    BatchReader,
    SplitSample,
    first_captions,
    random_scores,
)
from kamcl_jax.benchmark.report import ORIGINAL, Results
from kamcl_jax.benchmark.step_parts import WHOLE, Steps
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.benchmark.trials import Action, Budget, Timing
from kamcl_jax.config import build, data, recipe
from kamcl_jax.config.encoders import normalisation
from kamcl_jax.errors import TorchOriginalError
from kamcl_jax.inference import embed
from kamcl_jax.inference.embed import Variables
from kamcl_jax.parallel import hosts
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.ranking import ranks
from kamcl_jax.runs import folder as run_folder
from kamcl_jax.torch_release.checkout import check_checkout

STEP_BUDGET = Budget(rounds=5, seconds=20, most_seconds=180)
BUDGET = Budget(rounds=5, seconds=6, most_seconds=120)


def run(
    config: ml_collections.ConfigDict,
    workdir: Path,
    checkout: Path | None = None,
    step_budget: Budget = STEP_BUDGET,
    budget: Budget = BUDGET,
) -> Results:
    """Times a config's training step, input and evaluation, and the original's beside them.

    Args:
      config: A config as `configs.base` describes it.
      workdir: Where `report/benchmark.json`, which is returned, and `report/benchmark.png` go.
      checkout: The folder of a clone of the PyTorch original; None leaves it out.
      step_budget: How often the step, its parts and the machine's rates are timed.
      budget: How often the encoding, the ranking and the input are timed.
    """
    run_folder.check_writable(workdir)
    build.check_with_devices(config)
    if checkout is not None:
        against_original.check_sizes(config)
        check_checkout(checkout)
    left_out: list[str] = []
    if not subject.has_data(config):
        left_out.append(
            f"there is no folder {config.data.dir}: the step runs on random arrays, with captions "
            "as long as RSICD's; the input and the encoding of a test split are left out"
        )
        hosts.warn(left_out[-1])
    timed = subject.make(config)
    theirs = None
    if checkout is not None:
        against_original.check_num_concepts(timed.num_concepts)
        theirs = TimedOriginal(checkout, timed.num_tokens, config.queue_length)
    hosts.say(f"{subject.device_words()}: compiling")
    with _compiled_anew():
        steps = Steps(timed)
    for part in step_parts.LEFT_OUT:
        steps.add(part)
    hosts.say("timing the training step")
    step = trials.alternate(_step_actions(timed, steps, theirs), step_budget)
    results: Results = {
        "config": report.described(timed),
        "devices": subject.device_words(),
        "versions": report.versions(theirs is not None),
        "step": report.step_results(timed, steps, step),
        "roofline": report.roofline_results(steps, step),
    }
    hosts.say("timing the evaluation")
    sample, encoding = time_encoding(
        timed, build.retrieving_variables(config, steps.state), steps.layout, theirs, budget
    )
    if sample is not None:
        results["encoding"] = report.encoding_results(sample, encoding)
    ranking = time_ranking(timed, theirs, budget)
    results["ranking"] = report.summaries(ranking)
    read, images = _input(timed, steps, checkout, left_out, budget)
    if read:
        results["input"] = report.input_results(read, images, data.read_threads(config))
    if theirs is not None:
        results["original"] = {
            "device": theirs.device,
            "stand_ins": list(theirs.stand_ins),
            "rows": report.comparison(step, encoding, ranking, read, images),
        }
    results["left_out"] = left_out
    folder = workdir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(results, indent=2) + "\n")
    report.draw(folder / "benchmark.png", results)
    hosts.say(report.text(results))
    hosts.say(f"saved: {folder / 'benchmark.json'}, {folder / 'benchmark.png'}")
    return results


def _step_actions(timed: Subject, steps: Steps, theirs: TimedOriginal | None) -> dict[str, Action]:
    dtype = recipe.compute_dtype(timed.config) or jnp.float32
    actions = {**steps.actions(), **roofline.machine_actions(dtype)}
    if theirs is not None:
        augment = step_parts.augmenter(timed.settings, steps.layout)
        images = jax.device_get(augment(steps.variants[WHOLE].batch))
        actions[ORIGINAL] = theirs.step(timed.batch, images)
    return actions


def time_encoding(
    timed: Subject,
    variables: Variables,
    layout: Layout,
    theirs: TimedOriginal | None,
    budget: Budget,
) -> tuple[SplitSample | None, dict[str, Timing]]:
    """Times the encoders on a part of the test split, and the original's on the same part.

    Without data there is no such part, and nothing is timed.
    """
    if timed.data is None:
        return None, {}
    size = timed.config.evaluation.batch_size
    captions = size if jax.default_backend() == "cpu" else 10 * size
    sample = first_captions(timed.data.test, captions, size)
    dtype, by = recipe.compute_dtype(timed.config), normalisation(timed.config)
    encoders = embed.make_encoders(timed.model, layout, dtype, by)
    embed_images = partial(embed.embed_images, encoders, variables)
    embed_texts = partial(embed.embed_texts, encoders, variables)
    texts = sample.tokens, sample.lengths, sample.word_concepts
    actions: dict[str, Action] = {
        report.IMAGES: partial(embed_images, sample.images, size),
        report.CAPTIONS: partial(embed_texts, texts, size),
    }
    if theirs is not None:
        # The original encodes an image for every caption.
        paired = sample.images[sample.image_of_caption]
        actions[report.PAIRED_IMAGES] = partial(embed_images, paired, size)
        actions[ORIGINAL] = theirs.encode(sample)
    return sample, trials.alternate(actions, budget)


def time_ranking(timed: Subject, theirs: TimedOriginal | None, budget: Budget) -> dict[str, Timing]:
    """Times the ranking of random scores as many as RSICD's and the config's test split have."""
    images, captions = RSICD_TEST
    scores = random_scores(images, captions)
    rank_rsicd = partial(ranks.rank_both_ways, scores, np.arange(captions) // 5)
    actions: dict[str, Action] = {report.RSICD_RANKING: rank_rsicd}
    if timed.data is not None:
        image_of_caption = timed.data.test.image_of_caption
        own = random_scores(len(timed.data.test.images), len(image_of_caption))
        actions[report.OWN_RANKING] = partial(ranks.rank_both_ways, own, image_of_caption)
    if theirs is not None:
        actions[ORIGINAL] = theirs.rank(scores)
    return trials.alternate(actions, budget)


def _input(
    timed: Subject, steps: Steps, checkout: Path | None, left_out: list[str], budget: Budget
) -> tuple[dict[str, Timing], dict[str, int]]:
    """Returns the timings, and how many images a trial reads."""
    if timed.data is None:
        return {}, {}
    config = timed.config
    train = timed.data.train
    columns = build.caption_columns(config, train)
    ours = BatchReader(train, config.seed, config.batch_size, columns)
    augment = step_parts.augmenter(timed.settings, steps.layout)
    actions = {
        report.READ: ours.read,
        report.READ_AND_AUGMENT: ours.read_and_augment(augment, steps.layout),
    }
    images = dict.fromkeys(actions, ours.images)
    with tempfile.TemporaryDirectory() as folder:
        if checkout is not None:
            prepared = data.open_data(config)
            try:
                theirs = TimedOriginalInput(
                    checkout, Path(folder), prepared, timed.data, config.batch_size
                )
            except TorchOriginalError as error:
                left_out.append(f"the input of the PyTorch original is left out: {error}")
                hosts.warn(left_out[-1])
            else:
                actions[ORIGINAL], images[ORIGINAL] = theirs.read, theirs.images
        hosts.say("timing the input")
        return trials.alternate(actions, budget), images


@contextlib.contextmanager
def _compiled_anew() -> Iterator[None]:
    """Keeps compilations from coming out of the cache on the disk: they are timed, too."""
    settings: Any = jax.config
    was = settings.jax_enable_compilation_cache
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(was)


def _use_cache(used: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", used)
    compilation_cache.reset_cache()  # JAX asks for the setting once
