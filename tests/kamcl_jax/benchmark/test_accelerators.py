import pytest

from kamcl_jax.benchmark import accelerators
from kamcl_jax.benchmark.accelerators import ACCELERATORS
from kamcl_jax.errors import AcceleratorError


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_missing_compiler_is_named_with_what_installs_it(name, monkeypatch):
    monkeypatch.setattr(accelerators, "has_compiler", lambda _: False)
    with pytest.raises(AcceleratorError, match=f"the compiler for {name} is not installed") as told:
        accelerators.absent_devices(name, 1)
    assert ACCELERATORS[name].installed_by in str(told.value)


def test_a_compiler_is_found_by_its_module(monkeypatch):
    monkeypatch.setattr(accelerators, "_installed", lambda module: module == "libtpu")
    assert accelerators.has_compiler("v5e")
    assert not accelerators.has_compiler("h100")


def test_slices_of_a_pod_have_enough_chips():
    chips = {1: "2x2", 4: "2x2", 8: "2x4", 64: "8x8", 65: "8x16", 256: "16x16"}
    assert {count: accelerators.slice_of_pod(count) for count in chips} == chips
    with pytest.raises(AcceleratorError, match="has 256 chips, not 257"):
        accelerators.slice_of_pod(257)
