"""Checkpoints of the release become runs that can be scored, and runs become such checkpoints."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_model import tiny_config

from kamcl_jax.config import build
from kamcl_jax.errors import ConfigError, PretrainedError
from kamcl_jax.evaluate import evaluate
from kamcl_jax.inference import embed
from kamcl_jax.torch_release import convert, state_dict
from kamcl_jax.weights import tensor_files

STEP, EPOCH, SCORE = 30, 2, 41.5


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A checkpoint as the release would write it, for the tiny embedded data set."""
    folder = tmp_path_factory.mktemp("release")
    config = tiny_config()
    config.embedding_size = config.num_concepts = 8 * config.image_encoder.width
    config.data.pad_concepts = True
    config.data.dir = str(folder / "data")
    experiment = build.build(config)
    state = experiment.initial_state().replace(step=np.int32(STEP))
    tensors = state_dict.to_state_dict(state)
    path = folder / "KAMCL_best.safetensors"
    tensor_files.write(path, tensors, epoch=EPOCH, score=SCORE)
    return SimpleNamespace(config=config, experiment=experiment, tensors=tensors, path=path)


@pytest.fixture(scope="module")
def run(release, tmp_path_factory):
    """The checkpoint as a run of ours."""
    workdir = tmp_path_factory.mktemp("converted") / "run"
    convert.from_torch(release.config, workdir, release.path)
    return workdir


def test_a_converted_checkpoint_is_scored_like_its_weights(release, run):
    config = release.config.copy_and_resolve_references()
    # A run is scored without the weights that it started from.
    config.image_encoder.pretrained = "no/longer/there.safetensors"
    results = evaluate.evaluate(config, run)
    experiment = release.experiment
    state = state_dict.from_state_dict(release.tensors, release.config)
    encoders = embed.make_encoders(experiment.model, experiment.layout)
    settings = release.config.evaluation
    expected, _ = evaluate.score_split(
        encoders, state.variables, experiment.data.test, settings.batch_size, settings.ties
    )
    assert results["test"] == expected
    assert results["best_step"] == STEP
    assert results["val"] is None
    report = (run / "report" / "report.md").read_text()
    assert f"weights from another program, after step {STEP}" in report
    assert "validation |" not in report
    assert "](losses.png)" not in report


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
def test_there_and_back_is_the_same_file(release, run, tmp_path, suffix):
    if suffix != ".safetensors":
        pytest.importorskip("torch")
    target = tmp_path / "new" / f"back{suffix}"
    convert.to_torch(release.config, run, target)
    stored = tensor_files.read(target)
    assert suffix == ".safetensors" or list(stored.tensors) == list(release.tensors)
    jax.tree.map(np.testing.assert_array_equal, stored.tensors, release.tensors)
    assert (stored.epoch, stored.score) == (EPOCH, SCORE)


def test_a_run_is_never_overwritten(release, run):
    with pytest.raises(ConfigError, match="already holds a run; choose another --workdir"):
        convert.from_torch(release.config, run, release.path)


def test_weights_for_other_words_are_refused(release, tmp_path):
    tensors = dict(release.tensors)
    tensors[state_dict.EMBEDDING] = tensors[state_dict.EMBEDDING][:-3]
    path = tmp_path / "other.safetensors"
    tensor_files.write(path, tensors, epoch=1, score=1.0)
    with pytest.raises(
        PretrainedError, match=r"embedding.weight of .*other.safetensors has .* rows"
    ):
        convert.from_torch(release.config, tmp_path / "run", path)
    assert not (tmp_path / "run").exists()


def test_the_release_has_no_other_encoders(release, tmp_path):
    config = release.config.copy_and_resolve_references()
    config.text_encoder.module = "plain_encoders:Words"
    for converted, file in ((convert.from_torch, release.path), (convert.to_torch, tmp_path)):
        with pytest.raises(PretrainedError, match=r"config.text_encoder.module is 'plain_enc"):
            converted(config, tmp_path / "run", file)


def test_the_release_has_no_learnt_temperature_and_a_run_that_has_one_leaves_it_out(
    release, tmp_path
):
    config = release.config.copy_and_resolve_references()
    config.learn_temperature = True
    with pytest.raises(PretrainedError, match="learns no temperature"):
        convert.from_torch(config, tmp_path / "run", release.path)
    state = release.experiment.initial_state()
    with_scale = {**state.params, "logit_scale": np.float32(2.0)}
    tensors = state_dict.to_state_dict(state.replace(params=with_scale, key_params=with_scale))
    assert tensors.keys() == release.tensors.keys()


def test_keys_of_the_release_are_of_pairs_that_no_one_knows(release):
    config = release.config.copy_and_resolve_references()
    config.loss.mask_false_negatives = True
    state = state_dict.from_state_dict(release.tensors, config)
    like = build.abstract_state(config, len(state.params["text"]["skip_thoughts"]["embedding"]), 32)
    assert jax.tree.structure(state.image_queue) == jax.tree.structure(like.image_queue)
    assert (np.asarray(state.text_queue.ids.text) == -1).all()
