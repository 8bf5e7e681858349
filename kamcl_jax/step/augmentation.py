"""Image preparation on the device, inside the step: rotate, crop, mirror, normalise."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


class Normalisation(NamedTuple):
    """What is made of pixels in [0, 1] before an encoder sees them.

    Attributes:
      mean: What is taken away from red, green and blue.
      std: What they are divided by then.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

NUM_ANGLES = 2**14
"""How many angles a random rotation chooses from. Within 90 degrees they lie so close that from one
to the next no pixel of an image of 278 moves by more than a fiftieth of a pixel."""

SAYS_DIRECTION = "says_direction"
"""The entry of a batch, bool[B], that says which captions tell left from right or north from south.
It is there where images are mirrored or turned."""


class Symmetries(struct.PyTreeNode):
    """For each of B square images one of the eight symmetries of the square.

    An image is transposed first, if it is, and its rows and columns are reversed then.

    Attributes:
      transposed: bool[B].
      rows_reversed: bool[B], whether the image is mirrored up and down.
      columns_reversed: bool[B], whether the image is mirrored left and right.
    """

    transposed: jax.Array
    rows_reversed: jax.Array
    columns_reversed: jax.Array


def normalise(images: jax.Array, by: Normalisation = IMAGENET) -> jax.Array:
    """Maps uint8[..., 3] to f32[..., 3] with a mean and a standard deviation of each colour."""
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.array(by.mean)) / jnp.array(by.std)


@functools.cache
def rotations(max_degrees: float, side: int) -> np.ndarray:
    """Returns `NUM_ANGLES` rotations, in equal steps from 0 to below `max_degrees`.

    They are what PIL derives from an angle, in integers, so that any device finds the pixels that
    PIL finds. A device's own sine and cosine, in float32, are not exact enough for that.

    Args:
      max_degrees: The largest angle, counter-clockwise.
      side: R, the side of the images that are rotated, in pixels; at most 16,000.

    Returns:
      i32[NUM_ANGLES, 4], each row (cosine, sine, row, column) in units of 2**-16. `row` and
      `column` say where the centre of the rotated image's first pixel lies in the image.
    """
    steps = [max_degrees * step / NUM_ANGLES for step in range(NUM_ANGLES)]
    each = np.array([_in_fixed_point(degrees, side / 2) for degrees in steps], np.int32)
    each.flags.writeable = False  # it is kept for the next caller
    return each


def _in_fixed_point(degrees: float, centre: float) -> list[int]:
    """Rounds what `PIL.Image.rotate` makes of an angle as its C code does, in the same order."""
    cosine = round(math.cos(-math.radians(degrees)), 15)
    sine = -round(math.sin(-math.radians(degrees)), 15)
    column = cosine * -centre - sine * -centre + centre + cosine * 0.5 - sine * 0.5
    row = sine * -centre + cosine * -centre + centre + sine * 0.5 + cosine * 0.5
    return [math.floor(value * 2**16 + 0.5) for value in (cosine, sine, row, column)]


def rotate_and_crop(
    images: jax.Array,
    chosen: jax.Array,
    corners: jax.Array,
    size: int,
    symmetries: Symmetries | None = None,
) -> jax.Array:
    """Rotates images about their centre, counter-clockwise, and cuts out a square, in one gather.

    It takes the nearest neighbour and fills with zeros, pixel for pixel as `PIL.Image.rotate` and
    `crop` do. The same gather mirrors and turns the squares.

    Args:
      images: uint8[B, R, R, C].
      chosen: i32[B, 4], rows of `rotations`.
      corners: i32[B, 2], the (row, column) of the crop's first pixel in the rotated image.
      size: S, the side of the crop.
      symmetries: What is made of the crops; None leaves them as they are.

    Returns:
      uint8[B, S, S, C].
    """

    def one(image, rotation, corner, symmetry):
        cosine, sine, first_row, first_column = rotation
        rows, columns = _places(size, symmetry)
        rows, columns = corner[0] + rows, corner[1] + columns
        # In floating point a pixel on the border of two would fall on either, as XLA happens to
        # round; integers are the same on all devices.
        from_column = (first_column + cosine * columns - sine * rows) >> 16
        from_row = (first_row + sine * columns + cosine * rows) >> 16
        return image.at[from_row, from_column].get(
            mode="fill", fill_value=0, wrap_negative_indices=False
        )

    return jax.vmap(one)(images, chosen, corners, symmetries)


def _places(size: int, symmetry: Symmetries | None) -> tuple[jax.Array, jax.Array]:
    """Returns where in a square each pixel of what a symmetry makes of it lies: rows and columns.

    They are i32 that broadcast to [size, size].
    """
    along = jnp.arange(size, dtype=jnp.int32)
    rows, columns = along[:, None], along[None, :]
    if symmetry is None:
        return rows, columns
    rows = jnp.where(symmetry.rows_reversed, size - 1 - rows, rows)
    columns = jnp.where(symmetry.columns_reversed, size - 1 - columns, columns)
    return (
        jnp.where(symmetry.transposed, columns, rows),
        jnp.where(symmetry.transposed, rows, columns),
    )


def random_symmetries(
    key: jax.Array, stays: jax.Array, *, flips: bool, quarter_turns: bool
) -> Symmetries:
    """Draws a symmetry for each of B images, all of a kind equally likely.

    Args:
      key: A PRNG key.
      stays: bool[B], which images are left as they are.
      flips: Whether images are mirrored left and right, and up and down, each half of the time.
      quarter_turns: Whether they are turned by a multiple of 90 degrees. All eight symmetries of
        the square come about with both, four with one of them.
    """
    coins = jax.random.bernoulli(key, shape=(3, len(stays))) & ~stays
    transposed, rows_reversed, columns_reversed = coins
    if not quarter_turns:
        transposed = jnp.zeros_like(stays)
    elif not flips:
        # A turn mirrors nothing: it reverses just one of rows and columns if it transposes, and
        # both or none otherwise.
        columns_reversed = rows_reversed ^ transposed
    return Symmetries(transposed, rows_reversed, columns_reversed)


def random_rotation_and_crop(
    key: jax.Array,
    images: jax.Array,
    size: int,
    max_degrees: float,
    symmetries: Symmetries | None = None,
) -> jax.Array:
    """Draws one of `NUM_ANGLES` rotations and one crop for each image, all equally likely.

    Args:
      key: A PRNG key.
      images: uint8[B, R, R, C], with R >= size.
      size: The side of the crop, in pixels.
      max_degrees: The rotations stay below this angle; 90 in the paper.
      symmetries: See `rotate_and_crop`.

    Returns:
      uint8[B, size, size, C].
    """
    batch, side = images.shape[:2]
    if side < size:
        raise ValueError(f"a crop of {size} pixels does not fit into images of {side}")
    angle_key, corner_key = jax.random.split(key)
    angles = jax.random.randint(angle_key, (batch,), 0, NUM_ANGLES)
    corners = jax.random.randint(corner_key, (batch, 2), 0, side - size + 1)
    chosen = jnp.asarray(rotations(max_degrees, side))[angles]
    return rotate_and_crop(images, chosen, corners, size, symmetries)
