"""Image preparation on the device, inside the step: rotate, crop, normalise."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

NUM_ANGLES = 2**14
"""How many angles a random rotation chooses from. Within 90 degrees they lie so close that from one
to the next no pixel of an image of 278 moves by more than a fiftieth of a pixel."""


def normalise(images: jax.Array) -> jax.Array:
    """Maps uint8[..., 3] to f32[..., 3] with ImageNet's mean and standard deviation."""
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)


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
    images: jax.Array, chosen: jax.Array, corners: jax.Array, size: int
) -> jax.Array:
    """Rotates images about their centre, counter-clockwise, and cuts out a square, in one gather.

    It takes the nearest neighbour and fills with zeros, pixel for pixel as `PIL.Image.rotate` and
    `crop` do.

    Args:
      images: uint8[B, R, R, C].
      chosen: i32[B, 4], rows of `rotations`.
      corners: i32[B, 2], the (row, column) of the crop's first pixel in the rotated image.
      size: S, the side of the crop.

    Returns:
      uint8[B, S, S, C].
    """

    def one(image, rotation, corner):
        cosine, sine, first_row, first_column = rotation
        rows = (corner[0] + jnp.arange(size, dtype=jnp.int32))[:, None]
        columns = (corner[1] + jnp.arange(size, dtype=jnp.int32))[None, :]
        # In floating point a pixel on the border of two would fall on either, as XLA happens to
        # round; integers are the same on all devices.
        from_column = (first_column + cosine * columns - sine * rows) >> 16
        from_row = (first_row + sine * columns + cosine * rows) >> 16
        return image.at[from_row, from_column].get(
            mode="fill", fill_value=0, wrap_negative_indices=False
        )

    return jax.vmap(one)(images, chosen, corners)


def random_rotation_and_crop(
    key: jax.Array, images: jax.Array, size: int, max_degrees: float
) -> jax.Array:
    """Draws one of `NUM_ANGLES` rotations and one crop for each image, all equally likely.

    Args:
      key: A PRNG key.
      images: uint8[B, R, R, C], with R >= size.
      size: The side of the crop, in pixels.
      max_degrees: The rotations stay below this angle; 90 in the paper.

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
    return rotate_and_crop(images, chosen, corners, size)
