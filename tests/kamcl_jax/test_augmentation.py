import jax
import numpy as np
import pytest
from PIL import Image

from kamcl_jax import augmentation

PHOTO = np.random.default_rng(0).integers(1, 256, (40, 40, 3)).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 13, 45, 77.5, 90])
def test_rotation_and_crop_give_the_pixels_of_pil(degrees):
    row, column, size = 3, 5, 31
    expected = Image.fromarray(PHOTO).rotate(degrees, Image.Resampling.NEAREST)
    expected = np.asarray(expected.crop((column, row, column + size, row + size)))
    got = augmentation.rotate_and_crop(
        PHOTO[None], np.deg2rad([degrees]).astype("f"), np.array([[row, column]]), size
    )[0]
    # PIL counts in 16.16 fixed point: single pixels on a border may fall on its other side.
    equal = (np.asarray(got) == expected).all(axis=-1).mean()
    assert equal > 0.995


def test_outside_is_black():
    got = augmentation.rotate_and_crop(
        PHOTO[None], np.deg2rad(np.array([45], "f")), np.array([[0, 0]]), 40
    )[0]
    assert not np.any(got[0, 0])
    assert np.all(np.any(got[15:25, 15:25], axis=-1))


def test_random_crops_differ_between_images_and_keys_but_not_between_calls():
    images = np.repeat(PHOTO[None], 3, axis=0)
    first = augmentation.random_rotation_and_crop(jax.random.key(0), images, 32, 90.0)
    again = augmentation.random_rotation_and_crop(jax.random.key(0), images, 32, 90.0)
    other = augmentation.random_rotation_and_crop(jax.random.key(1), images, 32, 90.0)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="crop of 41 pixels does not fit into images of 40"):
        augmentation.random_rotation_and_crop(jax.random.key(0), PHOTO[None], 41, 90.0)


def test_normalise_uses_imagenet_statistics():
    expected = (PHOTO / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(augmentation.normalise(PHOTO), expected, rtol=1e-5, atol=1e-6)
