"""The drawn scenes: pure, varied, truthful, and full of twins."""

import collections
import hashlib
import re

import numpy as np
import pytest
from scipy import ndimage

from input_pipeline.datasets.synthetic.captions import NUMBERS
from input_pipeline.datasets.synthetic.kinds import KINDS, PALETTE, Facts
from input_pipeline.datasets.synthetic.scenes import (
    captions_of_scene,
    draw,
    facts_of_scene,
    paint,
)
from input_pipeline.datasets.synthetic.surroundings import NEIGHBOURS

DIRECTIONS = {
    *("left", "right", "top", "bottom", "upper", "lower", "above", "below", "under", "corner"),
    *("north", "south", "east", "west", "northern", "southern", "eastern", "western"),
}
ONE_SIDE = ("one", "mountain")


def paint_with(seed, size, **facts):
    return paint(Facts(**facts), np.random.default_rng(seed), size)


def test_a_scene_depends_on_nothing_but_its_arguments():
    forwards = [draw(3, index, 48) for index in range(12)]
    backwards = [draw(3, index, 48) for index in reversed(range(12))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        assert (first.kind, first.captions) == (second.kind, second.captions)
        np.testing.assert_array_equal(first.image, second.image)
    assert len({scene.image.tobytes() for scene in (*forwards, draw(4, 0, 48))}) == 13


def test_captions_of_a_seed_stay_what_they_were():
    digest = hashlib.sha256(repr([captions_of_scene(0, index) for index in range(400)]).encode())
    assert digest.hexdigest()[:16] == "e2413327dd010dec"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_another_size_is_the_same_scene(kind):
    facts = {"kind": kind, "count": KINDS[kind].counts[0], "colour": "red", "neighbour": "road"}
    large, small = (paint_with(1, size, **facts).astype(float) for size in (128, 32))
    shrunk = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.9


def test_kinds_occur_equally_often():
    counts = collections.Counter(facts_of_scene(0, 2 * pair).kind for pair in range(3 * len(KINDS)))
    assert counts == dict.fromkeys(KINDS, 3)


def test_captions_are_five_plain_sentences_that_say_each_fact_twice_and_no_other_count():
    vocabulary = set()
    for index in range(600):
        facts, texts = facts_of_scene(0, index), captions_of_scene(0, index)
        assert len(set(texts)) == 5
        for text in texts:
            assert re.fullmatch(r"([a-z]+ )+\.( ([a-z]+ )+\.)?", text), text
            assert 5 <= len(text.split()) <= 26, text
        said = collections.Counter(word for text in texts for word in text.split())
        assert not DIRECTIONS & set(said), texts
        assert said[facts.colour] >= 2, texts
        assert said[facts.neighbour.split()[0]] >= 2, texts
        # "one side of the mountain" counts sides.
        numbers = {word for word in NUMBERS if said[word] and (word, facts.kind) != ONE_SIDE}
        told = {NUMBERS[facts.count]} if 0 < facts.count < len(NUMBERS) else set()
        assert numbers == told, texts
        assert all(said[number] >= 2 for number in told), texts
        vocabulary |= set(said)
    assert 150 <= len(vocabulary) <= 260


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9])
def test_blue_tanks_can_be_counted_in_the_pixels(count):
    facts = {"kind": "storage_tanks", "count": count, "colour": "blue", "neighbour": "meadow"}
    for seed in range(3):
        red, _, blue = np.moveaxis(paint_with(seed, 128, **facts).astype(int), -1, 0)
        patches, _ = ndimage.label(blue - red > 60)
        areas = np.bincount(patches.ravel())[1:]
        assert np.count_nonzero(areas > 12) == count


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_colour_told_is_in_the_picture(kind):
    """Each colour's picture has more of that colour than the other colours' pictures have."""
    choices = KINDS[kind]
    palette = np.array([PALETTE[colour] for colour in choices.colours], float)
    facts = {"kind": kind, "count": choices.counts[-1], "neighbour": choices.neighbours[0]}
    closeness = []
    for colour in choices.colours:
        image = paint_with(7, 64, **facts, colour=colour)
        distance = np.linalg.norm(image[:, :, None].astype(float) - palette, axis=-1)
        closeness.append(np.exp(-((distance / 45) ** 2)).mean((0, 1)))
    np.testing.assert_array_equal(np.argmax(closeness, 0), np.arange(len(choices.colours)))


def test_the_neighbour_told_is_in_the_picture():
    """With nothing else changed, each neighbour leaves a picture of its own."""
    facts = {"kind": "desert", "count": 0, "colour": "yellow"}
    images = [paint_with(1, 64, **facts, neighbour=name).astype(int) for name in NEIGHBOURS]
    for row, image in enumerate(images):
        for other in images[:row]:
            assert (np.abs(image - other).max(-1) > 25).mean() > 0.04


def test_many_scenes_are_twins_that_differ_in_one_fact_and_are_drawn_anew():
    changed = collections.Counter()
    for pair in range(200):
        first, second = (vars(facts_of_scene(0, 2 * pair + member)) for member in (0, 1))
        different = [name for name in first if first[name] != second[name]]
        if len(different) == 1:
            changed[different[0]] += 1
            twins = pair
    assert 70 <= sum(changed.values()) <= 130
    assert set(changed) == {"count", "colour", "neighbour"}
    assert min(changed.values()) >= 10
    first, second = draw(0, 2 * twins, 64), draw(0, 2 * twins + 1, 64)
    assert np.abs(first.image.astype(int) - second.image).mean() > 5
    assert first.captions != second.captions
