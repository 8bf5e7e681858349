"""The project's own data set: aerial-like scenes drawn from a seed, with five captions each.

`draw(seed, index)` is a pure function, so a data set is no more than a seed and a range of
indices. Scenes come in pairs (2k, 2k+1); about half of the pairs are twins, whose facts are the
same but for one (how many, which colour or what lies beside), so that their captions differ in
just that word while everything else in the pictures is drawn anew. Telling twins apart is the
problem that the model is about.
"""

import dataclasses
import re
import zlib

import numpy as np

from input_pipeline.datasets.synthetic import captions, kinds
from input_pipeline.datasets.synthetic.attributes import Attributes
from input_pipeline.datasets.synthetic.registry import REGISTRY

KINDS: tuple[str, ...] = kinds.KINDS
"""Names of all scene kinds, sorted."""

TWIN_SHARE = 0.5
"""Probability that the scenes of a pair are twins."""

# Streams of random numbers, kept apart by the last word of their seed.
_ORDER, _FACTS, _PICTURE, _CAPTIONS, _ILLUSTRATION = range(5)

# Class names of real data sets whose pictures one of the kinds stands in for.
_ALIASES: dict[str, str] = {
    "bareland": "desert",
    "boat": "harbour",
    "commercial": "industrial",
    "harbor": "harbour",
    "mediumresidential": "dense_residential",
    "park": "pond",
    "parkinglot": "parking",
    "lake": "pond",
    "port": "harbour",
    "river": "bridge",
    "school": "playground",
    "storagetank": "storage_tanks",
    "tenniscourt": "tennis_courts",
    "baseballdiamond": "baseball_field",
}
_BY_PLAIN_NAME: dict[str, str] = {name.replace("_", ""): name for name in KINDS} | _ALIASES


MIN_SIZE, MAX_SIZE = 32, 512
"""Sides of images that can be drawn, in pixels."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """One drawn scene.

    Attributes:
        kind: its kind, one of `KINDS`.
        image: uint8[size, size, 3], RGB.
        captions: five differently worded, lower-case captions, each ending in " .".
    """

    kind: str
    image: np.ndarray
    captions: tuple[str, ...]


def draw(seed: int, index: int, size: int = 96) -> Scene:
    """Draw one scene of the data set of a seed.

    Args:
        seed: which data set, at least 0.
        index: which of its scenes, at least 0.
        size: side of the image in pixels, 32 to 512.

    Returns:
        the scene; the same arguments give the same bytes whatever was drawn before, and another
        size the same scene in another resolution.

    Raises:
        ValueError: an argument is out of range.
    """
    facts = attributes(seed, index)
    return Scene(
        kind=facts.kind,
        image=_picture(facts, [seed, index, _PICTURE], size),
        captions=captions.compose(facts, _generator(seed, index, _CAPTIONS)),
    )


def attributes(seed: int, index: int) -> Attributes:
    """The facts that scene `index` of a seed shows and its captions tell.

    Raises:
        ValueError: `seed` or `index` is negative.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be at least 0, not {seed} and {index}")
    pair, second = divmod(index, 2)
    generator = _generator(seed, pair, _FACTS)
    first_kind = _kind_of(seed, pair, 0)
    facts = REGISTRY[first_kind].choices.sample(first_kind, generator)
    if not second:
        return facts
    # The second scene replays the draws of the first, which makes it independent of its drawing.
    if generator.random() < TWIN_SHARE:
        return REGISTRY[first_kind].choices.change_one(facts, generator)
    second_kind = _kind_of(seed, pair, 1)
    return REGISTRY[second_kind].choices.sample(second_kind, generator)


def file_name(scene_kind: str, index: int) -> str:
    """A file name from which the kind can be read, such as "storagetanks_17.png".

    As in RSICD the class is what comes before the one underscore, so the kind's own underscores
    are dropped.
    """
    return f"{scene_kind.replace('_', '')}_{index}.png"


def draw_kind(kind: str, seed: int, index: int, size: int) -> np.ndarray:
    """Draw an image to stand for one of a real data set's class.

    Args:
        kind: a kind, a class name of a real data set ("storagetanks", "port") or any other
            word, for which a kind is chosen by a stable hash.
        seed: which set of drawings, at least 0.
        index: which of them, at least 0.
        size: side of the image in pixels, 32 to 512.

    Returns:
        uint8[size, size, 3], RGB.

    Raises:
        ValueError: an argument is out of range.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be at least 0, not {seed} and {index}")
    word = zlib.crc32(kind.encode())
    plain = re.sub(r"[^a-z]", "", kind.lower())
    name = _BY_PLAIN_NAME.get(plain) or KINDS[word % len(KINDS)]
    facts = REGISTRY[name].choices.sample(name, _generator(seed, index, word, _ILLUSTRATION))
    return _picture(facts, [seed, index, word, _PICTURE], size)


def _kind_of(seed: int, pair: int, member: int) -> str:
    """The kind of a pair's scene: kinds are dealt in shuffled rounds, so all occur equally."""
    turn, place = divmod(pair, len(KINDS))
    order = _generator(seed, turn, member, _ORDER).permutation(len(KINDS))
    return KINDS[int(order[place])]


def _picture(facts: Attributes, seeds: list[int], size: int) -> np.ndarray:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size must be from {MIN_SIZE} to {MAX_SIZE} pixels, not {size}")
    image, _ = kinds.paint(facts, _generator(*seeds), size)
    return image


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(seeds)))
