"""Part (e): the PyTorch original and ours train on the same images, epoch by epoch in turn.

Both start from random weights of their own. In every step both get the same pairs, which lie
decoded in the GPU's memory, and each pair's image is rotated, cropped and normalised by our code
for both: the race is about training steps and what they learn. The original's own loader, which
decodes an image whenever a caption of it is shown, takes no part.

The original's model, losses, optimiser, schedule and ranking are its own code, called as its
training loop and its validation do, without the waits and prints between the calls. Its towers are
called one by one to encode the test split: an image is then encoded once, not once a caption.
"""

import contextlib
import io
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from input_pipeline.splits.batches import batch_captions, prefetched
from input_pipeline.splits.examples import Examples
from kamcl_jax.benchmark import subject
from kamcl_jax.benchmark.against_original import DROPOUT, LEARNING_RATE, check_num_concepts
from kamcl_jax.benchmark.gpu_check.step_times import DTYPES
from kamcl_jax.benchmark.gpu_check.task import Task, changed
from kamcl_jax.benchmark.gpu_check.training import Training
from kamcl_jax.benchmark.subject import Subject
from kamcl_jax.config import build, recipe
from kamcl_jax.config.encoders import normalisation
from kamcl_jax.inference import embed
from kamcl_jax.ranking import metrics
from kamcl_jax.ranking.scores import Embeddings
from kamcl_jax.step import augmentation
from kamcl_jax.step.encoding import Batch
from kamcl_jax.step.train_step import augment
from kamcl_jax.torch_release.original import TorchOriginal
from kamcl_jax.train import feed
from kamcl_jax.train.feed import Fetch

ORIGINAL = "original"
DECAY = (0.5, 10)
"""By what and every how many epochs the original's options lower the learning rate."""

THROUGH_HOST = "through_host"
"""Stands in the original's curve where its batches had to be copied by the host."""

HELD = 4
"""So many batches are kept in JAX's memory until PyTorch has surely copied them."""

MARGIN = 1.15
"""A round is begun if so many times what the last one took is left."""


def ours(dtype: str) -> str:
    """Returns the name of our program among the runners."""
    return f"ours, {dtype}"


class Runner(Protocol):
    """One program that trains."""

    def train_epoch(self, epoch: int) -> float:
        """Trains an epoch, counted from 0, and returns the mean loss."""

    def score(self) -> dict[str, float]:
        """Returns the test split's metrics."""


def measure(task: Task) -> None:
    """Lets all train one epoch after another, and another seed where there is time for it."""
    task.results["config"] = {
        "batch_size": task.config.batch_size,
        "image_size": task.config.image_size,
        "num_epochs": task.config.num_epochs,
        "alignment_from_epoch": task.config.schedule.alignment_from_epoch,
    }
    if not subject.has_data(task.config):
        task.leave_out("runs", "there are no data")
        return
    task.results["runs"] = []
    for seed in range(task.config.seed, task.config.seed + task.sizes.seeds):
        began = time.monotonic()
        run: dict[str, Any] = {"seed": seed, "curves": {}, "start_seconds": {}, "failed": {}}
        task.results["runs"].append(run)
        if not _run_seed(task, run) or task.left() < MARGIN * (time.monotonic() - began):
            return


def _run_seed(task: Task, run: dict[str, Any]) -> bool:
    """Races with one seed until the last epoch; returns False if time ran out before."""
    config = changed(task.config, seed=run["seed"], data__residency="device")
    experiment = build.build(config)
    fetch = feed.choose(experiment, 0).open()
    runners: dict[str, Runner] = {}
    for name, start in _starts(task, config, fetch).items():
        with _told(task, run, name):
            started = time.perf_counter()
            runners[name] = start()
            run["start_seconds"][name] = time.perf_counter() - started
            run["curves"][name] = []
    for epoch in range(config.num_epochs):
        began = time.monotonic()
        for name in [name for name in runners if name not in run["failed"]]:
            with _told(task, run, name):
                curve = run["curves"][name]
                curve.append(_epoch(runners[name], epoch, curve))
                print(run["seed"], name, curve[-1], flush=True)
        if task.left() < MARGIN * (time.monotonic() - began) and epoch + 1 < config.num_epochs:
            return False
    return True


@contextlib.contextmanager
def _told(task: Task, run: dict[str, Any], name: str) -> Iterator[None]:
    """Writes down what happened; a runner that fails is out, and the others go on."""
    try:
        yield
    except Exception:
        run["failed"][name] = traceback.format_exc()
        print(run["failed"][name], flush=True)
    task.save()


def _epoch(runner: Runner, epoch: int, before: list[dict[str, Any]]) -> dict[str, Any]:
    started = time.perf_counter()
    loss = runner.train_epoch(epoch)
    trained = time.perf_counter()
    scores = runner.score()
    seconds = trained - started
    return {
        "epoch": epoch + 1,
        "loss": loss,
        "seconds": seconds,
        "minutes": (sum(one["seconds"] for one in before) + seconds) / 60,
        "scoring_seconds": time.perf_counter() - trained,
        **scores,
    }


def _starts(
    task: Task, config: ml_collections.ConfigDict, fetch: Fetch
) -> dict[str, Callable[[], Runner]]:
    """Returns what makes each runner."""
    starts: dict[str, Callable[[], Runner]] = {
        ours(dtype): partial(Ours, changed(config, dtype=dtype), fetch) for dtype in DTYPES
    }
    if task.checkout is not None:
        starts[ORIGINAL] = partial(Original, config, fetch, task.checkout)
    return starts


class Ours:
    """Our training, with the training split in the device's memory."""

    def __init__(self, config: ml_collections.ConfigDict, fetch: Fetch):
        """Compiles the step."""
        self._training, self._fetch = Training.of(config), fetch
        timed = self._training.subject
        dtype = recipe.compute_dtype(timed.config)
        layout = self._training.steps.layout
        by = normalisation(timed.config)
        self._encoders = embed.make_encoders(timed.model, layout, dtype, by)

    def train_epoch(self, epoch: int) -> float:
        """See `Runner`."""
        steps = _steps_of(epoch, self._training.subject)
        losses = self._training.take_with_input(self._fetch, steps)
        return float(np.mean(jax.device_get(losses)))

    def score(self) -> dict[str, float]:
        """See `Runner`."""
        timed = self._training.subject
        variables = build.retrieving_variables(timed.config, self._training.steps.state)
        test, size = _test(timed), timed.config.evaluation.batch_size
        embeddings = embed.embed(self._encoders, variables, test, size)
        return _scores(embeddings, test)


class Original:
    """The original's training on the batches of ours."""

    def __init__(self, config: ml_collections.ConfigDict, fetch: Fetch, checkout: Path):
        import torch

        self._timed, self._fetch = subject.make(config), fetch
        check_num_concepts(self._timed.num_concepts)
        self._augment = jax.jit(partial(augment, settings=self._timed.settings))
        torch.manual_seed(config.seed)
        self._on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        self._original = TorchOriginal(
            checkout,
            self._timed.num_tokens - 1,
            config.queue_length,
            np.float32,
            DROPOUT,
            on_gpu=self._on_gpu,
        )
        self._original.start_adam(LEARNING_RATE)
        self._shares_memory = _tensors_share_memory()
        self._held: deque[tuple[Any, Batch]] = deque()

    def train_epoch(self, epoch: int) -> float:
        """See `Runner`."""
        import torch

        self._original.adjust_learning_rate(epoch, *DECAY)
        losses = []
        steps = _steps_of(epoch, self._timed)
        with contextlib.closing(prefetched(self._inputs, steps)) as batches:
            for inputs, labels in batches:
                found, _ = self._original.take_step(epoch, inputs, labels)
                losses.append(found[0].detach())
        return float(torch.stack(losses).mean())

    def _inputs(self, step: int) -> tuple[Any, Any]:
        """Returns the original's inputs and labels of a step: arrays of JAX's as tensors."""
        config, lengths = self._timed.config, _train(self._timed).lengths
        rows = batch_captions(config.seed, step, len(lengths), config.batch_size)
        batch = self._fetch(step)
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        arrays = {**batch, "image": self._augment(key, batch)}
        needed = ("image", "tokens", "word_concepts", "image_concepts")
        arrays = jax.block_until_ready({name: arrays[name] for name in needed})
        image, tokens, words, labels = (self._tensor(arrays[name]) for name in needed)
        # Copies: JAX takes an array's memory back as soon as no tensor shares it, and PyTorch's
        # kernels may not have run by then.
        image = image.permute(0, 3, 1, 2).contiguous()
        tokens = tokens[:, : int(lengths[rows].max())].long()
        copies = (image, tokens, words.clone()), labels.clone()
        self._hold(arrays)
        return copies

    def _tensor(self, array: jax.Array) -> Any:
        import torch

        if self._shares_memory:
            return torch.from_dlpack(array.addressable_data(0))
        return self._original.tensor(np.asarray(array))

    def _hold(self, arrays: Batch) -> None:
        """Keeps arrays until the GPU has copied them, without waiting for the last ones."""
        import torch

        if self._on_gpu:
            copied = torch.cuda.Event()
            copied.record()
            self._held.append((copied, arrays))
            if len(self._held) > HELD:
                self._held.popleft()[0].synchronize()

    def score(self) -> dict[str, float]:
        """See `Runner`; `mR_by_original` is by the original's own ranking."""
        test = _test(self._timed)
        size = self._timed.config.evaluation.batch_size
        images, captions = self._embed(test, size)
        functions = self._original.functions
        with self._original.surroundings(), contextlib.redirect_stdout(io.StringIO()):
            scores = functions.shard_dis(images, captions)
            recalls = [*functions.acc_i2t2(scores)[0][:3], *functions.acc_t2i2(scores)[0][:3]]
        units = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, captions))
        found = {**_scores(Embeddings(*units), test), "mR_by_original": float(np.mean(recalls))}
        return found if self._shares_memory else {**found, THROUGH_HOST: 1.0}

    def _embed(self, test: Examples, size: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        original, images, captions = self._original, [], []
        model = original.model.eval()
        with torch.no_grad(), original.surroundings():
            for rows in _chunks(len(test.images), size):
                pixels = np.asarray(augmentation.normalise(jnp.asarray(test.images[rows])))
                tensor = original.tensor(pixels.transpose(0, 3, 1, 2))
                images.append(model.visualmodelQ(tensor)[0].cpu().numpy())
            for rows in _chunks(len(test.lengths), size):
                tokens = test.tokens[rows][:, : int(test.lengths[rows].max())]
                words = test.word_concepts[rows].astype(np.float32)
                tensors = original.tensor(tokens).long(), original.tensor(words)
                captions.append(model.textmodelQ(*tensors)[0].cpu().numpy())
        return np.concatenate(images), np.concatenate(captions)


def _tensors_share_memory() -> bool:
    """Returns whether PyTorch takes JAX's arrays as they are, here where the GPU is."""
    import torch

    try:
        return float(torch.from_dlpack(jnp.ones(4)).sum()) == 4
    except Exception:  # the releases of both decide; the race can do without
        traceback.print_exc()
        return False


def _train(timed: Subject) -> Examples:
    assert timed.data is not None  # the race is left out without data
    return timed.data.train


def _test(timed: Subject) -> Examples:
    assert timed.data is not None
    return timed.data.test


def _steps_of(epoch: int, timed: Subject) -> range:
    """Returns the numbers of an epoch's steps."""
    count = len(_train(timed).captions) // timed.config.batch_size
    return range(epoch * count, (epoch + 1) * count)


def _chunks(count: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def _scores(embeddings: Embeddings, test: Examples) -> dict[str, float]:
    found = metrics.retrieval_metrics(embeddings, test.image_of_caption)
    return {name: float(value) for name, value in found.items() if name == "mR" or "_r" in name}
