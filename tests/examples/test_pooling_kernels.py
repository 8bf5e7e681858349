import jax.numpy as jnp
import pytest

from examples import pooling_kernels


def test_a_cpu_times_what_it_can_run(capsys):
    pooling_kernels.main(["--batch=2", "--positions=3", "--items=5", "--repeats=2"])
    text = capsys.readouterr().out
    assert "f32[2, 3, 5]" in text
    assert "(cpu)" in text
    assert "| counting |" in text
    assert "| sort" in text
    assert "| pallas" not in text


def test_only_a_gpu_has_the_kernel():
    assert "pallas" in pooling_kernels.ways("gpu")
    assert "pallas" not in pooling_kernels.ways("cpu")


def test_ways_that_disagree_are_not_timed():
    ranks = {"counting": pooling_kernels.sorted_ranks, "zeros": jnp.zeros_like}
    with pytest.raises(ValueError, match="counting and zeros disagree"):
        pooling_kernels.median_seconds(ranks, jnp.array([[[1.0, 2.0]]]), 1)


def test_longer_lists_are_refused():
    with pytest.raises(SystemExit):
        pooling_kernels.main(["--items=257"])
