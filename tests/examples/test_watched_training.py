"""What can be seen of a training from outside."""

import pytest

from examples.watched_training import Schedule, Seen, look

COMPILED = "note\na step takes 0.01 GB on one device\n"
BAR = "training:  11%|#         | {}/60 [00:03<00:27,  loss 3.10, 12 images/s]\r"
VALIDATED = "epoch 1: validation mR 58.89  (i2t_r1 33.3)\n"


@pytest.mark.parametrize(
    ("output", "phase"),
    [
        ("", "compiling"),
        ("drawing:  50%|#####     | 15/30 [00:03<00:27]", "compiling"),
        (COMPILED + BAR.format(0), "step"),
        (COMPILED + BAR.format(0) + BAR.format(14), "step"),
        (COMPILED + BAR.format(0) + BAR.format(15), "validation"),
        (COMPILED + BAR.format(0) + BAR.format(15) + VALIDATED + BAR.format(15), "step"),
        (COMPILED + BAR.format(15), "step"),  # goes on from an epoch's end
        (COMPILED + BAR.format(45) + BAR.format(60), "validation"),
        (COMPILED + BAR.format(45) + BAR.format(60) + VALIDATED + BAR.format(60), "report"),
        ("already trained to step 60: reporting on the best checkpoint\n", "report"),
    ],
)
def test_phases_are_seen_in_the_output(output, phase, tmp_path):
    seen = look(output, tmp_path)
    assert Schedule(epoch=15, last=60).phases(seen) == [phase]


def test_an_unfinished_checkpoint_is_seen_in_the_folder(tmp_path):
    (tmp_path / "checkpoints" / "14.orbax-checkpoint-tmp").mkdir(parents=True)
    seen = look(COMPILED + BAR.format(0) + BAR.format(15), tmp_path)
    assert seen == Seen(compiled=True, step=15, validated=0, writing=True)
    assert Schedule(epoch=15, last=60).phases(seen) == ["validation", "writing"]
