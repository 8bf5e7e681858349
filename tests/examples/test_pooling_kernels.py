import jax.numpy as jnp
import pytest

from examples import pooling_kernels


def test_a_cpu_times_what_it_can_run(capsys):
    pooling_kernels.main(["--batch=2", "--positions=3", "--items=5", "--repeats=2"])
    text = capsys.readouterr().out
    for part in ("f32[2, 3, 5]", "(cpu)", "| counting |", "| sort"):
        assert part in text
    assert "| pallas" not in text
    assert "pallas" in pooling_kernels.ways("gpu")
    with pytest.raises(SystemExit):
        pooling_kernels.main(["--items=257"])


def test_ways_that_disagree_are_not_timed():
    ranks = {"counting": pooling_kernels.sorted_ranks, "zeros": jnp.zeros_like}
    with pytest.raises(ValueError, match="counting and zeros disagree"):
        pooling_kernels.median_seconds(ranks, jnp.array([[[1.0, 2.0]]]), 1)
