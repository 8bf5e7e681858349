"""What trains moves and what is frozen does not; adapters merged are adapters applied apart."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_clip
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from tiny_clip import LENGTHS, TINY

from kamcl_jax.config.build import UNOPTIMISED
from kamcl_jax.models.clip.towers import dual_encoder
from kamcl_jax.models.clip.transformer import Projections
from kamcl_jax.step.finetuning import LORA_DOWN, LORA_UP, Finetuning, split, whole

KINDS = {
    "all": Finetuning(),
    "heads": Finetuning("heads"),
    "blocks": Finetuning("blocks", last_blocks=1),
    "lora": Finetuning("lora", rank=3, alpha=6.0),
}
LORA = KINDS["lora"]
LAST_BLOCKS = ("image/tower/transformer/block_1/", "text/tower/transformer/block_0/")
KEY = jax.random.key(0)
WORDS = np.zeros((3, 5), np.float32)


@cache
def model(name):
    """(the preset, its encoders with five concepts, their parameters)."""
    preset = TINY[name]
    encoders = dual_encoder(preset, 5)
    init = jax.jit(partial(encoders.init, train=False), compiler_options=UNOPTIMISED)
    return preset, encoders, init(KEY, *tiny_clip.inputs(preset), LENGTHS, WORDS)["params"]


@pytest.fixture(params=["clip", "siglip"])
def params(request):
    return model(request.param)[2]


def paths(tree):
    return {"/".join(path): leaf for path, leaf in flatten_dict(tree).items()}


def loss_of(preset, encoders, params):
    """A loss that every parameter has a gradient of."""
    inputs = *tiny_clip.inputs(preset), LENGTHS, WORDS
    outputs = encoders.apply({"params": params}, *inputs, train=True)
    units = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x, _ in outputs)
    of_concepts = sum(jnp.sum(concepts**2) for _, concepts in outputs)
    return tiny_clip.loss(preset, params, *units) + of_concepts


def expected_to_train(kind, path):
    """Says so by hand, for two blocks of the image tower and one of the text tower."""
    behind = "transformer/" not in path and not any(
        before in path
        for before in ("patches", "class_embedding", "positions", "norm_before", "tokens")
    )
    if kind == "lora":
        adapted = path.endswith("kernel") and ("/attention/" in path or "/mlp/" in path)
        return "concept_head" in path or path.startswith("logit") or adapted
    return kind == "all" or behind or (kind == "blocks" and path.startswith(LAST_BLOCKS))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_at_the_start_the_whole_is_what_was_split_bit_by_bit(params, kind, dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), params)

    def there_and_back(params, key):
        return whole(KINDS[kind], *split(KINDS[kind], params, key))

    found = jax.jit(there_and_back, compiler_options=UNOPTIMISED)(params, KEY)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert jax.eval_shape(there_and_back, params, KEY) == jax.eval_shape(lambda: params)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_parts_hold_what_they_are_said_to(params, kind):
    trained, frozen = (paths(part) for part in split(KINDS[kind], params, KEY))
    places = {path.removesuffix(f"/{LORA_DOWN}").removesuffix(f"/{LORA_UP}") for path in trained}
    assert places == {path for path in paths(params) if expected_to_train(kind, path)}
    adapted = {path for path in places if path not in trained}
    assert set(frozen) == set(paths(params)) - (places - adapted)
    assert bool(adapted) == (kind == "lora")
    for place in adapted:
        down, up = trained[f"{place}/{LORA_DOWN}"], trained[f"{place}/{LORA_UP}"]
        assert (len(down), up.shape[1]) == frozen[place].shape
        assert down.shape[1] == len(up) == LORA.rank
        assert 0 < np.abs(down).max() <= len(down) ** -0.5
        assert not np.any(up)


def test_with_all_nothing_is_joined(params):
    trained, frozen = split(KINDS["all"], params, KEY)
    assert frozen == {}
    assert whole(KINDS["all"], trained, frozen) is trained


@pytest.mark.parametrize(
    ("name", "kind"), [("clip", "heads"), ("clip", "blocks"), ("siglip", "lora")]
)
def test_two_steps_move_what_trains_and_no_bit_of_the_rest(name, kind):
    preset, encoders, params = model(name)
    finetuning, optimizer = KINDS[kind], optax.adamw(1e-2, weight_decay=0.1)
    trained, frozen = split(finetuning, params, KEY)

    @partial(jax.jit, compiler_options=UNOPTIMISED)
    def step(trained, frozen, state):
        def loss(trained, frozen):
            return loss_of(preset, encoders, whole(finetuning, trained, frozen))

        gradient, none = jax.grad(loss, argnums=(0, 1))(trained, frozen)
        updates, state = optimizer.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, none

    state = optimizer.init(trained)
    for _ in range(2):
        trained, state, none = step(trained, frozen, state)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(none))
    before, after = paths(params), paths(whole(finetuning, trained, frozen))
    moved = {path for path in before if np.any(before[path] != after[path])}
    assert moved == {path for path in before if expected_to_train(kind, path)}


def applied_apart(trained, scale):
    """Makes dense layers add what their adapters say of the input, beside their own kernels."""
    adapters = flatten_dict(trained)

    def intercept(call, args, kwargs, context):
        outputs = call(*args, **kwargs)
        place = (*context.module.path, "kernel")
        if context.method_name != "__call__" or (*place, LORA_DOWN) not in adapters:
            return outputs
        down, up = adapters[*place, LORA_DOWN], adapters[*place, LORA_UP]
        added = scale * ((args[0] @ down) @ up)
        if isinstance(context.module, Projections):
            return [x + y for x, y in zip(outputs, jnp.split(added, 3, axis=-1), strict=True)]
        return outputs + added

    return nn.intercept_methods(intercept)


def test_adapters_that_are_merged_are_adapters_applied_apart():
    preset, encoders, params = model("clip")
    start, frozen = split(LORA, params, KEY)
    generator = np.random.default_rng(0)
    trained = jax.tree.map(lambda x: x + 0.1 * generator.normal(size=x.shape).astype("f"), start)

    @partial(jax.jit, compiler_options=UNOPTIMISED)
    @jax.value_and_grad
    def merged(trained):
        return loss_of(preset, encoders, whole(LORA, trained, frozen))

    @partial(jax.jit, compiler_options=UNOPTIMISED)
    @jax.value_and_grad
    def apart(trained):
        parts = flatten_dict(params) | flatten_dict(trained)
        plain = {path: leaf for path, leaf in parts.items() if not path[-1].startswith("lora")}
        with applied_apart(trained, LORA.alpha / LORA.rank):
            return loss_of(preset, encoders, unflatten_dict(plain))

    (value, found), (expected_value, expected) = merged(trained), apart(trained)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    of_heads_alone = jax.tree_util.tree_map_with_path(
        lambda path, new, old: old if "lora" in str(path[-1]) else new, trained, start
    )
    assert abs(value - merged(of_heads_alone)[0]) > 0.01
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max())),
        found,
        expected,
    )


def test_a_merged_kernel_is_the_formula_of_the_paper():
    shape = ("image", "tower", "transformer", "block_0", "mlp", "up")
    kernel = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    params = {"kernel": kernel, "bias": np.zeros(6, np.float32)}
    for name in reversed(shape):
        params = {name: params}
    finetuning = dataclasses.replace(LORA, rank=2, alpha=5.0)
    trained, frozen = split(finetuning, params, KEY)
    trained = jax.tree.map(lambda x: x + 1, trained)
    merged = flatten_dict(whole(finetuning, trained, frozen))[*shape, "kernel"]
    parts = flatten_dict(trained)
    down, up = (parts[*shape, "kernel", name] for name in (LORA_DOWN, LORA_UP))
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(x @ merged, x @ kernel + 5 / 2 * (x @ down) @ up, rtol=1e-5)
