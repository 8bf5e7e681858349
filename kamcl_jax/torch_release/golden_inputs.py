"""Weights and batches that any framework can draw again from a seed.

A tensor of the state_dict depends on (seed, its name) alone, a batch on (seed, its number): each
has a generator of its own, PCG64 seeded with the seed and the CRC-32 of the name. The golden files
hold what the PyTorch original computes from exactly these.
"""

import zlib

import numpy as np

VOCABULARY_SIZE = 1225
"""The number of words; the embedding has one row more, the padding."""

NUM_CONCEPTS = 512
IMAGE_SIZE = 256
CAPTION_LENGTHS = (4, 14)
"""Words of the shortest and of the longest caption, where a golden file does not say otherwise."""

_UNIFORM = {"running_var": (0.5, 1.5), "running_mean": (-0.1, 0.1), "bias": (-0.1, 0.1)}
_BATCH_NORM_SCALE = (0.5, 1.0)
_EMBEDDING_GAIN = 10.0


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))


def draw_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draws one entry of the release's state_dict: f32[shape], i64[shape] for counts and pointers.

    Its name decides on the distribution, too: unit columns for queues, zeros for counts, uniform
    values for BatchNorms and biases, He-scaled normal ones for kernels.
    """
    generator, leaf = _generator(seed, name), name.rpartition(".")[2]
    if leaf == "num_batches_tracked" or leaf.startswith("queue_ptr"):
        return np.zeros(shape, np.int64)
    if leaf.startswith("queue_"):
        keys = generator.standard_normal(shape)
        return (keys / np.linalg.norm(keys, axis=0, keepdims=True)).astype(np.float32)
    kind = "bias" if "bias" in leaf else leaf
    if kind in _UNIFORM or len(shape) == 1:
        return generator.uniform(*_UNIFORM.get(kind, _BATCH_NORM_SCALE), shape).astype(np.float32)
    gain, fan_in = 2.0 if len(shape) == 4 else 1.0, int(np.prod(shape[1:]))
    kernel = generator.standard_normal(shape) * np.sqrt(gain / fan_in)
    if name.endswith("embedding.weight"):
        kernel *= _EMBEDDING_GAIN
        kernel[0] = 0.0
    return kernel.astype(np.float32)


def draw_batch(
    number: int,
    seed: int,
    batch_size: int,
    caption_lengths: tuple[int, int] = CAPTION_LENGTHS,
) -> dict[str, np.ndarray]:
    """Draws a training batch by its number, from 0.

    The captions have `caption_lengths` words, the shortest and the longest that may be drawn.

    Returns:
      image: f32[B, 256, 256, 3], as if normalised; tokens: i32[B, T], longest caption first, padded
      with 0 to the longest; lengths: i32[B]; word_concepts: f32[B, 512], 0 or 1; image_concepts:
      f32[B, 512] in [0, 1].
    """
    generator = _generator(seed, f"batch{number}")
    shortest, longest = caption_lengths
    lengths = np.sort(generator.integers(shortest, longest + 1, batch_size))[::-1]
    tokens = np.zeros((batch_size, lengths[0]), np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = generator.integers(1, VOCABULARY_SIZE + 1, length)
    word_concepts = generator.random((batch_size, NUM_CONCEPTS)) < 0.02
    strength = generator.uniform(0.2, 1.0, word_concepts.shape).astype(np.float32)
    image = generator.standard_normal((batch_size, IMAGE_SIZE, IMAGE_SIZE, 3))
    return {
        "image": image.astype(np.float32),
        "tokens": tokens,
        "lengths": lengths.astype(np.int32),
        "word_concepts": word_concepts.astype(np.float32),
        "image_concepts": word_concepts.astype(np.float32) * strength,
    }
