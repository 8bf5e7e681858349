"""The generalized pooling operator (GPO): a learned, length-dependent average of sorted features.

Chen et al., "Learning the Best Pooling Strategy for Visual Semantic Embedding" (CVPR 2021); "AGG"
in KAMCL's architecture figure.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kamcl_jax.models import initializers

COUNT_UP_TO = 256
"""Items up to which places are counted, O(N^2) but in wide vectors; longer lists are sorted.

At most 256: a count is kept in a byte.
"""


def position_codes(num_items: int, width: int) -> np.ndarray:
    """Returns sinusoidal codes of positions 0..num_items-1 (Vaswani et al. 2017), f32[N, width].

    Even columns are sines, odd ones cosines, of angular frequency 10000^(-column / width). They are
    constants, made on the host in single precision: the same on every device and at every dtype of
    the parameters.

    Raises:
      ValueError: the width is odd.
    """
    if width % 2:
        raise ValueError(f"position codes need an even width, not {width}")
    # PyTorch's rounding of exponents, frequencies and angles, so that its weights mean the same.
    exponents = np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10000.0) / width)
    frequencies = np.exp(exponents, dtype=np.float64).astype(np.float32)
    angles = (np.arange(num_items, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    codes = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(num_items, width)
    return codes.astype(np.float32)


def descending_ranks(values: jax.Array) -> jax.Array:
    """Returns each item's place in the descending order along axis 1, ties by index.

    Up to `COUNT_UP_TO` items the larger ones are counted, which on a CPU is several times faster
    than sorting the low-level features of ResNet-18 (192 items of 4096 x B columns).

    Args:
      values: f32[B, N, D].

    Returns:
      i32[B, N, D]; every column (b, :, d) is a permutation of 0..N-1.
    """
    if values.shape[1] > COUNT_UP_TO:
        order = jnp.argsort(values, axis=1, descending=True, stable=True)
        return jnp.argsort(order, axis=1)
    items = jnp.arange(values.shape[1])
    index = items[None, :, None]

    def count(ranks, other):
        position, value = other
        value = value[:, None]
        ahead = (value > values) | ((value == values) & (position < index))
        return ranks + ahead.astype(jnp.uint8), None

    # Bytes: the loop is bound by memory, and half of its traffic is the counts.
    zeros = jnp.zeros(values.shape, jnp.uint8)
    ranks, _ = jax.lax.scan(count, zeros, (items, jnp.moveaxis(values, 1, 0)))
    return ranks.astype(jnp.int32)


def pool_sorted(features: jax.Array, weights: jax.Array, valid: jax.Array | None = None):
    """Sorts each feature's valid items in descending order and sums them with weights.

    Args:
      features: f32[B, N, D], N items of D features.
      weights: f32[N], one for each place in the order, or f32[B, N] where samples differ. With
        `valid`, weights past a sample's number of valid items must be 0.
      valid: bool[B, N], items that take part; all, if None.

    Returns:
      f32[B, D], sum over k of weights[k] * (k-th largest valid value of the feature), multiplied in
      the features' dtype, summed in the wider of both dtypes, returned in the features'.
    """
    ordered_by = jax.lax.stop_gradient(features)
    if valid is not None:
        ordered_by = jnp.where(valid[:, :, None], ordered_by, -jnp.inf)
    ranks = descending_ranks(ordered_by)
    item_weights = (
        weights[ranks] if weights.ndim == 1 else jax.vmap(lambda w, r: w[r])(weights, ranks)
    )
    # The features are by far the largest array here: no product or gradient is wider than they are.
    weighted = item_weights.astype(features.dtype) * features
    wide = jnp.promote_types(weights.dtype, features.dtype)
    return jnp.sum(weighted, axis=1, dtype=wide).astype(features.dtype)


class GPO(nn.Module):
    """Generalized pooling: weights from a bidirectional GRU over position codes.

    The weights depend on the number of items alone, never on the data, so they are computed once
    per number of items and not per sample.

    Attributes:
      code_width: width of the position codes.
      hidden_width: width of each direction of the GRU.
      temperature: divides the scores before the softmax.
    """

    code_width: int = 32
    hidden_width: int = 32
    temperature: float = 0.1

    def setup(self):
        """Declares the parameters of both directions and of the score."""
        shape = (self.code_width, self.hidden_width)
        self.forward_gru = GRUDirection(*shape)
        self.backward_gru = GRUDirection(*shape)
        self.score = nn.Dense(1, use_bias=False, kernel_init=initializers.linear_kernel)

    def weights(self, counts: jax.Array, num_items: int) -> jax.Array:
        """Returns the pooling weights for lists of each of the given numbers of items.

        Args:
          counts: i32[M], each in 1..num_items.
          num_items: N, the padded length.

        Returns:
          f32[M, N], float32 at least whatever the parameters' dtype; row m sums to 1 over its first
          counts[m] places and is 0 after them.
        """
        codes = jnp.asarray(position_codes(num_items, self.code_width))
        present = jnp.arange(num_items) < counts[:, None]
        # The forward direction never sees the end, so one run serves every length.
        ahead = self.forward_gru(codes, jnp.ones((1, num_items), bool))
        behind = self.backward_gru(codes, present, reverse=True)
        scores = self.score((ahead + behind) / 2)[..., 0] / self.temperature
        return jax.nn.softmax(scores, axis=-1, where=present)

    def __call__(self, features: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """Pools over items.

        Args:
          features: f32[B, N, D].
          valid: bool[B, N], items that exist; all, if None. At least one a sample.

        Returns:
          f32[B, D], in the features' dtype.
        """
        num_items = features.shape[1]
        if valid is None:
            return pool_sorted(features, self.weights(jnp.array([num_items]), num_items)[0])
        by_count = self.weights(jnp.arange(1, num_items + 1), num_items)
        return pool_sorted(features, by_count[valid.sum(axis=1) - 1], valid)


class GRUDirection(nn.Module):
    """One direction of a `torch.nn.GRU` run over one sequence cut at several lengths.

    Attributes:
      input_width: width of the inputs.
      hidden_width: width of the state.
    """

    input_width: int
    hidden_width: int

    @nn.compact
    def __call__(self, inputs: jax.Array, present: jax.Array, reverse: bool = False) -> jax.Array:
        """Runs the recurrence; absent positions leave the state at zero.

        Args:
          inputs: f32[N, input_width], the sequence that all rows share.
          present: bool[M, N], which positions row m has.
          reverse: run from the last position to the first.

        Returns:
          f32[M, N, hidden_width], float32 at least whatever the parameters' dtype: the state after
          each position, in the order of the inputs.
        """
        gates = 3 * self.hidden_width
        init = initializers.uniform(self.hidden_width**-0.5)
        input_kernel = self.param("input_kernel", init, (self.input_width, gates))
        input_bias = self.param("input_bias", init, (gates,))
        recurrent_kernel = self.param("recurrent_kernel", init, (self.hidden_width, gates))
        recurrent_bias = self.param("recurrent_bias", init, (gates,))
        # Long and cheap: rounding adds up over the positions, and the widths are tiny.
        wide = jnp.promote_types(input_kernel.dtype, jnp.float32)
        recurrent_kernel, recurrent_bias = (
            x.astype(wide) for x in (recurrent_kernel, recurrent_bias)
        )
        projected = inputs @ input_kernel.astype(wide) + input_bias.astype(wide)

        def step(state, item):
            from_input, here = item
            input_r, input_z, input_n = jnp.split(from_input, 3)
            state_r, state_z, state_n = jnp.split(state @ recurrent_kernel + recurrent_bias, 3, -1)
            reset = jax.nn.sigmoid(input_r + state_r)
            update = jax.nn.sigmoid(input_z + state_z)
            candidate = jnp.tanh(input_n + reset * state_n)
            state = jnp.where(here[:, None], (1 - update) * candidate + update * state, 0)
            return state, state

        start = jnp.zeros((present.shape[0], self.hidden_width), projected.dtype)
        _, states = jax.lax.scan(step, start, (projected, present.T), reverse=reverse)
        return jnp.moveaxis(states, 0, 1)
