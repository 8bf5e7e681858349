"""The comparison of two programs side by side, with one of ours in the original's place."""

import numpy as np
import pytest

from configs import rsicd
from kamcl_jax.torch_release import command, live
from kamcl_jax.torch_release.our_program import OurProgram

WRONG = "textmodelQ.tx.0.weight"


class Twin(OurProgram):
    """Passes for the original, and gets one gradient wrong."""

    stand_ins = ("xlwt",)

    def train_step(self, epoch, batch, momentum_coverage):
        step = super().train_step(epoch, batch, momentum_coverage)
        step["gradients"][WRONG] = 1.02 * step["gradients"][WRONG]
        return step


@pytest.mark.long
def test_two_programs_that_differ_in_one_gradient(monkeypatch, tmp_path, capsys):
    config = rsicd.get_config("release")
    monkeypatch.setattr(live, "TorchOriginal", lambda *_: Twin(config, np.float64))
    assert not command.against_original(config, tmp_path)
    printed = capsys.readouterr().out
    assert "cannot be imported, replaced by stand-ins of ours: xlwt" in printed
    assert f"FAIL: gradient/{WRONG} |" in printed
    assert "FAIL: 1 of 14 quantities differ: gradients of all parameters" in printed
