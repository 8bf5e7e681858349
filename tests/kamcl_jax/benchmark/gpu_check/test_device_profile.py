"""What a profile says: which events are kernels, and for how much of the time any runs."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from kamcl_jax.benchmark.gpu_check import device_profile
from kamcl_jax.benchmark.gpu_check.device_profile import Kernel


def test_overlapping_kernels_count_once():
    ran = [Kernel("a", 0, 40), Kernel("b", 10, 30), Kernel("a", 30, 50), Kernel("c", 90, 100)]
    told = device_profile.summary(ran, steps=2)
    assert told["busy"] == pytest.approx(0.6)
    assert told["launches_a_step"] == 2
    assert told["seconds_a_step"] == pytest.approx(50e-9)
    assert [kernel["name"] for kernel in told["longest"]] == ["a", "b", "c"]
    assert told["longest"][0] == {
        "name": "a",
        "seconds_a_step": pytest.approx(30e-9),
        "runs_a_step": 1,
        "share": pytest.approx(60 / 90),
    }


def test_of_a_gpu_the_streams_count_and_not_what_sums_them_up():
    def line(name, *spans):
        events = [SimpleNamespace(name=n, start_ns=s, duration_ns=d) for n, s, d in spans]
        return SimpleNamespace(name=name, events=events)

    gpu = SimpleNamespace(
        name="/device:GPU:0",
        lines=[
            line("XLA Modules", ("jit_step", 0, 100)),
            line("Stream #15(Compute)", ("gemm", 0, 10), ("fusion", 20, 5)),
            line("Stream #16(MemcpyH2D)", ("copy", 8, 4)),
        ],
    )
    host = SimpleNamespace(name="/host:CPU", lines=[])
    data = SimpleNamespace(planes=[host, gpu])
    assert list(device_profile.kernels(data)) == [
        Kernel("gemm", 0, 10),
        Kernel("fusion", 20, 25),
        Kernel("copy", 8, 12),
    ]


def test_a_profile_of_this_device_can_be_read(tmp_path):
    compute = jax.jit(lambda x: jnp.sin(x @ x).sum())
    x = jnp.ones((64, 64))
    compute(x)
    with jax.profiler.trace(tmp_path):
        jax.block_until_ready(compute(x))
    (path,) = tmp_path.rglob("*.xplane.pb")
    ran = list(device_profile.kernels(jax.profiler.ProfileData.from_file(str(path))))
    assert 0 < device_profile.summary(ran, 1)["busy"] <= 1
