"""Training, going on, evaluating and reporting, on a tiny embedded data set."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest
from tiny_model import BATCH, tiny_config

from input_pipeline.errors import DataError
from kamcl_jax.config import build
from kamcl_jax.errors import CheckpointError, ConfigError, DivergedError, Stopped
from kamcl_jax.evaluate import evaluate
from kamcl_jax.export import model_folder
from kamcl_jax.inference import embed, model
from kamcl_jax.runs import folder
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of
from kamcl_jax.train import loop

EPOCH = 24 * 5 // BATCH  # steps
RECALLS = [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]


@pytest.fixture(scope="module")
def make_config(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")

    def make(**fields):
        config = tiny_config()
        config.data.dir = str(data)
        config.num_epochs = 2
        config.image_encoder.module = "noisy_encoders:Image"  # compiled in a few seconds
        config.text_encoder.module = "noisy_encoders:Text"
        config.update_from_flattened_dict(fields)
        return config

    return make


@pytest.fixture(scope="module")
def whole(make_config, tmp_path_factory):
    """A run of two epochs in one go: its folder and its results."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, loop.train(make_config(), workdir)


@pytest.fixture(scope="module")
def after_one_epoch(make_config, tmp_path_factory):
    """The same run, stopped after its first epoch."""
    workdir = tmp_path_factory.mktemp("half")
    return workdir, loop.train(make_config(max_steps=EPOCH), workdir)


@pytest.fixture
def half(after_one_epoch, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(after_one_epoch[0], tmp_path / "half")


def checkpoints_of(workdir):
    return Checkpoints(folder_of(workdir), read_only=True)


def record_of(workdir):
    with checkpoints_of(workdir) as checkpoints:
        return checkpoints.record(2 * EPOCH)


def test_the_report_holds_scores_pictures_and_text(whole):
    workdir, results = whole
    report = workdir / "report"
    written = json.loads((report / "metrics.json").read_text())
    assert written == json.loads(json.dumps(results))
    for split in ("test", "test_equal_texts", "val"):
        scores = written[split]
        assert all(0 <= scores[name] <= 100 for name in RECALLS)
        assert scores["mR"] == pytest.approx(np.mean([scores[name] for name in RECALLS]))
    for split in ("test", "val"):
        for side in ("concept_map", "concept_map_text"):
            assert 0 < written[split][side] <= 100
            assert 0 < written[split][f"{side}_chance"] < 100
    assert len(written["concepts"]) == written["test"]["concepts_scored"]
    precisions = [row["average_precision"] for row in written["concepts"]]
    assert np.mean(precisions) == pytest.approx(written["test"]["concept_map"])
    text = (report / "report.md").read_text()
    assert f" {written['test']['concept_map_text']:.2f} |" in text.split("## Concepts")[1]
    for picture in ("losses.png", "recalls.png", "retrieved.png"):
        assert f"({picture})" in text
        assert (report / picture).exists()
    assert f"{written['test']['mR']:.2f}" in text
    assert list((workdir / "tensorboard").glob("events*"))


def test_images_that_are_left_out_are_told(whole, make_config, tmp_path, capsys, monkeypatch):
    names = ["gone_1.jpg", "gone_2.jpg"]
    whole_data = build.build

    def without_two_images(*args, **options):
        experiment = whole_data(*args, **options)
        data = dataclasses.replace(experiment.data, left_out=dict.fromkeys(names, "missing"))
        return dataclasses.replace(experiment, data=data)

    monkeypatch.setattr(build, "build", without_two_images)
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    results = loop.train(make_config(), tmp_path)
    assert "2 images left out (gone_1.jpg, gone_2.jpg)" in capsys.readouterr().out
    assert results["left_out_images"] == {"count": 2, "names": names}
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| left out | 2 images that can't be used (gone_1.jpg, gone_2.jpg) |" in report
    assert "| left out |" not in (whole[0] / "report" / "report.md").read_text()


def test_a_checkpoint_has_the_history_and_what_it_was_made_with(whole):
    record = record_of(whole[0])
    history = record["history"]
    assert [row["epoch"] for row in history["validation"]] == [1, 2]
    assert history["train"][-1]["step"] == 2 * EPOCH
    weights = [row["alignment_weight"] for row in history["train"] if row["epoch"] in (1, 2)]
    assert weights == [0.0, 10.0]
    assert np.all(np.isfinite([row["loss"] for row in history["train"]]))
    assert record["versions"]["jax"] == jax.__version__
    assert {"python", "flax", "optax", "orbax-checkpoint", "numpy"} <= record["versions"].keys()
    assert record["config"]["momentum"] == 0.99
    assert len(record["concepts"]) <= record["concept_width"]
    assert record["vocabulary"][-1] == "<unk>"
    assert len(record["data fingerprint"]) >= 16


@pytest.mark.parametrize("residency", ["host", "device"])
def test_a_stopped_run_goes_on_as_if_never_stopped(whole, half, make_config, residency, capsys):
    # Neither the place of the data nor who reads them is learnt.
    changed = {"data.residency": residency, "data.read_threads": 3}
    results = loop.train(make_config(**changed), half)
    said = capsys.readouterr().out
    assert f"going on from the checkpoint of step {EPOCH}" in said
    assert ("0.00 for the training data" in said) == (residency == "device")
    losses = [
        [row["loss"] for row in record_of(run)["history"]["train"]] for run in (half, whole[0])
    ]
    if residency == "host":
        assert losses[0] == losses[1]
        assert [results[split] == whole[1][split] for split in ("test", "val")] == [True, True]
    else:  # in the other program XLA may choose another order of summation
        np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.long
def test_the_whole_model_trains(make_config, tmp_path):
    config = make_config(max_steps=1)
    config.image_encoder.module = config.text_encoder.module = ""
    assert loop.train(config, tmp_path)["best_step"] == 1


def test_a_finished_run_is_scored_again_to_the_same_scores(whole, make_config, capsys):
    workdir, results = whole
    (workdir / "report" / "metrics.json").unlink()
    assert evaluate.evaluate(None, workdir) == results
    assert json.loads((workdir / "report" / "metrics.json").read_text())["test"] == results["test"]
    assert loop.train(make_config(num_epochs=1), workdir)["test"] == results["test"]
    assert f"already trained to step {2 * EPOCH}" in capsys.readouterr().out


def test_another_config_in_the_same_folder_is_refused_and_loses_nothing(whole, make_config):
    before = {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"config\.momentum: 0\.99 in the checkpoint, 0\.5 now"):
        loop.train(make_config(momentum=0.5), whole[0])
    assert before == {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"batch_size": 400, "queue_length": 400}, "400 is larger than the training split of 120"),
        ({"data.min_word_count": 100_000}, "There are no concepts to learn: .*is 100000"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(make_config, tmp_path, fields, sentence):
    with pytest.raises((ConfigError, DataError), match=sentence):
        loop.train(make_config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_report_is_of_the_best_checkpoint_not_the_latest(
    after_one_epoch, make_config, tmp_path, monkeypatch
):
    original, validations = evaluate.score_split, iter([90.0, 10.0])

    def score(*arguments):
        scores, embeddings = original(*arguments)
        return {**scores, "mR": next(validations, scores["mR"])}, embeddings

    monkeypatch.setattr(evaluate, "score_split", score)
    both = loop.train(make_config(), tmp_path)
    assert both["best_step"] == EPOCH
    assert both["val"]["mR"] == 90
    assert both["test"] == after_one_epoch[1]["test"]


def test_a_damaged_latest_checkpoint_is_set_aside_for_the_one_before(
    whole, make_config, tmp_path, capsys
):
    workdir, results = whole
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    last = 2 * EPOCH
    for path in (tmp_path / "checkpoints" / str(last) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-20])
    again = loop.train(make_config(), tmp_path)
    told = capsys.readouterr().out
    assert f"note: the checkpoint of step {last} in {tmp_path}/checkpoints is damaged: " in told
    assert f"note: moved to {tmp_path}/damaged_checkpoints: {last}" in told
    assert f"going on from the checkpoint of step {EPOCH}" in told
    assert (tmp_path / "damaged_checkpoints" / str(last)).is_dir()
    assert {**again, "seconds": 0} == {**results, "seconds": 0}


def test_a_damaged_best_checkpoint_gives_its_place_to_the_next(
    whole, make_config, tmp_path, capsys
):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    with checkpoints_of(tmp_path) as checkpoints:
        best, other = checkpoints.best_first
    shutil.rmtree(tmp_path / "checkpoints" / str(best) / "state")
    assert evaluate.evaluate(make_config(), tmp_path)["best_step"] == other
    assert f"note: the checkpoint of step {best} in" in capsys.readouterr().err


def test_if_no_checkpoint_can_be_read_nothing_is_touched(half, make_config):
    shutil.rmtree(half / "checkpoints" / str(EPOCH) / "state")
    before = {*half.rglob("*"), half / "training.lock"}
    with pytest.raises(CheckpointError, match=rf"none .* can be read \(of steps {EPOCH}\); choose"):
        loop.train(make_config(), half)
    assert {*half.rglob("*")} == before


def test_a_folder_takes_one_training_at_a_time(half, after_one_epoch, make_config):
    with folder.lock(half):
        with pytest.raises(ConfigError, match=rf"^another training runs in {half}"):
            loop.train(make_config(), half)
        # It can be scored all the same.
        assert evaluate.evaluate(None, half)["test"] == after_one_epoch[1]["test"]


@pytest.fixture
def poison(monkeypatch):
    """Makes a metric of one step not a number."""

    def poison(at_step, name):
        original = loop._compile_step

        def compile_step(experiment):
            # The program is the same where such updates are skipped: this step makes none.
            settings = dataclasses.replace(experiment.settings, skip_not_finite=False)
            step, chosen = original(dataclasses.replace(experiment, settings=settings))

            def poisoned_step(state, batch):
                state, metrics = step(state, batch)
                if int(state.step) == at_step:
                    metrics = {**metrics, name: metrics[name] * float("nan")}
                return state, metrics

            return poisoned_step, chosen

        monkeypatch.setattr(loop, "_compile_step", compile_step)

    return poison


@pytest.mark.parametrize(
    ("at_step", "name", "kept"),
    [
        (EPOCH + 3, "triplet", f"the last checkpoint is of step {EPOCH} "),
        # A checkpoint after the fourth step would be of numbers that are not finite.
        (3, "gradient_norm", "there is no checkpoint"),
    ],
)
def test_numbers_that_are_not_finite_stop_the_training(
    make_config, tmp_path, poison, at_step, name, kept
):
    poison(at_step, name)
    config = make_config(**{"checkpoint.every_steps": 4} if at_step < 4 else {})
    with pytest.raises(DivergedError, match=rf"^{name} not finite at step {at_step}; {kept}"):
        loop.train(config, tmp_path)
    with checkpoints_of(tmp_path) as checkpoints:
        assert checkpoints.steps == ([EPOCH] if at_step > EPOCH else [])


def test_steps_that_are_skipped_are_told_and_left_out_of_the_means(
    make_config, tmp_path, poison, capsys
):
    poison(3, "loss")
    loop.train(make_config(not_finite="skip", max_steps=4), tmp_path)
    assert "loss not finite at step 3; 0 updates skipped so far" in capsys.readouterr().out
    with checkpoints_of(tmp_path) as checkpoints:
        (row,) = checkpoints.record(4)["history"]["train"]
    assert np.isfinite(row["loss"])


def test_a_signal_between_a_step_and_its_checkpoint_waits_for_the_next(
    make_config, tmp_path, monkeypatch
):
    original = loop._log

    def signalled(*arguments):
        original(*arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "_log", signalled)
    with pytest.raises(Stopped, match="stopped by SIGTERM after step 11; the same") as caught:
        loop.train(make_config(), tmp_path)
    assert caught.value.exit_status == 143
    with checkpoints_of(tmp_path) as checkpoints:
        assert checkpoints.steps == [11]


def test_a_trained_model_needs_the_checkpoint_only(whole, make_config, tmp_path):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    trained = model.open_trained(tmp_path)
    assert trained.step == whole[1]["best_step"]
    experiment = build.build(make_config())
    test = experiment.data.test
    images = trained.encode_images(test.images[np.arange(6)])
    found = trained.similarity(images, trained.encode_texts(list(test.captions)))
    split = embed.embed(evaluate.make_encoders(experiment), trained.variables, test, 8)
    np.testing.assert_allclose(found, split.images @ split.captions.T, rtol=0, atol=1e-5)


def test_the_momentum_average_validates_is_reported_loaded_and_exported_if_the_config_says_so(
    after_one_epoch, make_config, tmp_path
):
    config = make_config(**{"max_steps": EPOCH, "evaluation.encoders": "key"})
    results = loop.train(config, tmp_path)
    experiment = build.build(config)
    with checkpoints_of(tmp_path) as checkpoints:
        places = experiment.layout.state
        state, record = checkpoints.restore(EPOCH, experiment.abstract_state, places)
    keys = {"params": state.key_params, "batch_stats": state.key_batch_stats}
    encoders, splits = evaluate.make_encoders(experiment), experiment.data
    for name, split in (("val", splits.validation), ("test", splits.test)):
        expected, embeddings = evaluate.score_split(encoders, keys, split, 8)
        assert expected.items() <= results[name].items()
    assert evaluate.evaluate(None, tmp_path)["test"] == results["test"]

    trained = model.open_trained(tmp_path)
    model_folder.write(tmp_path / "exported", trained, "# A model\n")
    for one in (trained, model_folder.read(tmp_path / "exported")):
        jax.tree.map(np.testing.assert_array_equal, one.variables, keys)
        found = one.encode_texts(list(splits.test.captions))
        np.testing.assert_allclose(found, embeddings.captions, rtol=0, atol=1e-5)

    # Training is the same, and its encoders are others than their average.
    with checkpoints_of(after_one_epoch[0]) as checkpoints:
        usual = checkpoints.record(EPOCH)
    assert record["history"]["train"] == usual["history"]["train"]
    _, of_queries = evaluate.score_split(encoders, state.variables, splits.test, 8)
    assert np.abs(of_queries.images - embeddings.images).max() > 0.01
    with pytest.raises(
        ConfigError, match=r"evaluation\.encoders: key in the checkpoint, query now"
    ):
        loop.train(make_config(), tmp_path)
