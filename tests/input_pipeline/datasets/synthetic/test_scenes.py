"""The drawn data set: pure, varied, truthful, and full of twins."""

import collections
import dataclasses
import re

import numpy as np
import pytest

from input_pipeline.datasets.synthetic import captions, kinds, scenes
from input_pipeline.datasets.synthetic.attributes import MANY, PALETTE
from input_pipeline.datasets.synthetic.registry import REGISTRY
from input_pipeline.datasets.synthetic.scenes import KINDS, attributes, draw, draw_kind, file_name
from input_pipeline.datasets.synthetic.surroundings import NEIGHBOURS

DIRECTIONS = {
    *("left", "right", "top", "bottom", "upper", "lower", "above", "below", "under", "corner"),
    *("north", "south", "east", "west", "northern", "southern", "eastern", "western"),
}
FIELDS = ("kind", "count", "colour", "neighbour")


def facts_and_captions(seed, count):
    """Facts and captions of the first scenes, without the time that the pictures take."""
    for index in range(count):
        facts = attributes(seed, index)
        generator = scenes._generator(seed, index, scenes._CAPTIONS)
        yield facts, captions.compose(facts, generator)


def test_a_scene_depends_on_nothing_but_its_arguments():
    forwards = [draw(3, index, 48) for index in range(12)]
    backwards = [draw(3, index, 48) for index in reversed(range(12))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        assert first.kind == second.kind
        assert first.captions == second.captions
        np.testing.assert_array_equal(first.image, second.image)


def test_the_global_random_state_is_neither_read_nor_changed():
    np.random.seed(0)  # noqa: NPY002
    first = draw(3, 5, 48).image
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(first, draw(3, 5, 48).image)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_seeds_and_indices_give_different_pictures():
    pictures = {draw(seed, index, 32).image.tobytes() for seed in range(4) for index in range(8)}
    assert len(pictures) == 32


@pytest.mark.parametrize("size", [32, 64, 224, 512])
def test_images_have_the_size_asked_for(size):
    image = draw(0, 1, size).image
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10


@pytest.mark.parametrize("kind", KINDS)
def test_another_size_is_the_same_scene(kind):
    large = draw_kind(kind, 0, 2, 128).astype(np.float64)
    small = draw_kind(kind, 0, 2, 32).astype(np.float64)
    shrunk = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("seed", "index", "size"), [(-1, 0, 64), (0, -1, 64), (0, 0, 31), (0, 0, 513)]
)
def test_arguments_out_of_range_are_refused(seed, index, size):
    with pytest.raises(ValueError, match="must be"):
        draw(seed, index, size)
    with pytest.raises(ValueError, match="must be"):
        draw_kind("airport", seed, index, size)


def test_kinds_occur_about_equally_often():
    counts = collections.Counter(attributes(0, index).kind for index in range(40 * len(KINDS)))
    assert len(KINDS) >= 16
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 28
    assert max(counts.values()) <= 52


def test_captions_are_five_different_plain_sentences():
    for _, texts in facts_and_captions(0, 400):
        assert len(set(texts)) == 5
        for text in texts:
            assert re.fullmatch(r"[a-z ]+ \.( [a-z ]+ \.)?", text), text
            assert "  " not in text
            assert 5 <= len(text.split()) <= 26, text
            assert not DIRECTIONS & set(text.split()), text


def test_key_words_are_said_at_least_twice():
    for facts, texts in facts_and_captions(1, 400):
        said = collections.Counter(word for text in texts for word in text.split())
        assert said[facts.colour] >= 2, texts
        assert said[facts.neighbour.split()[0]] >= 2, texts
        if 0 < facts.count < MANY:
            assert said[captions.NUMBERS[facts.count]] >= 2, texts


def test_no_caption_tells_another_count():
    """Every number word is the count of what was drawn; neighbours are never counted."""
    for facts, texts in facts_and_captions(2, 400):
        told = {word for text in texts for word in text.split()} & set(captions.NUMBERS)
        # "one side of the mountain" counts sides.
        told -= {"one"} if facts.kind == "mountain" else set()
        wanted = {captions.NUMBERS[facts.count]} if 0 < facts.count < MANY else set()
        assert told == wanted, texts


def test_the_vocabulary_is_of_a_useful_size():
    words = {
        word for _, texts in facts_and_captions(0, 1000) for text in texts for word in text.split()
    }
    assert 150 <= len(words) <= 260


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_objects_are_drawn_as_told(kind):
    for count in REGISTRY[kind].choices.counts:
        facts = dataclasses.replace(attributes(0, 0), kind=kind, count=count)
        facts = dataclasses.replace(
            facts,
            colour=REGISTRY[kind].choices.colours[0],
            neighbour=REGISTRY[kind].choices.neighbours[0],
        )
        _, drawn = kinds.paint(facts, np.random.default_rng(count), 32)
        assert drawn == count


def count_patches(mask):
    """Number of 4-connected patches of more than a few pixels in a bool[rows, columns] mask."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    patches = 0
    while left:
        frontier, area = [left.pop()], 0
        while frontier:
            row, column = frontier.pop()
            area += 1
            for place in (
                (row + 1, column),
                (row - 1, column),
                (row, column + 1),
                (row, column - 1),
            ):
                if place in left:
                    left.remove(place)
                    frontier.append(place)
        patches += area > 12
    return patches


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9])
def test_blue_tanks_can_be_counted_in_the_pixels(count):
    facts = dataclasses.replace(
        attributes(0, 0), kind="storage_tanks", count=count, colour="blue", neighbour="meadow"
    )
    for seed in range(3):
        image, _ = kinds.paint(facts, np.random.default_rng(seed), 128)
        red, _, blue = np.moveaxis(image.astype(int), -1, 0)
        assert count_patches(blue - red > 60) == count


@pytest.mark.parametrize("kind", KINDS)
def test_the_colour_told_is_in_the_picture(kind):
    """Each colour's picture has more of that colour than the other colours' pictures have."""
    choices = REGISTRY[kind].choices
    palette = np.array([PALETTE[colour] for colour in choices.colours], float)
    closeness = []
    for colour in choices.colours:
        facts = dataclasses.replace(
            attributes(0, 0),
            kind=kind,
            count=choices.counts[-1],
            colour=colour,
            neighbour=choices.neighbours[0],
        )
        image, _ = kinds.paint(facts, np.random.default_rng(7), 64)
        distance = np.linalg.norm(image[:, :, None].astype(float) - palette, axis=-1)
        closeness.append(np.exp(-((distance / 45) ** 2)).mean((0, 1)))
    np.testing.assert_array_equal(np.argmax(closeness, 0), np.arange(len(choices.colours)))


@pytest.mark.parametrize("neighbour", sorted(NEIGHBOURS))
def test_the_neighbour_told_is_in_the_picture(neighbour):
    """With nothing else changed, each neighbour leaves a picture of its own."""
    facts = dataclasses.replace(
        attributes(0, 0), kind="desert", count=0, colour="yellow", neighbour=neighbour
    )
    image = kinds.paint(facts, np.random.default_rng(1), 64)[0].astype(int)
    for other in sorted(set(NEIGHBOURS) - {neighbour}):
        changed = dataclasses.replace(facts, neighbour=other)
        against = kinds.paint(changed, np.random.default_rng(1), 64)[0].astype(int)
        assert (np.abs(image - against).max(-1) > 25).mean() > 0.04


def test_many_scenes_are_twins_that_differ_in_one_fact():
    changed = collections.Counter()
    for pair in range(200):
        first, second = attributes(0, 2 * pair), attributes(0, 2 * pair + 1)
        different = [name for name in FIELDS if getattr(first, name) != getattr(second, name)]
        if len(different) == 1:
            changed[different[0]] += 1
    assert 70 <= sum(changed.values()) <= 130
    assert set(changed) == {"count", "colour", "neighbour"}
    assert min(changed.values()) >= 10


def test_twins_are_drawn_anew():
    pair = next(
        pair
        for pair in range(50)
        if sum(
            getattr(attributes(0, 2 * pair), name) == getattr(attributes(0, 2 * pair + 1), name)
            for name in FIELDS
        )
        == 3
    )
    first, second = draw(0, 2 * pair, 64), draw(0, 2 * pair + 1, 64)
    assert np.abs(first.image.astype(int) - second.image).mean() > 5
    assert first.captions != second.captions


def test_the_class_can_be_read_off_a_file_name():
    assert file_name("airport", 17) == "airport_17.png"
    plain = [file_name(kind, 3).split("_")[0] for kind in KINDS]
    assert len(set(plain)) == len(KINDS)
    for kind, name in zip(KINDS, plain, strict=True):
        # A kind and its name in a file name lead to pictures of the same kind.
        assert scenes._BY_PLAIN_NAME[name] == kind


def test_any_class_name_can_be_illustrated():
    for name in ("storagetanks", "port", "Bare Land", "church", "", "中心"):
        image = draw_kind(name, 0, 4, 40)
        assert image.shape == (40, 40, 3)
        np.testing.assert_array_equal(image, draw_kind(name, 0, 4, 40))
    assert (draw_kind("church", 0, 4, 40) != draw_kind("church", 0, 5, 40)).any()


def test_kinds_look_different_from_one_another():
    """The nearest class mean in simple features names the kind far more often than chance."""

    def features(image):
        pixels = image.reshape(-1, 3) // 64
        codes = pixels[:, 0] * 16 + pixels[:, 1] * 4 + pixels[:, 2]
        histogram = np.sqrt(np.bincount(codes, minlength=64) / len(pixels))
        grey = image.mean(-1)
        edges = [np.abs(np.diff(grey, axis=axis)).mean() / 60 for axis in (0, 1)]
        # Mean colour by distance from the centre, which rotation leaves as it is.
        side = len(image)
        distance = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)) / side
        rings = [
            image[(distance >= low) & (distance < low + 0.125)].mean(0) / 255
            for low in (0, 0.125, 0.25, 0.375)
        ]
        return np.concatenate([histogram, edges, *rings])

    seen = [draw(0, index, 48) for index in range(300)]
    vectors = np.stack([features(scene.image) for scene in seen])
    labels = np.array([KINDS.index(scene.kind) for scene in seen])
    centroids = np.stack(
        [vectors[:150][labels[:150] == label].mean(0) for label in range(len(KINDS))]
    )
    distance = np.linalg.norm(vectors[150:, None] - centroids, axis=-1)
    accuracy = (distance.argmin(1) == labels[150:]).mean()
    assert accuracy > 5 / len(KINDS)
