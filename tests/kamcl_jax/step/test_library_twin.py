"""Whole compiled programs, and their gradients, against a twin that is made of library parts.

Each fast path of ours is compared where it is used: an operation that is right alone can be wrong
once XLA has fused it with its neighbours. Programs are compiled as users have them compiled.

The twin in float64 is the truth. In float32 our errors may be a small multiple of the twin's own.
"""

import dataclasses
import functools
import re

import jax
import library_twin
import numpy as np
import optax
import pytest

from configs import synthetic
from kamcl_jax.config import build, recipe
from kamcl_jax.models import layers, resnet, skip_thoughts
from kamcl_jax.models.layers import max_pool
from kamcl_jax.parallel import mesh
from kamcl_jax.step import state as train_state
from kamcl_jax.step.encoding import cast_floats
from kamcl_jax.step.train_step import make_train_step

WORDS, CONCEPTS, EMBEDDING, MAX_TOKENS = 20, 12, 16, 6
OPTIMIZER = optax.adam(1e-3, eps=1e-3)

ALLOWED = {"float32": 10, "bfloat16": 2}
"""Our errors may be this many times the largest rounding error of any tensor of the twin's tower.

Rounding in bfloat16 is coarse, and there the twin's largest error is half of the tensor.
"""

SIZES, BATCHES, DEPTHS = (64, 96, 100, 128, 224, 256), (2, 7, 10), (18, 50)
BATCH = 16
"""It is shared by eight devices, where the batches above cannot be."""

DTYPES = ("float32", "float64", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is differentiated, at which sizes.

    Attributes:
      part: "image" or "text", a tower alone, or "step", the whole training step.
      batch: pairs.
      image_size: side in pixels.
      depth: of the ResNet.
      width: of its first stage. With fewer channels XLA fuses less.
    """

    part: str
    batch: int
    image_size: int = 64
    depth: int = 18
    width: int = 8

    @functools.cached_property
    def config(self):
        config = synthetic.get_config()
        config.image_size, config.batch_size = self.image_size, self.batch
        config.embedding_size, config.num_concepts = EMBEDDING, CONCEPTS
        config.queue_length = 2 * self.batch
        config.image_encoder.width, config.image_encoder.depth = self.width, self.depth
        config.text_encoder.word_width, config.text_encoder.hidden_width = 6, 10
        config.text_encoder.dropout = 0.0  # float32 and float64 would draw other masks
        config.schedule.alignment_from_epoch = 0
        return config

    @functools.cached_property
    def model(self):
        return build.make_model(self.config, WORDS, CONCEPTS)

    @functools.cached_property
    def state(self):
        create = functools.partial(
            train_state.create,
            0,
            self.model,
            OPTIMIZER,
            image_size=self.image_size,
            num_concepts=CONCEPTS,
            embedding_size=EMBEDDING,
            queue_length=self.config.queue_length,
        )
        generator = np.random.default_rng(2)

        def draw(path, leaf):  # as large as a model's tensors are; compiling `create` takes long
            if leaf.dtype != np.float32:
                return np.zeros(leaf.shape, leaf.dtype)
            if leaf.ndim > 1:
                return generator.normal(0, leaf.shape[-2] ** -0.5, leaf.shape).astype(np.float32)
            positive = path[-1].key in ("scale", "var")
            low, high = (0.5, 1.5) if positive else (-0.1, 0.1)
            return generator.uniform(low, high, leaf.shape).astype(np.float32)

        state = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(create))
        return state.replace(opt_state=jax.tree.map(np.zeros_like, state.opt_state))

    @functools.cached_property
    def data(self):
        generator = np.random.default_rng(0)
        lengths = generator.integers(2, MAX_TOKENS + 1, self.batch).astype(np.int32)
        tokens = generator.integers(1, WORDS, (self.batch, MAX_TOKENS)).astype(np.int32)
        tokens[np.arange(MAX_TOKENS) >= lengths[:, None]] = 0
        side = self.image_size
        return {
            "image": generator.normal(size=(self.batch, side, side, 3)).astype(np.float32),
            "tokens": tokens,
            "lengths": lengths,
            "word_concepts": (generator.random((self.batch, CONCEPTS)) < 0.2).astype(np.float32),
            "image_concepts": generator.random((self.batch, CONCEPTS)).astype(np.float32),
        }


def computed(
    case, dtype, *, library=False, devices=1, dropout=0.0, pooling_kernel="counting", **image
):
    """Returns f64 arrays by tower and name: what a case computes in a dtype."""
    arrays = case.state, case.data
    model = case.model.clone(
        image=case.model.image.clone(pooling_kernel=pooling_kernel, **image),
        text=case.model.text.clone(pooling_kernel=pooling_kernel, dropout=dropout),
    )
    with jax.enable_x64(dtype == "float64"):
        state, data = cast_floats(arrays, "float64" if dtype == "float64" else "float32")
        layout = mesh.replicated(mesh.make_mesh(devices=jax.devices()[:devices]))
        state, data = jax.device_put(state, layout.state), mesh.put_batch(layout, data)
        inside = dtype if dtype == "bfloat16" else None
        if case.part == "step":
            found = of_step(case, model, inside, library, layout, state, data)
        else:
            model = library_twin.twin_of(model) if library else model
            found = of_tower(case, model, inside, layout, state, data)
        found = jax.device_get(found)
    paths = jax.tree_util.tree_leaves_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(x, np.float64) for path, x in paths}


def of_step(case, model, dtype, library, layout, state, data):
    settings = recipe.make_settings(case.config, steps_per_epoch=2)
    settings = dataclasses.replace(settings, dtype=dtype)
    if library:
        step = library_twin.make_step(model, OPTIMIZER, settings, case.config)
        after, metrics, gradients = step(state, data)
    else:

        def observe(gradients, _):
            return {"gradients": gradients}

        after, metrics = make_train_step(model, OPTIMIZER, settings, layout, observe)(state, data)
        gradients = metrics["gradients"]
    queues = {"image": after.image_queue, "text": after.text_queue}
    found = {
        tower: {
            "gradients": gradients[tower],
            "params": after.params[tower],
            "key_params": after.key_params[tower],
            "queue": queue.keys,
        }
        for tower, queue in queues.items()
    }
    # Of the variances Linen keeps the biased ones.
    stats = jax.tree_util.tree_leaves_with_path((after.batch_stats, after.key_batch_stats))
    found["image"]["means"] = [leaf for path, leaf in stats if path[-1].key == "mean"]
    found["image"]["terms"] = {name: metrics[name] for name in ("triplet", "contrastive")}
    found["text"]["terms"] = {name: metrics[name] for name in ("alignment", "loss")}
    return found


def of_tower(case, model, dtype, layout, state, data):
    names = {"image": ["image"], "text": ["tokens", "lengths", "word_concepts"]}[case.part]

    def product(params, batch_stats, inputs):
        if dtype is not None:
            params, inputs = cast_floats((params, inputs), dtype)
        outputs, _ = model.apply(
            {"params": {case.part: params}, "batch_stats": batch_stats},
            *inputs,
            train=True,
            method=f"encode_{case.part}s",
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        generator = np.random.default_rng(1)
        return sum((x * generator.normal(size=x.shape).astype(x.dtype)).sum() for x in outputs)

    gradient = jax.jit(
        jax.grad(product),
        in_shardings=(layout.whole, layout.whole, layout.batch),
        compiler_options=mesh.compiler_options(layout.mesh),
    )
    inputs = [data[name] for name in names]
    return {case.part: gradient(state.params[case.part], state.batch_stats, inputs)}


def errors(found, truth):
    """Returns the relative error of each array."""
    assert found.keys() == truth.keys()
    return {
        name: np.linalg.norm(found[name] - value) / np.linalg.norm(value)
        for name, value in truth.items()
    }


def tower(name):
    return name.split("'")[1]


@functools.cache
def truth(case):
    return computed(case, "float64", library=True)


@functools.cache
def allowed(case, dtype):
    """Returns the largest relative error that an array of a tower may have."""
    if dtype == "float64":
        return dict.fromkeys(("image", "text"), 1e-10)
    noise = errors(computed(case, dtype, library=True), truth(case))
    assert all(np.isfinite(list(noise.values())))
    return {
        part: ALLOWED[dtype] * max(error for name, error in noise.items() if tower(name) == part)
        for part in set(map(tower, noise))
    }


def check(case, dtype="float32", **how):
    """Asserts that we compute what the twin computes, but for rounding."""
    found = errors(computed(case, dtype, **how), truth(case))
    most = allowed(case, dtype)
    wrong = {name: error for name, error in found.items() if not error <= most[tower(name)]}
    assert not wrong, (most, wrong)


# One size, so that the twin is compiled once; the others are in the long tests.
IMAGE_TOWER = Case("image", BATCH, 96)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_image_tower_has_the_twin_s_gradients(devices):
    check(IMAGE_TOWER, devices=devices)


def test_the_image_tower_has_them_at_an_odd_size():
    check(Case("image", BATCH, 100), "float64")


def test_blocks_that_are_computed_again_leave_the_twin_s_gradients():
    check(IMAGE_TOWER, rematerialise=True)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Has this device run what a GPU runs; its kernels are interpreted."""
    monkeypatch.setattr(layers, "_moments", layers._moments_in_one_pass)
    monkeypatch.setattr(skip_thoughts, "_run", skip_thoughts._run_unrolled)
    monkeypatch.setattr(skip_thoughts, "_run_back", skip_thoughts._run_back_unrolled)
    return functools.partial(check, pooling_kernel="pallas")


def test_an_image_tower_as_a_gpu_runs_it_has_the_twin_s_gradients(as_on_a_gpu):
    as_on_a_gpu(IMAGE_TOWER, devices=8)


def test_a_text_tower_as_a_gpu_runs_it_has_the_twin_s_gradients(as_on_a_gpu):
    as_on_a_gpu(Case("text", BATCH), "float64")


@pytest.mark.long
@pytest.mark.parametrize(("batch", "size"), [(2, 64), (7, 100), (10, 128)])
def test_towers_as_a_gpu_runs_them_have_them_at_other_sizes(as_on_a_gpu, batch, size):
    as_on_a_gpu(Case("image", batch, size), "float64")
    as_on_a_gpu(Case("text", batch), "float64")


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_step_as_a_gpu_runs_it_does_what_the_twin_s_does(as_on_a_gpu, dtype, devices):
    as_on_a_gpu(Case("step", BATCH, 96), dtype, devices=devices)


def test_the_text_tower_has_the_twin_s_gradients():
    check(Case("text", BATCH), devices=8)


# On one device the golden files hold the step, in float64.
def test_the_step_does_what_the_twin_s_does():
    check(Case("step", BATCH, 96), devices=8)


FLOATS_ARE_EQUAL = re.compile(r"stablehlo\.compare +(?:EQ|NE),.*tensor<(?:\d+x)+b?f\d+>\)")
"""As a program says it of arrays. (Of two numbers `argmax` asks it, and picks one in any case.)"""


def test_no_device_s_step_asks_whether_floats_are_equal(tiny, tiny_step):
    # XLA may compute one of them a second time and round it otherwise, and the tests see only what
    # it makes of a few sizes on a CPU. The gradients of `jnp.max` and `jnp.maximum` do ask.
    traced = tiny_step.trace(jax.eval_shape(tiny.state), tiny.batch())
    program = traced.lower(lowering_platforms=("cpu", "cuda", "tpu")).as_text()
    assert "stablehlo.compare" in program
    assert not FLOATS_ARE_EQUAL.findall(program)


def test_dropout_is_the_twin_s():
    case = Case("text", 3)
    ours, expected = (computed(case, "float64", library=x, dropout=0.25) for x in (False, True))
    assert max(errors(ours, expected).values()) < 1e-10


def test_a_gradient_that_is_off_by_a_thousandth_is_seen(monkeypatch):
    @jax.custom_jvp
    def altered(x):
        return max_pool(x)

    @altered.defjvp
    def _(primals, tangents):
        pooled, tangent = jax.jvp(library_twin.max_pool, primals, tangents)
        return pooled, 1.001 * tangent

    monkeypatch.setattr(resnet, "max_pool", altered)
    with pytest.raises(AssertionError, match="bn1"):
        check(IMAGE_TOWER)


def matrix():
    """Yields cases, precisions and numbers of devices, each varied while the others rest."""
    some = [(96, dtype) for dtype in DTYPES if dtype != "float32"]
    at_a_size = [*((size, "float32") for size in SIZES), *some]
    in_a_batch = [*((batch, "float32") for batch in BATCHES), *((7, dtype) for _, dtype in some)]
    for depth in DEPTHS:
        for size in SIZES:
            for batch, dtype in in_a_batch:
                yield Case("image", batch, size, depth), dtype, 1
        for size, dtype in at_a_size:
            yield Case("image", BATCH, size, depth), dtype, 8
    for dtype in DTYPES:
        for batch in BATCHES:
            yield Case("text", batch), dtype, 1
        yield Case("text", BATCH), dtype, 8
    for devices in (1, 8):
        for size, dtype in at_a_size:
            yield Case("step", BATCH, size), dtype, devices
        yield Case("step", BATCH, 100, depth=50), "float32", devices


@pytest.mark.long
@pytest.mark.parametrize(("case", "dtype", "devices"), matrix(), ids=str)
def test_everything_at_all_sizes(case, dtype, devices):
    check(case, dtype, devices=devices)
