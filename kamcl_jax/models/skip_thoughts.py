"""The skip-thoughts sentence encoder (Kiros et al. 2015) with variational dropout.

It embeds words and runs a GRU whose dropout masks are drawn once a sequence and once a gate and are
shared by all time steps (Gal & Ghahramani 2016). The PyTorch ecosystem calls it "BayesianUniSkip".
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.export import is_symbolic_dim

from kamcl_jax.models import layers

GATES = ("reset", "update", "candidate")
"""The order of the gates along the first axis of the kernels."""


class SkipThoughts(nn.Module):
    """Embeds words and runs the GRU over them; the widths are as published."""

    num_tokens: int  # rows of the embedding: the vocabulary and row 0, the padding
    word_width: int = 620
    hidden_width: int = 2400  # H
    dropout: float = 0.25  # on inputs and states

    @nn.compact
    def __call__(self, tokens: jax.Array, lengths: jax.Array, *, train: bool) -> jax.Array:
        """Returns the state after each word, f32[B, T, H], in the parameters' dtype.

        Args:
          tokens: i32[B, T], 0 = padding.
          lengths: i32[B], the words of each caption; states after the last word are zero.
          train: Whether to drop, which needs the "dropout" PRNG stream.
        """
        table = self.param("embedding", _embedding_init, (self.num_tokens, self.word_width))
        # Masked after the look-up, so that row 0 reads as zero and never receives a gradient.
        words = jnp.where((tokens > 0)[..., None], _look_up(table, tokens), 0)
        input_init = layers.uniform_init(self.word_width**-0.5)
        state_init = layers.uniform_init(self.hidden_width**-0.5)
        input_shape = (len(GATES), self.word_width, self.hidden_width)
        state_shape = (len(GATES), self.hidden_width, self.hidden_width)
        input_kernel = self.param("input_kernel", input_init, input_shape)
        input_bias = self.param("input_bias", input_init, (len(GATES), self.hidden_width))
        recurrent_kernel = self.param("recurrent_kernel", state_init, state_shape)

        batch = tokens.shape[0]
        word_mask = self._mask((len(GATES), batch, self.word_width), train, words.dtype)
        state_mask = self._mask((len(GATES), batch, self.hidden_width), train, words.dtype)
        if word_mask is None:
            projected = jnp.einsum("btd,gdh->tgbh", words, input_kernel)
        else:
            dropped = words[None] * word_mask[:, :, None]
            projected = jnp.einsum("gbtd,gdh->tgbh", dropped, input_kernel)
        projected += input_bias[:, None]
        if state_mask is None:
            state_mask = jnp.ones((len(GATES), 1, 1), words.dtype)
        states = gru_states(recurrent_kernel, projected, state_mask, lengths)
        return jnp.moveaxis(states, 0, 1)

    def _mask(self, shape: tuple[int, ...], train: bool, dtype: jnp.dtype) -> jax.Array | None:
        if not train or self.dropout == 0:
            return None
        keep = 1 - self.dropout
        return jax.random.bernoulli(self.make_rng("dropout"), keep, shape).astype(dtype) / keep


def _look_up(table: jax.Array, tokens: jax.Array) -> jax.Array:
    # Through float32 at least, so that a frequent word's many gradients are summed there.
    wide = jnp.promote_types(table.dtype, jnp.float32)
    return table.astype(wide)[tokens].astype(table.dtype)


def _embedding_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(key, shape).at[0].set(0)


@jax.custom_vjp
def gru_states(
    kernel: jax.Array, projected: jax.Array, mask: jax.Array, lengths: jax.Array
) -> jax.Array:
    """Runs a GRU without hidden biases and returns its states.

    reset = s(x_r + (m_r h) W_r), update = s(x_u + (m_u h) W_u),
    candidate = tanh(x_c + reset * ((m_c h) W_c)), h' = (1 - update) * candidate + update * h.

    The kernel's gradient is one product over all steps after the backward loop instead of one a
    step. How the loops are run is a matter of the device: see `_run` and `_run_unrolled`.

    All arrays share one float dtype, which the loops compute in; the kernel's gradient is summed
    over the steps and the batch in float32 at least.

    Args:
      kernel: f32[3, H, H], the recurrent kernels in the order of `GATES`.
      projected: f32[T, 3, B, H], the gates' inputs, already multiplied and biased.
      mask: f32[3, B, H] or broadcastable to it, multiplied into the state before each gate. It is
        taken as random, so its gradient is zero.
      lengths: i32[B].

    Returns:
      f32[T, B, H], zero from each caption's end on.
    """
    return _states_and_gates(kernel, projected, mask, lengths, keep_gates=False)[0]


def _states_and_gates(kernel, projected, mask, lengths, keep_gates):
    """Returns f32[T, B, H], and f32[T, 4, B, H]: the gates and the candidate's part of the state.

    The gates are None where they are not kept.
    """
    # What is exported for any sizes cannot be unrolled.
    steps_known = not any(map(is_symbolic_dim, projected.shape))
    how = {"default": _run}
    if steps_known:
        how |= {"cuda": _run_unrolled, "rocm": _run_unrolled}
    return jax.lax.platform_dependent(
        kernel,
        projected,
        mask,
        lengths,
        **{name: partial(run, keep_gates=keep_gates) for name, run in how.items()},
    )


def _gates(from_input, from_state):
    """Returns reset, update and candidate of a step, and the candidate's part of the state."""
    reset = jax.nn.sigmoid(from_input[0] + from_state[0])
    update = jax.nn.sigmoid(from_input[1] + from_state[1])
    return reset, update, jnp.tanh(from_input[2] + reset * from_state[2]), from_state[2]


def _next(state, gates, present):
    """Returns the state f32[B, H] after a step."""
    _, update, candidate, _ = gates
    return jnp.where(present[:, None], (1 - update) * candidate + update * state, 0)


def _by_gate(kernel: jax.Array) -> list[jax.Array]:
    """Takes the kernel apart outside of a loop: inside, XLA copies the slices at every step."""
    return [kernel[gate] for gate in range(len(GATES))]


def _run(kernel, projected, mask, lengths, keep_gates):
    """Loops until the longest caption of the batch ends, whatever the padding."""
    steps, _, batch, hidden = projected.shape
    buffer = jnp.zeros((steps, batch, hidden), projected.dtype)
    gates = jnp.zeros((steps, 4, batch, hidden), projected.dtype) if keep_gates else None
    kernels = _by_gate(kernel)

    def step(t, carry):
        state, states, gates = carry
        # Three products: a batched one is not faster, and a fused one has no place for the masks.
        from_state = [
            (state * gate_mask) @ gate for gate_mask, gate in zip(mask, kernels, strict=True)
        ]
        of_step = _gates(projected[t], from_state)
        new = _next(state, of_step, t < lengths)
        if gates is not None:
            gates = gates.at[t].set(jnp.stack(of_step))
        return new, states.at[t].set(new), gates

    start = jnp.zeros((batch, hidden), projected.dtype)
    last = jnp.minimum(lengths.max(), steps)
    _, states, gates = jax.lax.fori_loop(0, last, step, (start, buffer, gates))
    return states, gates


UNROLLED = 64
"""So many steps of the GRU follow each other without a loop on a GPU; longer captions loop."""

ROWS = 8
"""A GPU multiplies 16-bit matrices of a multiple of so many rows; XLA would pad at every step."""


def _run_unrolled(kernel, projected, mask, lengths, keep_gates):
    """Runs over the padding, too, with three launches for a step: a product and two for the rest.

    A loop launches more kernels than these for each of its rounds, and the host would wait for each
    round to know whether it was the last one.
    """
    batch, fill = projected.shape[2], _filling(projected.dtype)
    projected, mask, lengths = fill(projected, 2), fill(mask, 1), fill(lengths, 0)

    def step(state, item):
        t, from_input = item
        from_state = jnp.einsum("gbh,ghk->gbk", state * mask, kernel)
        new = _next(state, _gates(from_input, from_state), t < lengths)
        return new, (new, from_state)

    items = jnp.arange(len(projected)), projected
    _, (states, from_state) = _scan(step, jnp.zeros_like(projected[0, 0]), items)
    gates = None
    if keep_gates:  # of all steps at once
        gates = jnp.stack(jax.vmap(_gates)(projected, from_state), axis=1)[:, :, :batch]
    return states[:, :batch], gates


def _scan(step, start, items, reverse=False):
    unroll = min(len(items[0]), UNROLLED)
    return jax.lax.scan(step, start, items, reverse=reverse, unroll=unroll)


def _filling(dtype: jnp.dtype) -> Callable[[jax.Array, int], jax.Array]:
    """Returns what fills up an array's batch for products of a dtype, as `ROWS` says."""
    # Several devices would have to exchange rows first.
    alone = jax.sharding.get_abstract_mesh().size <= 1

    def fill(x: jax.Array, axis: int) -> jax.Array:
        # An axis of 1 is broadcast and stays.
        whole = not alone or jnp.dtype(dtype).itemsize > 2 or x.shape[axis] == 1
        missing = 0 if whole else -x.shape[axis] % ROWS
        return jnp.pad(x, [(0, missing if at == axis else 0) for at in range(x.ndim)])

    return fill


def _forward(kernel, projected, mask, lengths):
    states, gates = _states_and_gates(kernel, projected, mask, lengths, keep_gates=True)
    return states, (kernel, mask, lengths, states, gates)


def _backward(saved, gradient):
    kernel, mask, lengths, states, gates = saved
    before = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])
    d_projected = jax.lax.platform_dependent(
        kernel,
        mask,
        lengths,
        before,
        gates,
        gradient,
        default=_run_back,
        cuda=_run_back_unrolled,
        rocm=_run_back_unrolled,
    )
    d_products = d_projected.at[:, 2].multiply(gates[:, 0])
    masked = before[:, None] * mask
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    d_kernel = jnp.einsum("tgbh,tgbk->ghk", masked, d_products, preferred_element_type=wide)
    return d_kernel.astype(kernel.dtype), d_projected, jnp.zeros_like(mask), None


def _cell_back(d_state, gates, before):
    """Returns the gradients f32[3, B, H] of a step's inputs, and of its products with the state."""
    reset, update, candidate, from_candidate = gates
    d_candidate = d_state * (1 - update) * (1 - candidate**2)
    d_update = d_state * (before - candidate) * update * (1 - update)
    d_reset = d_candidate * from_candidate * reset * (1 - reset)
    return jnp.stack([d_reset, d_update, d_candidate]), (d_reset, d_update, d_candidate * reset)


def _run_back(kernel, mask, lengths, before, gates, gradient):
    """Loops back from the end of the longest caption and returns the inputs' gradient."""
    steps, batch, hidden = before.shape
    kernels = _by_gate(kernel)

    def step(count, carry):
        t = last - 1 - count
        from_later, d_projected = carry
        d_state = jnp.where((t < lengths)[:, None], gradient[t] + from_later, 0)
        d_input, products = _cell_back(d_state, gates[t], before[t])
        to_earlier = d_state * gates[t, 1]
        for gate_mask, gate, product in zip(mask, kernels, products, strict=True):
            to_earlier += (product @ gate.T) * gate_mask
        return to_earlier, d_projected.at[t].set(d_input)

    last = jnp.minimum(lengths.max(), steps)
    start = jnp.zeros((batch, hidden), before.dtype)
    buffer = jnp.zeros((steps, len(GATES), batch, hidden), before.dtype)
    return jax.lax.fori_loop(0, last, step, (start, buffer))[1]


def _run_back_unrolled(kernel, mask, lengths, before, gates, gradient):
    """Does `_run_back` as `_run_unrolled` runs forward."""
    batch, fill = before.shape[1], _filling(before.dtype)
    before, gates, gradient = fill(before, 1), fill(gates, 2), fill(gradient, 1)
    mask, lengths = fill(mask, 1), fill(lengths, 0)

    def step(from_later, item):
        t, before, gates, gradient = item
        d_state = jnp.where((t < lengths)[:, None], gradient + from_later, 0)
        _, products = _cell_back(d_state, gates, before)
        to_earlier = jnp.einsum("gbk,ghk->gbh", jnp.stack(products), kernel) * mask
        return d_state * gates[1] + sum(to_earlier), d_state

    items = jnp.arange(len(before)), before, gates, gradient
    _, d_states = _scan(step, jnp.zeros_like(before[0]), items, reverse=True)
    d_projected, _ = jax.vmap(_cell_back)(d_states, gates, before)
    return d_projected[:, :, :batch]


gru_states.defvjp(_forward, _backward)
