"""Scenes like those seen from the air, drawn from a seed, with five captions each.

`draw(seed, index)` is a pure function, so a data set is no more than a seed and a range of
indices. Scenes come in pairs (2k, 2k+1); about half of the pairs are twins, whose facts are the
same but for one (how many, which colour or what lies beside), so that their captions differ in
just that word while everything else in the pictures is drawn anew. Telling twins apart is the
problem that the model is about.
"""

import dataclasses

import numpy as np
from numpy.random import Generator

# The painters' modules are imported for what they enter into the table of kinds.
from input_pipeline.datasets.synthetic import built, drawing, land, leisure, transport  # noqa: F401
from input_pipeline.datasets.synthetic.captions import compose
from input_pipeline.datasets.synthetic.drawing import Canvas
from input_pipeline.datasets.synthetic.kinds import KINDS, PALETTE, Facts, Kind, pick
from input_pipeline.datasets.synthetic.surroundings import GROUNDS, NEIGHBOURS, surround_with_trees

# The last word of a seed keeps the streams of random numbers apart.
_ORDER, _FACTS, _PICTURE, _CAPTIONS = range(4)


@dataclasses.dataclass(frozen=True)
class Scene:
    """One drawn scene.

    Attributes:
      kind: A key of `KINDS`.
      image: u8[size, size, 3], RGB.
      captions: Five differently worded, lower-case captions, each ending in " .".
    """

    kind: str
    image: np.ndarray
    captions: tuple[str, ...]


def draw(seed: int, index: int, size: int = 96) -> Scene:
    """Draws one scene of the data set of a seed.

    The same arguments give the same bytes, whatever was drawn before. Another size, of 32 to 512
    pixels a side, shows the same scene in another resolution.
    """
    facts = facts_of_scene(seed, index)
    image = paint(facts, _generator(seed, index, _PICTURE), size)
    return Scene(facts.kind, image, captions_of_scene(seed, index))


def captions_of_scene(seed: int, index: int) -> tuple[str, ...]:
    """Returns the captions that `draw` gives the scene, without the time that its picture takes."""
    return compose(facts_of_scene(seed, index), _generator(seed, index, _CAPTIONS))


def facts_of_scene(seed: int, index: int) -> Facts:
    """Returns the facts that a scene shows and its captions tell."""
    pair, second = divmod(index, 2)
    generator = _generator(seed, pair, _FACTS)
    kind = _kind_of(seed, pair, 0)
    facts = kind.draw_facts(generator)
    if not second:
        return facts
    # The second scene replays the draws of the first, so it need not have been drawn.
    if generator.random() < 0.5:
        return kind.change_one(facts, generator)
    return _kind_of(seed, pair, 1).draw_facts(generator)


def paint(facts: Facts, generator: Generator, size: int) -> np.ndarray:
    """Draws the picture of a scene, u8[size, size, 3]; the generator decides all but the facts."""
    kind = KINDS[facts.kind]
    grounds = kind.grounds
    if facts.neighbour == "meadow":
        # A meadow beside grass would not be seen.
        grounds = tuple(ground for ground in grounds if ground != "grass") or grounds
    ground = drawing.vary(GROUNDS[pick(grounds, generator)], generator)
    canvas = Canvas(size, ground, generator)
    colour = drawing.vary(PALETTE[facts.colour], generator, 3.0)
    kind.paint(canvas, facts.count, colour, generator)
    NEIGHBOURS[facts.neighbour](canvas, generator)
    if facts.neighbour == "trees" and kind.open_sides:
        surround_with_trees(canvas, generator)
    return canvas.finish()


def _kind_of(seed: int, pair: int, member: int) -> Kind:
    # Kinds are dealt in shuffled rounds, all equally often.
    turn, place = divmod(pair, len(KINDS))
    order = _generator(seed, turn, member, _ORDER).permutation(len(KINDS))
    return KINDS[sorted(KINDS)[int(order[place])]]


def _generator(*seeds: int) -> Generator:
    return Generator(np.random.PCG64(list(seeds)))
