"""The grammar that words the captions of a scene from its facts.

A caption is a template filled with a phrase for the scene's objects, one for its neighbour and a
relation between the two. Pictures are turned and cropped in training, so no template speaks of
directions. All five captions of an image share the facts and differ in wording: each fact (count,
colour, neighbour) is left out of one of them only, so its words are said at least twice.
"""

import dataclasses
import itertools
import re

from numpy.random import Generator

from input_pipeline.datasets.synthetic.kinds import KINDS, Facts, pick

CAPTIONS_PER_IMAGE = 5

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
"""The words for counts; larger ones are told as "many"."""

# Phrases of each neighbour, and whether they are plural.
_NEIGHBOURS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "trees": (True, ("some green trees", "many green trees", "green trees", "some trees")),
    "road": (False, ("a road", "a straight road")),
    "river": (False, ("a river", "a long river")),
    "houses": (True, ("some houses", "several houses", "a lot of houses")),
    "buildings": (True, ("some buildings", "several buildings", "some large buildings")),
    "parking lot": (False, ("a parking lot", "a parking lot with cars")),
    "meadow": (False, ("a green meadow", "a meadow", "a piece of green meadow")),
    "bare land": (False, ("bare land", "a piece of bare land")),
    "railway": (False, ("a railway", "a straight railway")),
    "pond": (False, ("a pond", "a small pond")),
}


@dataclasses.dataclass(frozen=True)
class Wording:
    """How the scenes of one kind are told.

    Attributes:
      objects: Patterns of the object phrase, with {count}, {colour} and nouns in the form
        "singular|plural". What stands in brackets is left out together with the colour. A pattern
        without braces follows "{count} {colour}".
      places: Phrases of the whole scene, each with its article.
      verbs: What the objects do, as "singular|plural".
      extras: Short sentences that hold for every scene of the kind.
      preposition: How the objects lie in the places.
      number: The grammatical number of the object phrase where it isn't the count's.
    """

    objects: tuple[str, ...]
    places: tuple[str, ...]
    verbs: tuple[str, ...]
    extras: tuple[str, ...]
    preposition: str = "in"
    number: int | None = None


_WORDINGS: dict[str, Wording] = {
    "airport": Wording(
        ("plane|planes", "airplane|airplanes", "aircraft|aircraft"),
        ("an airport", "the airport"),
        ("is parked|are parked", "stops|stop", "is|are"),
        ("the terminal of the airport is long", "a gray runway is in the airport"),
    ),
    "baseball_field": Wording(
        (
            "{count} baseball field|fields [with {colour} soil]",
            "{count} baseball diamond|diamonds [with {colour} soil]",
            "baseball field|fields",
        ),
        ("a sports ground", "a grassland"),
        ("is|are", "lies|lie", "is built|are built"),
        ("the baseball ground has the shape of a fan", "white lines mark the baseball ground"),
    ),
    "beach": Wording(
        ("umbrella|umbrellas", "parasol|parasols", "{count} round {colour} umbrella|umbrellas"),
        ("a beach", "a sandy beach", "the beach"),
        ("is open|are open", "stands|stand", "is|are"),
        ("white waves roll onto the beach", "the blue sea meets the sandy beach"),
        preposition="on",
    ),
    "bridge": Wording(
        ("bridge|bridges", "{count} straight {colour} bridge|bridges", "bridge|bridges"),
        ("a wide river", "a river", "the river"),
        ("is built|are built", "is|are", "lies|lie"),
        ("the water of the river flows slowly", "a road crosses the water by bridge"),
        preposition="over",
    ),
    "dense_residential": Wording(
        (
            "{count} row|rows of {colour} houses",
            "{count} line|lines of {colour} houses",
            "{count} row|rows of houses [with {colour} roofs]",
        ),
        ("a dense residential area", "a crowded residential area", "the dense residential area"),
        ("is arranged|are arranged", "is|are", "lies|lie"),
        ("the houses are packed together", "narrow streets run between the houses"),
    ),
    "desert": Wording(
        ("a {colour} desert", "a piece of {colour} desert", "a wide {colour} desert"),
        ("a dry area", "a dry land"),
        ("lies", "is", "stretches"),
        ("the dunes of the desert look like waves", "ridges of sand run through the desert"),
        number=1,
    ),
    "farmland": Wording(
        ("{count} piece|pieces of {colour} farmland", "farmland field|fields", "crop field|fields"),
        ("a farm", "the countryside"),
        ("lies|lie", "is|are", "is planted|are planted"),
        ("the farmland is divided neatly", "crops grow in lines"),
    ),
    "forest": Wording(
        ("a dense {colour} forest", "a {colour} forest", "a forest [of {colour} trees]"),
        ("a wooded area", "the countryside"),
        ("lies", "is", "grows"),
        ("the plants of the forest are lush", "the trees of the forest grow close together"),
        number=1,
    ),
    "harbour": Wording(
        ("boat|boats", "ship|ships", "boat|boats"),
        ("a harbour", "a port", "the harbour"),
        ("is docked|are docked", "stops|stop", "is|are"),
        ("the pier of the harbour reaches into the water", "the water in the harbour is dark blue"),
    ),
    "industrial": Wording(
        (
            "factory|factories",
            "workshop|workshops",
            "{count} factory|factories [with {colour} roof|roofs]",
        ),
        ("an industrial area", "the industrial area"),
        ("is built|are built", "stands|stand", "is|are"),
        ("white vents are on the factory roof", "the roofs in the industrial area are striped"),
    ),
    "mountain": Wording(
        ("a {colour} mountain", "a rugged {colour} mountain", "a range of {colour} mountains"),
        ("a mountain region", "a wild region"),
        ("rises", "is", "lies"),
        ("the mountain has sharp ridges and deep valleys", "one side of the mountain is in shadow"),
        number=1,
    ),
    "parking": Wording(
        ("car|cars", "vehicle|vehicles", "{count} small {colour} car|cars"),
        ("a parking lot", "a car park", "the parking lot"),
        ("is parked|are parked", "stops|stop", "is|are"),
        ("white lines divide the parking lot", "the parking lot is marked with white lines"),
    ),
    "playground": Wording(
        (
            "{count} football field|fields [with {colour} track|tracks]",
            "{count} playground|playgrounds [with {colour} track|tracks]",
            "{count} football field|fields [inside {colour} track|tracks]",
        ),
        ("a sports ground", "an athletic ground"),
        ("is|are", "lies|lie", "is built|are built"),
        ("the playground has a striped lawn", "green grass grows on the playground"),
    ),
    "pond": Wording(
        ("pond|ponds", "{count} pond|ponds [of {colour} water]", "lake|lakes"),
        ("a park", "the park", "a grassland"),
        ("lies|lie", "is|are", "is located|are located"),
        ("a path winds through the park", "the water of the pond is still"),
    ),
    "railway_station": Wording(
        ("train|trains", "{count} long {colour} train|trains", "train|trains"),
        ("a railway station", "a train station", "the station"),
        ("stops|stop", "waits|wait", "is|are"),
        ("many parallel rails are in the station", "a narrow platform is between the tracks"),
    ),
    "resort": Wording(
        (
            "{count} swimming pool|pools [and {colour} buildings]",
            "{count} swimming pool|pools [with {colour} buildings]",
            "{count} curved pool|pools [and {colour} buildings]",
        ),
        ("a resort", "a holiday resort", "the resort"),
        ("is|are", "is located|are located", "lies|lie"),
        ("the resort has a sunny terrace", "the water of the swimming pool is clear"),
    ),
    "roundabout": Wording(
        (
            "a roundabout with {count} road|roads [and a {colour} island]",
            "a roundabout with {count} road|roads [around a {colour} island]",
            "a {colour} roundabout joined by {count} road|roads",
        ),
        ("a crossing", "a road junction"),
        ("is", "lies", "is located"),
        ("the roads meet in a circle", "the roundabout is a circle"),
        number=1,
    ),
    "sparse_residential": Wording(
        ("house|houses", "{count} house|houses [with {colour} roof|roofs]", "villa|villas"),
        ("a sparse residential area", "the sparse residential area", "the countryside"),
        ("stands|stand", "is|are", "is located|are located"),
        ("a path leads to the sparse residential area", "each house has a lawn"),
    ),
    "stadium": Wording(
        (
            "a stadium [with {colour} seats]",
            "a large stadium [with {colour} seats]",
            "an oval {colour} stadium",
        ),
        ("a sports centre", "a sports ground"),
        ("is located", "stands", "is built"),
        ("a green football field is inside the stadium", "the stadium is like a bowl"),
        number=1,
    ),
    "storage_tanks": Wording(
        ("storage tank|tanks", "oil tank|tanks", "{count} round {colour} storage tank|tanks"),
        ("an oil depot", "a storage area"),
        ("stands|stand", "is|are", "is placed|are placed"),
        ("each tank is round", "each storage tank has a flat roof"),
    ),
    "tennis_courts": Wording(
        (
            "tennis court|courts",
            "{count} tennis court|courts [with {colour} ground]",
            "tennis court|courts",
        ),
        ("a sports ground", "a park", "a sports centre"),
        ("is|are", "lies|lie", "is arranged|are arranged"),
        ("white lines are drawn on the tennis court", "a net divides each tennis court"),
    ),
}

# Templates name {objects}, {place}, {near} and {neighbour}; {in_place} is the place with its
# preposition, {act} the objects' verb, {be} and {next} are forms of "be" for the objects and for
# the neighbour.
_WITH_NEIGHBOUR: tuple[str, ...] = (
    "{objects} {act} {near} {neighbour} .",
    "{objects} {act} {in_place} {near} {neighbour} .",
    "there {be} {objects} {near} {neighbour} .",
    "there {be} {objects} {in_place} . {neighbour} {next} beside it .",
    "{neighbour} {next} {near} {objects} .",
    "this is {place} with {objects} {near} {neighbour} .",
    "{objects} {act} {in_place} and {neighbour} {next} nearby .",
    "{extra} . {objects} {act} {near} {neighbour} .",
    "{place} with {objects} is {near} {neighbour} .",
    "we can see {objects} and {neighbour} in the picture .",
    "{near} {neighbour} is {place} with {objects} .",
    "{objects} and {neighbour} can be seen in the picture .",
)
_SURROUNDED: tuple[str, ...] = (
    "{objects} {be} surrounded by {neighbour} .",
    "{neighbour} surround {objects} .",
    "there {be} {objects} {in_place} surrounded by {neighbour} .",
    "{neighbour} grow around {place} with {objects} .",
)
_WITHOUT_NEIGHBOUR: tuple[str, ...] = (
    "{objects} {act} {in_place} .",
    "there {be} {objects} {in_place} . {extra} .",
    "{extra} and there {be} {objects} .",
    "this is {place} with {objects} .",
)


def compose(facts: Facts, generator: Generator) -> tuple[str, ...]:
    """Words five different captions of a scene, in lower case, each ending in " ."."""
    templates = _WITH_NEIGHBOUR
    if facts.neighbour == "trees" and KINDS[facts.kind].open_sides:
        templates = _SURROUNDED + templates[:6]
    order = generator.permutation(len(templates))[: CAPTIONS_PER_IMAGE - 1].tolist()
    chosen = [templates[place] for place in order] + [pick(_WITHOUT_NEIGHBOUR, generator)]
    # The last caption leaves the neighbour out; one other leaves the count, one the colour.
    without_count, without_colour = generator.integers(CAPTIONS_PER_IMAGE - 1, size=2).tolist()
    captions = [
        _fill(template, facts, generator, number == without_count, number == without_colour)
        for number, template in enumerate(chosen)
    ]
    shuffled = generator.permutation(CAPTIONS_PER_IMAGE).tolist()
    return tuple(captions[number] for number in shuffled)


def _fill(
    template: str, facts: Facts, generator: Generator, without_count: bool, without_colour: bool
) -> str:
    wording = _WORDINGS[facts.kind]
    singular = (facts.count if wording.number is None else wording.number) == 1
    neighbour_plural, neighbours = _NEIGHBOURS[facts.neighbour]
    place = pick(wording.places, generator)
    return template.format(
        objects=_phrase_of_objects(facts, generator, without_count, without_colour),
        place=place,
        in_place=f"{wording.preposition} {place}",
        act=_inflect(pick(wording.verbs, generator), singular),
        be="is" if singular else "are",
        next="are" if neighbour_plural else "is",
        near=pick(("near", "near", "beside", "next to", "close to"), generator),
        neighbour=pick(neighbours, generator),
        extra=pick(wording.extras, generator),
    )


def _phrase_of_objects(
    facts: Facts, generator: Generator, without_count: bool, without_colour: bool
) -> str:
    pattern = pick(_WORDINGS[facts.kind].objects, generator)
    if "{" not in pattern:
        pattern = f"{{count}} {{colour}} {pattern}"
    pattern = re.sub(r"\[.*?\]" if without_colour else r"[\[\]]", "", pattern)
    if facts.count >= len(NUMBERS):
        number = pick(("many", "lots of", "many"), generator)
    elif not without_count:
        number = NUMBERS[facts.count]
    else:
        number = "a" if facts.count == 1 else "some"
    words = pattern.format(count=number, colour="" if without_colour else facts.colour).split()
    return _with_articles([_inflect(word, facts.count == 1) for word in words])


def _inflect(forms: str, singular: bool) -> str:
    """Returns the wanted form of "singular|plural"; text without a bar stays as it is."""
    first, _, second = forms.partition("|")
    return first if singular or not second else second


def _with_articles(words: list[str]) -> str:
    """Joins words, with "an" for every "a" before a vowel."""
    for place, (word, following) in enumerate(itertools.pairwise(words)):
        if word in ("a", "an"):
            words[place] = "an" if following[0] in "aeio" else "a"
    return " ".join(words)
