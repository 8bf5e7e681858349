"""What XLA is told beside the programs, where its own choice is a slow one."""

from functools import cache

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

NO_YNN_CONVOLUTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}
"""YNNPACK shares a convolution out to threads by 64 output channels, so that the 64 of ResNet-18's
first stage run on one core; Eigen uses all. Products and sums stay with YNNPACK, which is faster.
In double precision Eigen's are 18 times slower.
"""


def for_mesh(mesh: Mesh) -> dict[str, str] | None:
    """Returns the `compiler_options` of `jax.jit` for a mesh's devices; None: nothing to say."""
    double = jnp.result_type(float) == jnp.float64
    cpu = mesh.devices.flat[0].platform == "cpu"
    return NO_YNN_CONVOLUTIONS if cpu and not double and _known() else None


@cache
def _known() -> bool:
    """Whether this release of XLA has the options, which are no stable interface."""
    try:
        jax.jit(lambda x: x, compiler_options=NO_YNN_CONVOLUTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
