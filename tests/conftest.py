"""Shared fixtures: eight simulated devices and one tiny model, compiled once a session."""

import jax

jax.config.update("jax_num_cpu_devices", 8)

import dataclasses
import os
from collections.abc import Callable
from functools import partial

import numpy as np
import optax
import pytest

from configs import synthetic
from kamcl_jax import from_config, sharding, train_state
from kamcl_jax.models.encoders import DualEncoder
from kamcl_jax.train_step import StepSettings, make_train_step

pytest_plugins = [
    "command_line",
    "small_release",
    "stored_runs",
    "tiny_data_set",
    "tiny_index",
    "tiny_page",
]

BATCH, IMAGE_SIZE, MAX_TOKENS, WORDS, CONCEPTS, EMBEDDING, QUEUE = 8, 64, 6, 20, 12, 16, 16


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A tiny model with everything that a training step takes."""

    model: DualEncoder
    optimizer: optax.GradientTransformation
    settings: StepSettings
    state: Callable[[], train_state.TrainState]

    def batch(self, seed: int = 0) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(seed)
        lengths = generator.integers(2, MAX_TOKENS + 1, BATCH).astype(np.int32)
        tokens = generator.integers(1, WORDS, (BATCH, MAX_TOKENS)).astype(np.int32)
        tokens[np.arange(MAX_TOKENS) >= lengths[:, None]] = 0
        side = IMAGE_SIZE + 3
        return {
            "image": generator.integers(0, 256, (BATCH, side, side, 3)).astype(np.uint8),
            "tokens": tokens,
            "lengths": lengths,
            "word_concepts": (generator.random((BATCH, CONCEPTS)) < 0.2).astype(np.float32),
            "image_concepts": generator.random((BATCH, CONCEPTS)).astype(np.float32),
        }


def tiny_config():
    """The embedded data set and the whole model, as small as they get."""
    config = synthetic.get_config()
    config.image_size = IMAGE_SIZE
    config.batch_size = BATCH
    config.embedding_size = EMBEDDING
    config.num_concepts = CONCEPTS
    config.queue_length = QUEUE
    config.image_encoder.width = 4
    config.text_encoder.word_width = 6
    config.text_encoder.hidden_width = 10
    config.schedule.alignment_from_epoch = 1
    config.data.options.update({"train": 24, "validation": 6, "test": 6, "size": 48})
    return config


LONGEST = ("test_two_processes.py", "test_golden_check.py", "test_kill_and_resume.py")
"""Files of some minutes; first, so that of several workers none is left alone with one."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)  # stable: modules stay together


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Runs of the same program share their compilation; the user's cache is left alone."""
    base = tmp_path_factory.getbasetemp()
    # One for all workers: a program of which another has written half so far is compiled anew.
    folder = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder  # of commands that tests start
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    config, steps_per_epoch = tiny_config(), 2
    model = from_config.make_model(config, WORDS, CONCEPTS)
    # A large epsilon: with Adam's usual one, entries whose gradient is rounding noise would
    # move by the whole learning rate and no comparison of parameters were well conditioned.
    optimizer = optax.adam(1e-3, eps=1e-3)
    make_state = partial(
        train_state.create,
        0,
        model,
        optimizer,
        image_size=IMAGE_SIZE,
        num_concepts=CONCEPTS,
        embedding_size=EMBEDDING,
        queue_length=QUEUE,
    )
    settings = from_config.make_settings(config, steps_per_epoch)
    return Tiny(model, optimizer, settings, jax.jit(make_state))


@pytest.fixture(scope="session")
def one_device():
    return sharding.replicated(sharding.make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope="session")
def tiny_step(tiny, one_device):
    """The compiled step on one device; steps 0 and 1 are epoch 0, step 2 of KAMCL follows."""
    return make_train_step(tiny.model, tiny.optimizer, tiny.settings, one_device)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Four steps of the tiny model."""

    states: list
    metrics: list


@pytest.fixture(scope="session")
def trained(tiny, tiny_step, one_device) -> Trained:
    """States (on the host) and metrics around four steps on one device."""
    state = jax.device_put(tiny.state(), one_device.whole)
    states, metrics = [jax.device_get(state)], []
    for step in range(4):
        state, measured = tiny_step(state, sharding.put_batch(one_device, tiny.batch(step)))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(measured))
    return Trained(states, metrics)
