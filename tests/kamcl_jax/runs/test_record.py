"""What travels with a checkpoint tells whether the data are still those that it was trained on."""

from types import SimpleNamespace

import pytest
from tiny_model import tiny_config

from kamcl_jax.errors import ConfigError
from kamcl_jax.runs import record
from kamcl_jax.runs.history import History


def test_images_that_are_gone_since_the_checkpoint_are_named(load_small, small_source, capsys):
    def experiment():
        data = load_small(bad_images="skip")
        return SimpleNamespace(config=tiny_config(), steps_per_epoch=1, data=data)

    def lose(*names):
        for name in names:
            (small_source / "images" / name).unlink()

    lose("0.png")
    stored = record.make(experiment(), History())
    record.check(experiment(), stored)
    assert capsys.readouterr().err == ""
    lose("12.png")  # of the test split: the training goes on, but is told
    record.check(experiment(), stored)
    told = "1 image used at that time can't be used now (12.png)."
    assert told in " ".join(capsys.readouterr().err.split())
    lose("1.png", "2.png", "3.png")
    named = r"vocabulary changed .*: 4 images used .* now \(1.png, 2.png, 3.png, ...\)$"
    with pytest.raises(ConfigError, match=named):
        record.check(experiment(), stored)
