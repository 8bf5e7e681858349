"""Image preparation on the device, inside the step: rotate, crop, normalise."""

import jax
import jax.numpy as jnp

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: jax.Array) -> jax.Array:
    """Maps uint8[..., 3] to f32[..., 3] with ImageNet's mean and standard deviation."""
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)


def rotate_and_crop(
    images: jax.Array, radians: jax.Array, corners: jax.Array, size: int
) -> jax.Array:
    """Rotates about the centre, counter-clockwise, and cuts out a square, as one gather.

    Nearest neighbour and zero fill, pixel for pixel what `PIL.Image.rotate` and `crop` give.

    Args:
      images: uint8[B, R, R, C].
      radians: f32[B], angles.
      corners: i32[B, 2], (row, column) of the crop's first pixel in the rotated image.
      size: S, side of the crop.

    Returns:
      uint8[B, S, S, C].
    """
    side = images.shape[1]
    centre = side / 2

    def one(image, angle, corner):
        rows = (corner[0] + jnp.arange(size) + 0.5 - centre)[:, None]
        columns = (corner[1] + jnp.arange(size) + 0.5 - centre)[None, :]
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        from_column = jnp.floor(cosine * columns - sine * rows + centre).astype(jnp.int32)
        from_row = jnp.floor(sine * columns + cosine * rows + centre).astype(jnp.int32)
        return image.at[from_row, from_column].get(
            mode="fill", fill_value=0, wrap_negative_indices=False
        )

    return jax.vmap(one)(images, radians, corners)


def random_rotation_and_crop(
    key: jax.Array, images: jax.Array, size: int, max_degrees: float
) -> jax.Array:
    """Draws one rotation from U(0, max_degrees) and one crop for each image.

    Args:
      key: PRNG key.
      images: uint8[B, R, R, C], R >= size.
      size: side of the crop in pixels.
      max_degrees: largest rotation; 90 in the paper.

    Returns:
      uint8[B, size, size, C].

    Raises:
      ValueError: the images are smaller than the crop.
    """
    batch, side = images.shape[:2]
    if side < size:
        raise ValueError(f"a crop of {size} pixels does not fit into images of {side}")
    angle_key, corner_key = jax.random.split(key)
    radians = jnp.deg2rad(jax.random.uniform(angle_key, (batch,), maxval=max_degrees))
    corners = jax.random.randint(corner_key, (batch, 2), 0, side - size + 1)
    return rotate_and_crop(images, radians, corners, size)
