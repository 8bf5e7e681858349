"""KAMCL once more, from library parts wherever ours has a fast path: the plain twin.

`DualEncoder`, `ConceptHead`, `SharedMLP`, the position codes and the weight of the alignment are
ours, as they are plain themselves; other tests check those. The modules share names, parameters and
random streams with those of `kamcl_jax.models`, and none of their fast paths: pooling,
normalisation and convolution are Linen's, features are sorted instead of counted, the recurrences
are plain scans that JAX differentiates, and the losses are Optax's or a line of NumPy's functions.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from kamcl_jax import schedule
from kamcl_jax.models.encoders import ConceptHead, DualEncoder
from kamcl_jax.models.hierarchical_aggregator import SharedMLP
from kamcl_jax.models.pooling import position_codes
from kamcl_jax.models.resnet import BLOCKS_PER_STAGE, BOTTLENECK_FROM


def convolution(features, size, stride, name):
    padding = [(size // 2, size // 2)] * 2
    return nn.Conv(features, (size, size), stride, padding, use_bias=False, name=name)


def max_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def batch_norm(train, name):
    return nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False, name=name)


class Block(nn.Module):
    features: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x, *, train):
        layers = [(3, self.stride, self.features), (3, 1, self.features)]
        if self.bottleneck:
            layers = [(1, 1, self.features), layers[0], (1, 1, 4 * self.features)]
        y = x
        for number, (size, stride, features) in enumerate(layers, start=1):
            y = convolution(features, size, stride, f"conv{number}")(y)
            y = batch_norm(train, f"bn{number}")(y)
            y = nn.relu(y) if number < len(layers) else y
        if x.shape != y.shape:
            x = convolution(y.shape[-1], 1, self.stride, "downsample_conv")(x)
            x = batch_norm(train, "downsample_bn")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    depth: int
    width: int

    @nn.compact
    def __call__(self, images, *, train):
        x = convolution(self.width, 7, 2, "conv1")(images)
        x = nn.relu(batch_norm(train, "bn1")(x))
        x = max_pool(x)
        stages = []
        for stage, blocks in enumerate(BLOCKS_PER_STAGE[self.depth]):
            for number in range(blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                width, name = self.width * 2**stage, f"layer{stage + 1}_{number}"
                block = Block(width, stride, self.depth >= BOTTLENECK_FROM, name=name)
                x = block(x, train=train)
            stages.append(x)
        return stages


class GRUDirection(nn.Module):
    width: int

    @nn.compact
    def __call__(self, inputs):
        """Runs over f32[B, N, D] from the first item on -> f32[B, N, width]."""
        gates, draw = 3 * self.width, nn.initializers.normal()
        input_kernel = self.param("input_kernel", draw, (inputs.shape[-1], gates))
        input_bias = self.param("input_bias", draw, (gates,))
        recurrent_kernel = self.param("recurrent_kernel", draw, (self.width, gates))
        recurrent_bias = self.param("recurrent_bias", draw, (gates,))

        def step(state, item):
            input_r, input_z, input_n = jnp.split(item @ input_kernel + input_bias, 3, axis=-1)
            state_r, state_z, state_n = jnp.split(state @ recurrent_kernel + recurrent_bias, 3, -1)
            reset, keep = nn.sigmoid(input_r + state_r), nn.sigmoid(input_z + state_z)
            state = (1 - keep) * jnp.tanh(input_n + reset * state_n) + keep * state
            return state, state

        start = jnp.zeros((len(inputs), self.width), jnp.result_type(inputs, input_kernel))
        return jax.lax.scan(step, start, inputs.swapaxes(0, 1))[1].swapaxes(0, 1)


class GPO(nn.Module):
    @nn.compact
    def __call__(self, features, lengths=None):
        """Pools the first `lengths` items of f32[B, D, N]."""
        batch, _, items = features.shape
        lengths = jnp.full((batch,), items) if lengths is None else lengths
        # Each sample's codes run to its own last item; backwards they are taken in reverse order.
        forwards = jnp.broadcast_to(jnp.arange(items), (batch, items))
        backwards = jnp.where(forwards < lengths[:, None], lengths[:, None] - 1 - forwards, 0)
        codes = jnp.asarray(position_codes(items, 32))
        ahead = GRUDirection(32, name="forward_gru")(codes[forwards])
        behind = GRUDirection(32, name="backward_gru")(codes[backwards])
        behind = jnp.take_along_axis(behind, backwards[..., None], axis=1)
        scores = nn.Dense(1, use_bias=False, name="score")((ahead + behind) / 2)[..., 0] / 0.1
        present = forwards < lengths[:, None]
        weights = jax.nn.softmax(jnp.where(present, scores, -jnp.inf))
        ordered = jnp.sort(jnp.where(present[:, None], -features, jnp.inf), axis=-1)
        ordered = jnp.where(present[:, None], -ordered, 0)
        return (ordered * weights[:, None]).sum(-1).astype(features.dtype)


class ImageEncoder(nn.Module):
    num_concepts: int
    embedding_size: int
    depth: int
    width: int

    @nn.compact
    def __call__(self, images, *, train):
        stages = ResNet(self.depth, self.width, name="resnet")(images, train=train)
        latent = Aggregator(self.embedding_size, name="aggregator")(stages)
        return ConceptHead(self.num_concepts, name="concept_head")(latent)


def doubled(features, like):
    """Doubles rows and columns by nearest neighbour and cuts off what is too much."""
    features = jnp.kron(features, jnp.ones((1, 2, 2, 1), features.dtype))
    return jnp.concatenate([like, features[:, : like.shape[1], : like.shape[2]]], axis=-1)


class Aggregator(nn.Module):
    width: int

    @nn.compact
    def __call__(self, stages):
        batch, channels = len(stages[3]), stages[3].shape[-1]
        final = GPO(name="final_gpo")(stages[3].reshape(batch, -1, channels).swapaxes(1, 2))
        if channels != self.width:
            final = nn.Dense(self.width, name="final_linear")(final)
        low = doubled(stages[1], stages[0])
        low = GPO(name="low_gpo")(low.reshape(batch, -1, low.shape[-1]))
        low = nn.Dense(self.width, name="low_linear")(low)
        high = nn.Dense(self.width, name="high_linear")(doubled(stages[3], stages[2]).mean((1, 2)))
        levels = jnp.stack([final, low, high], axis=1)
        items = jnp.concatenate([SharedMLP(name="mlp")(levels), levels], axis=1)
        return GPO(name="gpo")(items.swapaxes(1, 2))


class SkipThoughts(nn.Module):
    num_tokens: int
    word_width: int
    hidden_width: int
    dropout: float

    @nn.compact
    def __call__(self, tokens, *, train):
        draw, (batch, _) = nn.initializers.normal(), tokens.shape
        table = self.param("embedding", draw, (self.num_tokens, self.word_width))
        input_kernel = self.param("input_kernel", draw, (3, self.word_width, self.hidden_width))
        input_bias = self.param("input_bias", draw, (3, self.hidden_width))
        kernel = self.param("recurrent_kernel", draw, (3, self.hidden_width, self.hidden_width))
        on_words, on_states = (
            self.mask((3, batch, width), train, table.dtype)
            for width in (self.word_width, self.hidden_width)
        )

        def step(state, words):
            inputs = [words * on_words[n] @ input_kernel[n] + input_bias[n] for n in range(3)]
            states = [state * on_states[n] @ kernel[n] for n in range(3)]
            reset, update = nn.sigmoid(inputs[0] + states[0]), nn.sigmoid(inputs[1] + states[1])
            candidate = jnp.tanh(inputs[2] + reset * states[2])
            state = (1 - update) * candidate + update * state
            return state, state

        words = jnp.take(table, tokens, axis=0) * (tokens > 0)[..., None]
        start = jnp.zeros((batch, self.hidden_width), table.dtype)
        return jax.lax.scan(step, start, words.swapaxes(0, 1))[1].swapaxes(0, 1)

    def mask(self, shape, train, dtype):
        keep = 1 - self.dropout
        if not train or keep == 1:
            return jnp.ones(shape, dtype)
        return jax.random.bernoulli(self.make_rng("dropout"), keep, shape).astype(dtype) / keep


class TextEncoder(nn.Module):
    num_tokens: int
    num_concepts: int
    embedding_size: int
    word_width: int
    hidden_width: int
    dropout: float

    @nn.compact
    def __call__(self, tokens, lengths, word_concepts, *, train):
        widths = self.num_tokens, self.word_width, self.hidden_width
        states = SkipThoughts(*widths, self.dropout, name="skip_thoughts")(tokens, train=train)
        words = nn.Dense(self.embedding_size, name="state_linear")(states)
        words_again = SharedMLP(name="mlp")(words)
        # All of a caption's items come first, so that the pooling takes the first 2 x its length.
        items, place = jnp.concatenate([words, words_again], axis=1), jnp.arange(2 * words.shape[1])
        of_word = jnp.where(place < lengths[:, None], place, place - lengths[:, None])
        of_word = jnp.where(place < lengths[:, None], of_word, of_word + words.shape[1])
        items = jnp.take_along_axis(items, of_word[..., None], axis=1, mode="clip")
        sentence = jnp.tanh(GPO(name="word_gpo")(items.swapaxes(1, 2), 2 * lengths))
        named = nn.Dense(self.embedding_size, name="concept_linear")(word_concepts)
        latent = GPO(name="gpo")(jnp.stack([sentence, named], axis=2))
        return ConceptHead(self.num_concepts, name="concept_head")(latent)


def twin_of(model):
    """Returns the library's version of a `DualEncoder` of KAMCL's own towers."""
    image, text = model.image, model.text
    sizes = image.num_concepts, image.embedding_size
    return DualEncoder(
        ImageEncoder(*sizes, image.depth, image.width),
        TextEncoder(text.num_tokens, *sizes, text.word_width, text.hidden_width, text.dropout),
    )


def train_step(state, batch, model, optimizer, settings):
    """Takes KAMCL's step on f32 images: (state after it, metrics, gradients)."""
    goals = settings.objective
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    query_dropout, key_dropout = jax.random.split(jax.random.split(key)[1])

    def encode(params, batch_stats, dropout):
        inputs = params, [batch[name] for name in ("image", "tokens", "lengths", "word_concepts")]
        if settings.dtype is not None:
            inputs = optax.tree.cast(inputs, settings.dtype)
            inputs[1][1:3] = batch["tokens"], batch["lengths"]
        (image, text), updated = model.apply(
            {"params": inputs[0], "batch_stats": batch_stats},
            *inputs[1],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        unit = [x / (jnp.linalg.norm(x, axis=1, keepdims=True) + 1e-8) for x in (image[0], text[0])]
        return (*unit, image[1], text[1]), updated["batch_stats"]

    key_params = optax.incremental_update(state.params, state.key_params, 1 - settings.momentum)
    keys, key_batch_stats = encode(key_params, state.key_batch_stats, key_dropout)
    weight = schedule.alignment_weight(
        state.step, goals.steps_per_epoch, goals.alignment_from_epoch, goals.alignment_weight
    )

    def loss_of(params):
        (image, text, *concepts), batch_stats = encode(params, state.batch_stats, query_dropout)

        def contrastive(queries, keys, queue):
            match = (queries * keys).sum(1, keepdims=True)
            logits = jnp.concatenate([match, queries @ queue.keys.T], axis=1) / goals.temperature
            first = jnp.zeros(len(logits), jnp.int32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, first).mean()

        def binary_cross_entropy(found, labels):
            return -(labels * jnp.log(found) + (1 - labels) * jnp.log(1 - found)).mean()

        cosine = image @ text.T
        match, others = jnp.diagonal(cosine), 1 - jnp.eye(len(cosine))
        by_caption = nn.relu(goals.margin + cosine - match[:, None]) * others
        by_image = nn.relu(goals.margin + cosine - match) * others
        terms = {
            "triplet": by_caption.max(1).sum() + by_image.max(0).sum(),
            "contrastive": contrastive(image, keys[1], state.text_queue)
            + contrastive(text, keys[0], state.image_queue),
            "alignment": sum(binary_cross_entropy(x, batch["image_concepts"]) for x in concepts),
        }
        weights = goals.triplet_weight, goals.contrastive_weight, weight
        loss = sum(map(jnp.multiply, weights, terms.values()))
        return loss, ({**terms, "loss": loss}, batch_stats)

    gradients, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)

    def push(queue, keys):
        oldest = queue.pointer
        written = jax.lax.dynamic_update_slice(queue.keys, keys, (oldest, jnp.zeros_like(oldest)))
        return queue.replace(keys=written, pointer=(oldest + len(keys)) % len(queue.keys))

    after = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        key_params=key_params,
        key_batch_stats=key_batch_stats,
        opt_state=opt_state,
        image_queue=push(state.image_queue, keys[0]),
        text_queue=push(state.text_queue, keys[1]),
    )
    return after, metrics, gradients


def make_step(model, optimizer, settings):
    """Returns the jitted `train_step` of the library's version of a model."""
    step = partial(train_step, model=twin_of(model), optimizer=optimizer, settings=settings)
    return jax.jit(step)
