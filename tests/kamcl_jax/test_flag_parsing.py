"""Flags and fields that there are not, or that cannot be, and what is said to be meant."""

import pytest

from kamcl_jax import flag_parsing

SYNTHETIC = "--mode=train --config=configs/synthetic.py"
RSICD = "--mode=train --config=configs/rsicd.py"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (f"{SYNTHETIC} --batch_size=50", "no flag --batch_size; did you mean --config.batch_size?"),
        (f"{SYNTHETIC} --margin=1", "no flag --margin; did you mean --config.loss.margin?"),
        (f"{SYNTHETIC} --wordir=x", "no flag --wordir; did you mean --workdir?"),
        (
            f"{SYNTHETIC} --config.queue_lenght=1",
            "no field 'queue_lenght'; did you mean --config.queue_length?",
        ),
        (f"{SYNTHETIC} --config.looss.margin=1", "did you mean --config.loss.margin?"),
        (
            f"{RSICD} --config.image_encoder.options.width=32",
            "no field 'width' of image_encoder.options.width: an option must be in the config file",
        ),
        (
            f"{SYNTHETIC} --config.batch_size=50.5",
            "config.batch_size cannot be '50.5'; it must be a whole number of at least 1",
        ),
        (f"{SYNTHETIC} --k=many", "flag --k=many: "),
        ("--mode=train --config=configs/rsicd.py:foo", "rsicd.py has the variants resnet18, "),
        ("--mode=train --config=nowhere.py", "error: the config cannot be loaded: "),
        (
            "--mode=train --config=configs/rsicd:resnet50",
            "did you mean --config=configs/rsicd.py:resnet50?",
        ),
    ],
)
def test_a_wrong_flag_is_one_sentence_with_what_may_be_meant(arguments, sentence, refused):
    error = refused(*arguments.split())
    assert "error: " in error
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_an_error_that_says_nothing_is_told_by_its_kind():
    with pytest.raises(SystemExit, match=r"^error: the config cannot be loaded: TimeoutError$"):
        flag_parsing.refuse_config(TimeoutError())
