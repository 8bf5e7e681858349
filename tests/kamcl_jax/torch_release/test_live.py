"""The comparison of two programs side by side, with our own in the original's place."""

import numpy as np
import pytest

from configs import rsicd
from kamcl_jax.torch_release import command, live
from kamcl_jax.torch_release.our_program import OurProgram


class Twin(OurProgram):
    """Says that it is the original, and gets a gradient wrong if it is told to."""

    stand_ins = ("xlwt",)
    wrong = ""

    def train_step(self, epoch, batch, momentum_coverage):
        step = super().train_step(epoch, batch, momentum_coverage)
        if self.wrong:
            step["gradients"][self.wrong] = 1.02 * step["gradients"][self.wrong]
        return step


@pytest.mark.long
def test_two_programs_that_agree_and_two_that_do_not(monkeypatch, tmp_path, capsys):
    config = rsicd.get_config("release")
    monkeypatch.setattr(live, "load_original", lambda *_: Twin(config, np.float64))
    assert command.against_original(config, tmp_path)
    printed = capsys.readouterr().out
    assert "cannot be imported, replaced by stand-ins of ours: xlwt" in printed
    assert "| gradients of all parameters " in printed
    assert "ok: all 14 quantities agree" in printed
    monkeypatch.setattr(Twin, "wrong", "textmodelQ.tx.0.weight")
    assert not command.against_original(config, tmp_path)
    assert "FAIL: gradient/textmodelQ.tx.0.weight |" in capsys.readouterr().out
