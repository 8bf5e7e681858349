import dataclasses
import itertools
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from kamcl_jax.parallel import mesh
from kamcl_jax.step import augmentation
from kamcl_jax.step.augmentation import SAYS_DIRECTION, Symmetries
from kamcl_jax.step.train_step import augment

PHOTO = np.random.default_rng(0).integers(1, 256, (40, 40, 3)).astype(np.uint8)


random_crops = jax.jit(augmentation.random_rotation_and_crop, static_argnums=(2, 3))


def rotated_by_pil(photo, degrees):
    return np.asarray(Image.fromarray(photo).rotate(degrees, Image.Resampling.NEAREST))


@pytest.mark.parametrize(
    ("side", "max_degrees"), [(1, 90.0), (2, 360.0), (31, 90.0), (64, 360.0), (278, 90.0)]
)
def test_rotations_give_every_pixel_of_pil(side, max_degrees):
    generator = np.random.default_rng(side)
    photo = generator.integers(1, 256, (side, side, 3), np.uint8)
    steps = np.append(generator.choice(augmentation.NUM_ANGLES, 78, replace=False), [0, 2**12])
    got = jax.jit(augmentation.rotate_and_crop, static_argnums=3)(
        np.repeat(photo[None], len(steps), axis=0),
        augmentation.rotations(max_degrees, side)[steps],
        np.zeros((len(steps), 2), np.int32),
        side,
    )
    for step, image in zip(steps.tolist(), np.asarray(got), strict=True):
        expected = rotated_by_pil(photo, max_degrees * step / augmentation.NUM_ANGLES)
        np.testing.assert_array_equal(image, expected, err_msg=f"step {step}")


def rotate(step, corner, size):
    chosen = augmentation.rotations(90.0, 40)[[step]]
    return augmentation.rotate_and_crop(PHOTO[None], chosen, np.array([corner]), size)[0]


@pytest.mark.parametrize("step", [0, 2367, 8192, 14_000])
def test_a_crop_is_cut_out_of_the_rotated_image(step):
    row, column, size = 3, 5, 31
    expected = rotated_by_pil(PHOTO, 90 * step / augmentation.NUM_ANGLES)
    np.testing.assert_array_equal(
        rotate(step, (row, column), size), expected[row : row + size, column : column + size]
    )


def test_outside_is_black():
    got = rotate(augmentation.NUM_ANGLES // 2, (0, 0), 40)
    assert not np.any(got[0, 0])
    assert np.all(np.any(got[15:25, 15:25], axis=-1))


def test_random_rotations_are_pils_and_from_all_over_the_range():
    photo = PHOTO[:24, :24]
    steps = range(augmentation.NUM_ANGLES)
    all_degrees = [30.0 * step / augmentation.NUM_ANGLES for step in steps]
    degrees_of = {rotated_by_pil(photo, degrees).tobytes(): degrees for degrees in all_degrees}
    got = random_crops(jax.random.key(0), np.repeat(photo[None], 64, axis=0), 24, 30.0)
    drawn = np.array([degrees_of[image.tobytes()] for image in np.asarray(got)])
    assert len(set(drawn)) > 50
    assert np.histogram(drawn, 4, (0, 30))[0].min() > 5


def test_random_crops_differ_between_images_and_keys_but_not_between_calls():
    images = np.repeat(PHOTO[None], 3, axis=0)
    first = random_crops(jax.random.key(0), images, 32, 90.0)
    again = random_crops(jax.random.key(0), images, 32, 90.0)
    other = random_crops(jax.random.key(1), images, 32, 90.0)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="crop of 41 pixels does not fit into images of 40"):
        augmentation.random_rotation_and_crop(jax.random.key(0), PHOTO[None], 41, 90.0)


BITS = np.array(list(itertools.product([False, True], repeat=3)))


def symmetric(photo, transposed, rows_reversed, columns_reversed):
    photo = photo.swapaxes(0, 1) if transposed else photo
    photo = photo[::-1] if rows_reversed else photo
    return photo[:, ::-1] if columns_reversed else photo


def test_every_symmetry_is_that_of_the_crop_of_the_rotated_image():
    chosen = augmentation.rotations(90.0, 40)[np.full(8, 2367)]
    corners = np.tile([[3, 5]], (8, 1))
    crop = jax.jit(augmentation.rotate_and_crop, static_argnums=3)
    images = np.repeat(PHOTO[None], 8, axis=0)
    plain = np.asarray(crop(images, chosen, corners, 31))
    got = np.asarray(crop(images, chosen, corners, 31, Symmetries(*BITS.T)))
    for image, bits in zip(got, BITS, strict=True):
        np.testing.assert_array_equal(image, symmetric(plain[0], *bits), err_msg=str(bits))
    turned = [np.rot90(plain[0], turns) for turns in range(4)]
    all_eight = [*turned, *(image[:, ::-1] for image in turned)]
    assert {image.tobytes() for image in got} == {image.tobytes() for image in all_eight}


TURNED = [np.rot90(PHOTO, turns) for turns in range(4)]
FLIPPED = [PHOTO, PHOTO[::-1], PHOTO[:, ::-1], PHOTO[::-1, ::-1]]


@pytest.mark.parametrize(
    ("flips", "quarter_turns", "expected"),
    [
        (True, False, FLIPPED),
        (False, True, TURNED),
        (True, True, [*TURNED, *(image[:, ::-1] for image in TURNED)]),
    ],
)
def test_the_symmetries_of_a_kind_are_equally_likely_where_no_caption_says_a_direction(
    tiny, flips, quarter_turns, expected
):
    count = 400
    settings = dataclasses.replace(
        tiny.settings, image_size=40, max_rotation=0.0, flips=flips, quarter_turns=quarter_turns
    )
    stays = np.arange(count) % 5 == 0
    batch = {"image": np.repeat(PHOTO[None], count, axis=0), SAYS_DIRECTION: stays}
    got = np.asarray(jax.jit(augment, static_argnums=2)(jax.random.key(0), batch, settings))
    kinds = [np.asarray(augmentation.normalise(image)) for image in expected]
    is_kind = np.array([(np.abs(got - kind) < 1e-5).all((1, 2, 3)) for kind in kinds])
    assert (is_kind.sum(0) == 1).all()
    assert is_kind[0, stays].all()
    drawn = is_kind[:, ~stays].mean(1)
    np.testing.assert_allclose(drawn, 1 / len(expected), atol=0.08)


def test_neither_flips_nor_turns_change_which_rotations_and_crops_are_drawn(tiny):
    batch = {**tiny.batch(), SAYS_DIRECTION: np.arange(8) < 4}
    turning = dataclasses.replace(tiny.settings, flips=True, quarter_turns=True)
    key, one = jax.random.key(3), jax.jit(augment, static_argnums=2)
    plain, turned = (np.asarray(one(key, batch, settings)) for settings in (tiny.settings, turning))
    np.testing.assert_array_equal(turned[:4], plain[:4])
    alike = [
        sum(np.array_equal(image, symmetric(other, *bits)) for bits in BITS)
        for image, other in zip(turned, plain, strict=True)
    ]
    assert alike == [1] * 8
    assert not np.array_equal(turned[4:], plain[4:])


def test_eight_devices_augment_as_one_does(tiny, one_device):
    settings = dataclasses.replace(tiny.settings, flips=True, quarter_turns=True)
    batch, images = {**tiny.batch(), SAYS_DIRECTION: np.arange(8) == 1}, []
    for layout in (one_device, mesh.replicated(mesh.make_mesh())):
        one = jax.jit(partial(augment, settings=settings), out_shardings=layout.batch)
        images.append(np.asarray(one(jax.random.key(3), mesh.put_batch(layout, batch))))
    np.testing.assert_array_equal(*images)


def test_normalise_uses_imagenet_statistics():
    expected = (PHOTO / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(augmentation.normalise(PHOTO), expected, rtol=1e-5, atol=1e-6)
