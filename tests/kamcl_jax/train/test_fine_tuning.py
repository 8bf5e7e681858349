"""A published model is fine-tuned on the drawn scenes, whole and with adapters of low rank."""

import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from tiny_model import BATCH, tiny_config

import kamcl_jax
from configs.variants import STRONG
from kamcl_jax.config import build
from kamcl_jax.errors import CheckpointError, PretrainedError
from kamcl_jax.evaluate import evaluate
from kamcl_jax.export import command, open_clip_file
from kamcl_jax.parallel import mesh
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of
from kamcl_jax.step import train_step
from kamcl_jax.train import loop
from kamcl_jax.weights.published_model import read_published

EPOCH = 24 * 5 // BATCH  # steps
SENTENCES = ["two planes near a road", "many trees and a river"]
LORA = {"finetuning.trains": "lora", "finetuning.lora_rank": 2}


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """Steps are few here, so compiling them well would take longer than it saves."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (train_step, mesh):
            patch.setattr(module, "compiler_options", lambda *_, **__: build.UNOPTIMISED)
        yield


@pytest.fixture(scope="module")
def make_config(tiny_published, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")

    def make(**fields):
        config = tiny_config()
        config.data.dir = str(data)
        config.image_size, config.embedding_size, config.num_epochs = 20, 8, 2
        config.encoders.preset = tiny_published.preset
        config.encoders.pretrained = str(tiny_published.path)
        config.optimizer.learning_rate = 3e-3
        config.learn_temperature = True
        config.update_from_flattened_dict(fields)
        return config

    return make


@pytest.fixture(scope="module")
def adapted(make_config, tmp_path_factory):
    """The folder of a run with adapters, in one go."""
    workdir = tmp_path_factory.mktemp("adapted")
    # Left by a training of another model that ended before its first checkpoint.
    (workdir / "tokenizer").mkdir()
    (workdir / "tokenizer" / "tokenizer.json").write_text("{}")
    loop.train(make_config(**LORA), workdir)
    return workdir


def last_state(config, workdir):
    """The state at the end of a run, on one device."""
    experiment = build.build(config)
    with Checkpoints(folder_of(workdir), read_only=True) as checkpoints:
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return checkpoints.restore(checkpoints.latest, experiment.abstract_state, one).state


def names_in(path):
    """The arrays of a checkpoint, by what orbax has written."""
    stored = json.loads((path / "state" / "_METADATA").read_text())["tree_metadata"]
    return {name.replace("'", "").strip("()").replace(", ", "/") for name in stored}


def test_going_on_is_exact_and_needs_no_more_than_the_weights(make_config, adapted, tmp_path):
    loop.train(make_config(**LORA, max_steps=EPOCH), tmp_path)
    loop.train(make_config(**LORA), tmp_path)
    states = [last_state(make_config(**LORA), workdir) for workdir in (adapted, tmp_path)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_checkpoint_holds_only_what_moves(make_config, adapted):
    names = names_in(folder_of(adapted) / str(2 * EPOCH))
    assert not any(name.startswith("frozen") for name in names)
    of_towers = {name for name in names if name.startswith("params/") and "/tower/" in name}
    assert of_towers
    assert all("lora_" in name for name in of_towers)
    start = build.build(make_config(**LORA)).initial_state()
    moved = last_state(make_config(**LORA), adapted)
    for before, after in ((start.params, moved.params), (start.key_params, moved.key_params)):
        before, after = (flatten_dict(jax.device_get(p), sep="/") for p in (before, after))
        assert before.keys() == after.keys()
        assert all((before[name] != after[name]).any() for name in before)


def test_what_is_frozen_is_the_file_and_other_weights_are_refused(
    make_config, adapted, tiny_published, tmp_path
):
    frozen = build.build(make_config(**LORA)).initial_state().frozen
    positions = frozen["image"]["tower"]["positions"]
    stored = tiny_published.tensors["visual.positional_embedding"]
    np.testing.assert_array_equal(positions, stored)
    stored = {**tiny_published.tensors, "visual.positional_embedding": stored + 1}
    other = shutil.copytree(tiny_published.path.parent, tmp_path / "other")
    save_file(stored, other / "clip.safetensors")
    config = make_config(**LORA, **{"encoders.pretrained": str(other / "clip.safetensors")})
    with pytest.raises(CheckpointError, match=r"only what was trained.*positions.* is another"):
        evaluate.evaluate(config, adapted)


def test_the_model_of_the_run_is_that_of_its_export_without_any_other_file(
    adapted, tiny_published, tmp_path
):
    model = kamcl_jax.load(adapted)
    texts = model.encode_texts(SENTENCES)
    published = kamcl_jax.load(tiny_published.path, preset=tiny_published.preset)
    assert abs(texts - published.encode_texts(SENTENCES)).max() > 1e-3
    command.export(adapted, tmp_path / "out")
    exported = kamcl_jax.load(shutil.move(tmp_path / "out", tmp_path / "moved"))
    assert exported.tokenizer.identity == model.tokenizer.identity
    assert not (adapted / "tokenizer" / "tokenizer.json").exists()
    np.testing.assert_allclose(exported.encode_texts(SENTENCES), texts, atol=1e-6)
    assert not (tmp_path / "moved" / open_clip_file.NAME).exists()  # it adds concepts


def test_a_file_of_weights_that_has_gone_is_named(make_config, adapted, tiny_published):
    away = tiny_published.path.with_name("away")
    tiny_published.path.rename(away)
    try:
        for call in (kamcl_jax.load, partial(evaluate.evaluate, make_config(**LORA))):
            with pytest.raises(PretrainedError, match="no such file"):
                call(adapted)
    finally:
        away.rename(tiny_published.path)


@pytest.mark.parametrize(
    "fields",
    [
        {"mesh.data": 1},
        pytest.param(
            {
                "mesh.data": 1,
                "mesh.fsdp": 4,
                "mesh.fsdp_min_size": 0,
                "mesh.queue": "sharded",
                "gradient_accumulation": 2,
                "not_finite": "skip",
            },
            marks=pytest.mark.long,
        ),
    ],
)
def test_eight_devices_train_as_one_or_as_shards_and_microbatches(
    make_config, adapted, fields, tmp_path
):
    config = make_config(**LORA, **fields)
    loop.train(config, tmp_path)
    eight, other = last_state(make_config(**LORA), adapted), last_state(config, tmp_path)
    differ = jax.tree.map(lambda a, b: np.abs(a - b).max(), eight.params, other.params)
    assert max(jax.tree.leaves(differ)) < 1e-3


@pytest.mark.long
def test_eight_devices_train_the_last_blocks_as_one_does(make_config, tmp_path):
    fields = {"finetuning.trains": "blocks", "finetuning.layer_decay": 0.5, "max_steps": 5}
    # With Adam's usual one, biases of keys, whose gradient is rounding noise, would move at will.
    fields["optimizer.epsilon"] = 1e-3
    configs = [make_config(**fields), make_config(**fields, **{"mesh.data": 1})]
    for number, config in enumerate(configs):
        loop.train(config, tmp_path / str(number))
    eight, one = (last_state(c, tmp_path / str(n)).params for n, c in enumerate(configs))
    start = build.build(configs[0]).initial_state().params

    def largest_differences(a, b):
        differ = jax.tree.map(lambda a, b: np.abs(a - b).max(), *jax.device_get((a, b)))
        return jax.tree.leaves(differ)

    assert max(largest_differences(eight, one)) < 1e-4
    assert max(largest_differences(eight, start)) > 3e-3


@pytest.mark.long
def test_heads_that_train_alone_leave_every_other_bit(make_config, tiny_published, tmp_path):
    config = make_config(
        **{
            "finetuning.trains": "heads",
            "learn_temperature": False,
            "image_encoder.rematerialise": True,
            "dtype": "bfloat16",
            "evaluation.encoders": "key",
            "max_steps": 3,
        }
    )
    loop.train(config, tmp_path)
    found = flatten_dict(kamcl_jax.load(tmp_path).variables["params"], sep="/")
    stored = read_published(tiny_published.path, tiny_published.preset)["params"]
    heads = ("/tower/norm/", "/tower/projection/")
    for name, leaf in flatten_dict(stored, sep="/").items():
        assert (found[name] != leaf).any() == any(head in name for head in heads), name


def test_a_clip_from_random_weights_learns_and_open_clip_gets_it_back(
    make_config, tiny_published, tmp_path
):
    config = make_config(
        **STRONG
        | {
            "encoders.pretrained": "",
            "encoders.vocabulary": str(tiny_published.path.parent),
            "encoders.hybrid": False,
            "optimizer.learning_rate": 6e-3,
            "optimizer.warmup_steps": 10,
            "loss.sigmoid_weight": 1.0,
            "optimizer.weight_decay": 0.1,
            "optimizer.clip_norm": 50.0,
            "finetuning.layer_decay": 0.9,
            "finetuning.new_rate": 10.0,
        }
    )
    config.num_epochs = 6
    results = loop.train(config, tmp_path / "run")
    config.encoders.vocabulary = ""  # from now on the run has it
    with Checkpoints(folder_of(tmp_path / "run"), read_only=True) as checkpoints:
        losses = checkpoints.record(checkpoints.latest)["history"]["train"]
    assert losses[-1]["contrastive"] < 0.6 * losses[0]["contrastive"]
    assert losses[-1]["sigmoid"] < losses[0]["sigmoid"]
    assert losses[-1]["bias"] != losses[0]["bias"]
    assert results["test"]["concept_map"] > results["test"]["concept_map_chance"]
    command.export(tmp_path / "run", tmp_path / "out", split="train", config=config)
    model = kamcl_jax.load(tmp_path / "run")
    with np.load(tmp_path / "out" / "embeddings_train.npz", allow_pickle=True) as written:
        captions = [str(caption) for caption in written["captions"][:5]]
        np.testing.assert_allclose(
            written["caption_embeddings"][:5], model.encode_texts(captions), atol=1e-5
        )
    handed_back = tmp_path / "out" / open_clip_file.NAME
    tensors = load_file(handed_back)
    assert {name: t.shape for name, t in tensors.items()} == {
        name: t.shape for name, t in tiny_published.tensors.items()
    }
    again = kamcl_jax.load(handed_back, preset=tiny_published.preset)
    texts = model.encode_texts(SENTENCES)
    np.testing.assert_allclose(again.encode_texts(SENTENCES), texts, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image_size": 64}, "config.image_size is 64; the model of .*tiny-clip.* has 20"),
        ({"encoders.preset": "ViT"}, "there is no preset 'ViT'"),
        ({"caption_padding": "release"}, "config.caption_padding='release' is for other encoders"),
        ({"encoders.pretrained": "gone.pt"}, "'gone.pt': there is no such file"),
        ({"encoders.vocabulary": "gone"}, "There is no vocabulary at 'gone'"),
        (
            {"encoders.preset": "", "encoders.pretrained": ""} | LORA,
            "config.finetuning.trains='lora' is for a published model",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_data_are_prepared(
    make_config, fields, sentence, tmp_path
):
    config = make_config(**fields)
    config.data.dir = str(tmp_path / "data")
    with pytest.raises(kamcl_jax.KamclError, match=sentence):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "data").exists()
