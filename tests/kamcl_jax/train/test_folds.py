"""The paper's protocol: a training a fold, averaged; only the validation split differs."""

import json

import numpy as np
import pytest
from tiny_model import tiny_config

from kamcl_jax.errors import ConfigError
from kamcl_jax.ranking.metrics import RECALLS_AND_MEAN
from kamcl_jax.train import folds, loop


@pytest.fixture
def config(tmp_path):
    config = tiny_config()
    config.data.dir = str(tmp_path / "data")
    config.data.validation = "random"
    config.num_folds = 3
    return config


def imitated(trained):
    """Takes the place of the training: scores that depend on the fold."""

    def train(config, workdir):
        trained.append((config, workdir))
        recalls = dict.fromkeys(RECALLS_AND_MEAN, 10.0 * (config.fold + 1))
        return {"test": recalls, "best_epoch": config.fold + 2.0}

    return train


def test_each_fold_is_trained_and_the_scores_are_averaged(config, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(loop, "train", imitated(trained))
    results = folds.train_folds(config, tmp_path / "run")
    assert [workdir.name for _, workdir in trained] == ["fold_0", "fold_1", "fold_2"]
    for fold, (of_fold, _) in enumerate(trained):
        of_fold.fold = config.fold
        assert of_fold.to_dict() == config.to_dict(), fold
    assert results["mean"]["mR"] == pytest.approx(20)
    assert results["std"]["mR"] == pytest.approx(np.std([10, 20, 30], ddof=1))
    assert results["mean"]["best_epoch"] == 3
    report = tmp_path / "run" / "report"
    assert json.loads((report / "folds.json").read_text()) == results
    rows = (report / "folds.md").read_text().splitlines()
    names = [row.split("|")[1].strip() for row in rows if row.startswith("|")]
    assert names == ["fold", "-" * 6, "0", "1", "2", "mean", "std"]
    assert "20.00" in capsys.readouterr().out


def test_what_some_fold_does_not_have_is_not_averaged():
    scored = {"test": {"mR": 20.0, "concept_map": 40.0}, "best_epoch": 1.0}
    not_scored = {"test": {"mR": 40.0}, "best_epoch": 3.0}
    for runs in ([scored, not_scored], [not_scored, scored]):
        assert folds.aggregate(runs)["mean"] == {"mR": 30.0, "best_epoch": 2.0}
    assert folds.aggregate([scored, scored])["mean"]["concept_map"] == 40


def test_a_published_validation_split_makes_no_folds(config, tmp_path):
    config.data.validation = "published"
    with pytest.raises(ConfigError, match="set it to 'random'"):
        folds.train_folds(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fold_of_its_own_is_the_same_run(config, tmp_path):
    """One fold of one step, really trained; then the same by itself."""
    config.num_folds, config.max_steps = 1, 1
    config.image_encoder.module = "plain_encoders:Colours"  # compiles in no time
    config.text_encoder.module = "plain_encoders:Words"
    results = folds.train_folds(config, tmp_path / "run")
    assert set(results["std"].values()) == {0.0}
    again = loop.train(config, tmp_path / "run" / "fold_0")  # finished: it is scored again
    assert again["test"]["mR"] == results["folds"][0]["mR"]
    config.fold = 1
    with pytest.raises(ConfigError, match=r"config\.fold: 0 in the checkpoint, 1 now"):
        loop.train(config, tmp_path / "run" / "fold_0")
