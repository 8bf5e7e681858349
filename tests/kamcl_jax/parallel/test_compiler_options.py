import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax.models.layers import convolve
from kamcl_jax.parallel import compiler_options, mesh

MESH = mesh.make_mesh(devices=jax.devices()[:1])


def test_the_options_change_the_program_and_not_its_results():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 8, 8, 64)).astype(np.float32)
    kernel = generator.normal(size=(3, 3, 64, 64)).astype(np.float32)

    def run(x, kernel):
        return convolve(x, kernel, 1)

    plain = jax.jit(run)
    told = jax.jit(run, compiler_options=compiler_options.for_mesh(MESH))
    np.testing.assert_allclose(told(x, kernel), plain(x, kernel), rtol=1e-4, atol=1e-4)
    assert "__ynn_fusion" not in told.lower(x, kernel).compile().as_text()


def test_an_unknown_option_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler_options, "NO_YNN_CONVOLUTIONS", {"xla_of_another_release": "1"})
    compiler_options._known.cache_clear()
    try:
        options = compiler_options.for_mesh(MESH)
        assert options is None
        assert jax.jit(jnp.square, compiler_options=options)(3.0) == 9
    finally:
        compiler_options._known.cache_clear()


def test_double_precision_is_left_to_xla():
    with jax.enable_x64(True):
        assert compiler_options.for_mesh(MESH) is None
