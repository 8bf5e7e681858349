"""Training, going on, evaluating and reporting, on a tiny embedded data set."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_model import BATCH, tiny_config

from input_pipeline.errors import DataError
from kamcl_jax import errors
from kamcl_jax.config import build
from kamcl_jax.config.fields import Decides, decides, flatten
from kamcl_jax.errors import CheckpointError, ConfigError, Stopped
from kamcl_jax.evaluate import evaluate
from kamcl_jax.inference import embed, model
from kamcl_jax.runs import folder
from kamcl_jax.runs.checkpoints import Checkpoints, open_checkpoints
from kamcl_jax.train import loop

STEPS_PER_EPOCH = 24 * 5 // BATCH
RECALLS = [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]


@pytest.fixture(scope="module", autouse=True)
def compiled_once_a_config():
    """Most of a tiny training is tracing and compilation."""
    steps, encoders = {}, {}

    def key(experiment):
        leaves = flatten(experiment.config)
        free = {name for name in leaves if decides(name, leaves) is Decides.NOTHING_LEARNT}
        free -= {"data.residency"}  # other batches, though the same ones
        return str([(name, value) for name, value in leaves.items() if name not in free])

    def remembering(make, made):
        def remembered(experiment):
            if key(experiment) not in made:
                made[key(experiment)] = make(experiment)
            return made[key(experiment)]

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_compile_step", remembering(loop._compile_step, steps))
        make = remembering(evaluate.make_encoders, encoders)
        patch.setattr(evaluate, "make_encoders", make)
        yield


@pytest.fixture(scope="module")
def make_config(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")

    def make(**fields):
        config = tiny_config()
        config.data.dir = str(data)
        config.num_epochs = 2
        config.update(fields)
        return config

    return make


@pytest.fixture(scope="module")
def whole(make_config, tmp_path_factory):
    """A run of two epochs in one go: its folder and its results."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, loop.train(make_config(), workdir)


@pytest.fixture(scope="module")
def half(make_config, tmp_path_factory):
    """The same run stopped after its first epoch."""
    workdir = tmp_path_factory.mktemp("half")
    return workdir, loop.train(make_config(max_steps=STEPS_PER_EPOCH), workdir)


def history_of(workdir):
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.record(2 * STEPS_PER_EPOCH)["history"]


def test_the_report_holds_scores_pictures_and_text(whole):
    workdir, results = whole
    report = workdir / "report"
    written = json.loads((report / "metrics.json").read_text())
    assert written == json.loads(json.dumps(results))
    for split in ("test", "test_equal_texts", "val"):
        scores = written[split]
        assert all(0 <= scores[name] <= 100 for name in RECALLS)
        assert scores["mR"] == pytest.approx(np.mean([scores[name] for name in RECALLS]))
        assert {"i2t_medr", "i2t_meanr", "t2i_medr", "t2i_meanr"} <= scores.keys()
    assert written["chance"]["t2i_r1"] == pytest.approx(100 / 6)
    for split, bounds in written["intervals"].items():
        for name in (*RECALLS, "mR"):
            low, high = bounds[name]
            assert low <= written[split][name] <= high
    text = (report / "report.md").read_text()
    for picture in ("losses.png", "recalls.png", "retrieved.png"):
        assert f"({picture})" in text
        with Image.open(report / picture) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
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


def test_history_covers_both_steps_of_the_schedule(whole):
    history = history_of(whole[0])
    assert [row["epoch"] for row in history["validation"]] == [1, 2]
    assert history["train"][-1]["step"] == 2 * STEPS_PER_EPOCH
    weights = [row["alignment_weight"] for row in history["train"] if row["epoch"] in (1, 2)]
    assert weights == [0.0, 10.0]
    losses = [row["loss"] for row in history["train"]]
    assert np.all(np.isfinite(losses))


def test_a_stopped_run_goes_on_as_if_never_stopped(whole, half, make_config, tmp_path, capsys):
    shutil.copytree(half[0], tmp_path, dirs_exist_ok=True)
    results = loop.train(make_config(), tmp_path)
    assert f"going on from the checkpoint of step {STEPS_PER_EPOCH}" in capsys.readouterr().out
    for split in ("test", "val"):
        assert results[split] == whole[1][split]
    assert [row["loss"] for row in history_of(tmp_path)["train"]] == [
        row["loss"] for row in history_of(whole[0])["train"]
    ]


def test_a_run_goes_on_with_its_data_on_the_devices(whole, half, make_config, tmp_path, capsys):
    shutil.copytree(half[0], tmp_path, dirs_exist_ok=True)
    config = make_config()
    config.data.residency = "device"
    loop.train(config, tmp_path)
    said = capsys.readouterr().out
    assert f"going on from the checkpoint of step {STEPS_PER_EPOCH}" in said
    assert "training data: 0.00 GB in the memory of each device" in said
    assert "0.00 for the training data" in said
    # On eight devices XLA may choose another order of summation.
    losses = [[row["loss"] for row in history_of(run)["train"]] for run in (tmp_path, whole[0])]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_finished_run_is_evaluated_to_the_same_scores(whole, make_config):
    workdir, results = whole
    (workdir / "report" / "metrics.json").unlink()
    assert evaluate.evaluate(make_config(), workdir) == results
    assert json.loads((workdir / "report" / "metrics.json").read_text())["test"] == results["test"]


def test_another_config_in_the_same_folder_is_refused_and_loses_nothing(
    whole, make_config, tmp_path
):
    workdir, _ = whole
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"config.momentum: 0.99 in the checkpoint, 0.5 now"):
        loop.train(make_config(momentum=0.5), workdir)
    with pytest.raises(
        ConfigError, match=r"batch_size 400 is larger than the training split of 120"
    ):
        loop.train(make_config(batch_size=400, queue_length=400), tmp_path / "new")
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_the_report_is_of_the_best_checkpoint_not_the_latest(
    half, make_config, tmp_path, monkeypatch
):
    original, validations = evaluate.score_split, iter([90.0, 10.0])

    def score(*arguments):
        scores, embeddings = original(*arguments)
        return {**scores, "mR": next(validations, scores["mR"])}, embeddings

    monkeypatch.setattr(evaluate, "score_split", score)
    both = loop.train(make_config(), tmp_path / "both")
    assert both["best_step"] == STEPS_PER_EPOCH
    assert both["val"]["mR"] == 90
    assert both["test"] == half[1]["test"]


def test_a_damaged_latest_checkpoint_is_set_aside_for_the_one_before(
    whole, make_config, tmp_path, capsys
):
    workdir, results = whole
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    last = 2 * STEPS_PER_EPOCH
    for path in (tmp_path / "checkpoints" / str(last) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-20])
    again = loop.train(make_config(), tmp_path)
    told = capsys.readouterr().out
    assert f"note: the checkpoint of step {last} in {tmp_path}/checkpoints is damaged: " in told
    assert f"note: moved to {tmp_path}/damaged_checkpoints: {last}" in told
    assert f"going on from the checkpoint of step {STEPS_PER_EPOCH}" in told
    assert (tmp_path / "damaged_checkpoints" / str(last)).is_dir()
    assert {**again, "seconds": 0} == {**results, "seconds": 0}


def test_a_damaged_best_checkpoint_gives_its_place_to_the_next(
    whole, make_config, tmp_path, capsys
):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    with open_checkpoints(tmp_path) as checkpoints:
        best, other = checkpoints.best_first
    shutil.rmtree(tmp_path / "checkpoints" / str(best) / "state")
    assert evaluate.evaluate(make_config(), tmp_path)["best_step"] == other
    assert f"note: the checkpoint of step {best} in" in capsys.readouterr().err


def test_if_no_checkpoint_can_be_read_nothing_is_touched(half, make_config, tmp_path):
    shutil.copytree(half[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / str(STEPS_PER_EPOCH) / "state")
    before = {*tmp_path.rglob("*"), tmp_path / "training.lock"}
    with pytest.raises(
        CheckpointError,
        match=rf"none of the checkpoints can be read \(of steps {STEPS_PER_EPOCH}\); choose",
    ):
        loop.train(make_config(), tmp_path)
    assert {*tmp_path.rglob("*")} == before


def test_a_second_training_in_the_same_folder_is_refused(half, make_config, tmp_path):
    shutil.copytree(half[0], tmp_path, dirs_exist_ok=True)
    with (
        folder.lock(tmp_path),
        pytest.raises(ConfigError, match=rf"^another training runs in {tmp_path}"),
    ):
        loop.train(make_config(), tmp_path)
    # It can be scored all the same.
    with folder.lock(tmp_path):
        assert evaluate.evaluate(make_config(), tmp_path)["test"] == half[1]["test"]


def test_a_checkpoint_alone_is_scored_without_its_config(whole):
    workdir, results = whole
    assert evaluate.evaluate(None, workdir)["test"] == results["test"]


def test_a_shorter_config_reports_how_far_the_run_has_come(whole, make_config, capsys):
    loop.train(make_config(num_epochs=1), whole[0])
    assert f"already trained to step {2 * STEPS_PER_EPOCH}" in capsys.readouterr().out


def test_other_data_in_the_same_folder_is_refused(whole, make_config):
    config = make_config()
    config.data.options.seed = 5
    with pytest.raises(ConfigError, match=r"config.data.options.seed: 0 in the checkpoint, 5 now"):
        loop.train(config, whole[0])


def poisoned(monkeypatch, step_of_poison, name):
    """Makes one metric of one step not a number."""
    original = loop._compiled_step

    def compiled_step(experiment):
        step, step_input = original(experiment)

        def poisoned_step(state, batch):
            state, metrics = step(state, batch)
            if int(state.step) == step_of_poison:
                metrics = {**metrics, name: metrics[name] * float("nan")}
            return state, metrics

        return poisoned_step, step_input

    monkeypatch.setattr(loop, "_compiled_step", compiled_step)


def test_numbers_that_are_not_finite_stop_with_step_terms_and_last_checkpoint(
    make_config, tmp_path, monkeypatch
):
    poisoned(monkeypatch, STEPS_PER_EPOCH + 3, "triplet")
    with pytest.raises(
        errors.DivergedError,
        match=rf"^triplet not finite at step {STEPS_PER_EPOCH + 3}; "
        rf"the last checkpoint is of step {STEPS_PER_EPOCH} \(",
    ):
        loop.train(make_config(), tmp_path)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [STEPS_PER_EPOCH]


def test_no_checkpoint_is_written_of_numbers_that_are_not_finite(
    make_config, tmp_path, monkeypatch
):
    poisoned(monkeypatch, 3, "gradient_norm")
    config = make_config()
    config.checkpoint.every_steps = 4
    with pytest.raises(
        errors.DivergedError, match=r"gradient_norm not finite at step 3; there is no checkpoint"
    ):
        loop.train(config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest is None


def test_a_signal_between_a_step_and_its_checkpoint_waits_for_the_next(
    make_config, tmp_path, monkeypatch
):
    original = loop._log

    def signalled(experiment, history, step, progress):
        original(experiment, history, step, progress)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "_log", signalled)
    with pytest.raises(Stopped, match="stopped by SIGTERM after step 11; the same") as caught:
        loop.train(make_config(), tmp_path)
    assert caught.value.exit_status == 143
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [11]


def test_data_without_concepts_are_refused(make_config, tmp_path):
    config = make_config()
    config.data.min_word_count = 100_000
    with pytest.raises(
        DataError, match=r"There are no concepts to learn: .*min_word_count is 100000.*\.$"
    ):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluating_an_empty_folder_says_so(make_config, tmp_path):
    with pytest.raises(ConfigError, match="holds no checkpoints; train there first"):
        evaluate.evaluate(make_config(), tmp_path)


def test_a_checkpoint_tells_what_it_was_made_with(whole):
    with Checkpoints(whole[0] / "checkpoints", read_only=True) as checkpoints:
        record = checkpoints.record(2 * STEPS_PER_EPOCH)
    assert record["versions"]["jax"] == jax.__version__
    assert {"python", "flax", "optax", "orbax-checkpoint", "numpy"} <= record["versions"].keys()
    assert record["config"]["momentum"] == 0.99
    assert len(record["concepts"]) <= record["concept_width"]
    assert record["vocabulary"][-1] == "<unk>"
    assert len(record["data fingerprint"]) >= 16


def test_a_trained_model_needs_the_checkpoint_only(whole, make_config, tmp_path):
    workdir, _ = whole
    shutil.copytree(workdir / "checkpoints", tmp_path / "checkpoints")
    trained = model.open_trained(tmp_path)
    test = build.build(make_config()).data.test
    images, captions = test.images[np.arange(6)], list(test.captions)
    with open_checkpoints(workdir) as checkpoints:
        assert trained.step == checkpoints.best
    found = trained.similarity(trained.encode_images(images), trained.encode_texts(captions))
    experiment = build.build(make_config())
    encoders = evaluate.make_encoders(experiment)
    with open_checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(
            trained.step, experiment.abstract_state, experiment.layout.state
        ).state
    split = embed.embed(encoders, state.variables, test, 8)
    expected = split.images @ split.captions.T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(DataError, match=r"The caption ' \. ' has no word in it"):
        trained.encode_texts(["a pond", " . "])
    with pytest.raises(
        DataError, match=r"Images in one array must be uint8\[N, 64, 64, 3\], not uint8\[1, 32"
    ):
        trained.encode_images(np.zeros((1, 32, 32, 3), np.uint8))
