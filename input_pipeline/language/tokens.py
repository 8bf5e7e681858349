"""Captions to tokens: NLTK's `word_tokenize`, without the model that NLTK would download.

Library mirrored: NLTK 3.8 (Apache-2.0), of the time of the KAMCL release. A checkpoint is worth
nothing with other tokens than it was trained on, so what changes between NLTK's versions (its
sentence model and its rules for quotes and dashes) is written out here.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

PUNCTUATION = frozenset(", . : ; ? ( ) [ ] & ! * @ # $ %".split())  # noqa: SIM905

# A period after one of these ends no sentence. They are the abbreviations that NLTK's English
# sentence splitter knows ("etc" and "no" are not among them); initials and numbers have rules.
ABBREVIATIONS = frozenset(
    """
    c d e f g h k l m n p r s t v w
    adm bros cie co col corp cos dr gen inc jr lt ltd maj messrs mr mrs ms prof rep reps sen sr st
    jan feb aug sep sept oct nov dec tues wed fri
    ariz calif colo conn fla ga ill kan ky mich minn nev okla ore pa tenn va vt w.va wash wis
    a.d a.m p.m d.c l.a n.c n.d n.h n.j n.m n.y r.i s.c u.k u.n u.s u.s.a u.s.s.r m.b.a ph.d
    a.a a.c a.g a.h a.m.e a.s a.t b.f b.v c.i.t c.o.m.b c.v d.h d.w e.f e.h e.l e.m f.g f.j g.d
    g.f g.k h.c h.f h.m i.m.s j.b j.c j.j j.k j.p j.r l.f l.p m.d.c m.j n.v p.a.m r.a r.h r.j r.k
    r.t s.a s.a.y s.g s.p.a s.s t.j w.c w.r w.w
    ala ave chg ct ft mg ok sw vs yr
    """.split()  # noqa: SIM905
)

# Anything that could end a sentence before the caption does.
_MID_LINE_END = re.compile(r"[.?!].")

# Most captions are plain words with commas and a final period: they need none of the rules but
# these contractions, and splitting them at spaces takes a tenth of the time.
_PLAIN = re.compile(r"(?:[a-z0-9 -]|, )*\.? *")
_RULED = re.compile(r"--|cannot|gimme|gonna|gotta|lemme|wanna")


class WordRules:
    """The rules of version 3.8 of NLTK's word tokenizer.

    Later versions split "'27'" and long dashes differently, which changes the vocabulary.
    """

    STARTING_QUOTES = [  # noqa: RUF012
        (re.compile("([«“‘„]|[`]+)"), r" \1 "),  # noqa: RUF001
        (re.compile(r"^\""), r"``"),
        (re.compile(r"(``)"), r" \1 "),
        (re.compile(r"([ \(\[{<])(\"|\'{2})"), r"\1 `` "),
        (re.compile(r"(?i)(\')(?!re|ve|ll|m|t|s|d|n)(\w)\b"), r"\1 \2"),
    ]
    PUNCTUATION = [  # noqa: RUF012
        (re.compile(r"""([^\.])(\.)([\]\)}>"'»”’ ]*)\s*$"""), r"\1 \2 \3 "),  # noqa: RUF001
        (re.compile(r"([:,])([^\d])"), r" \1 \2"),
        (re.compile(r"([:,])$"), r" \1 "),
        (re.compile(r"\.{2,}"), r" \g<0> "),
        (re.compile(r"[;@#$%&]"), r" \g<0> "),
        (re.compile(r"""([^\.])(\.)([\]\)}>"']*)\s*$"""), r"\1 \2\3 "),
        (re.compile(r"[?!]"), r" \g<0> "),
        (re.compile(r"([^'])' "), r"\1 ' "),
        (re.compile(r"[*]"), r" \g<0> "),
    ]
    ENDING_QUOTES = [  # noqa: RUF012
        (re.compile("([»”’])"), r" \1 "),  # noqa: RUF001
        (re.compile(r"''"), " '' "),
        (re.compile(r'"'), " '' "),
        (re.compile(r"([^' ])('[sS]|'[mM]|'[dD]|') "), r"\1 \2 "),
        (re.compile(r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) "), r"\1 \2 "),
    ]


# NLTK takes a second to import, and most captions and queries need none of it.
@cache
def _sentence_splitter() -> Any:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters)


@cache
def _word_splitter() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    class WordTokenizer(WordRules, NLTKWordTokenizer):
        pass

    return WordTokenizer()


def _sentences(text: str) -> list[str]:
    """Splits lower-case text into sentences.

    Treebank's rules separate a period only at the end of a sentence, so "a bridge. some cars"
    would keep the token "bridge." if it were not split first.
    """
    text = text.strip()
    if not _MID_LINE_END.search(text):
        return [text]
    return _sentence_splitter().tokenize(text)


def tokenize(caption: str) -> list[str]:
    """Splits a caption, of one sentence or several, into lower-case tokens without punctuation.

    The tokens are those of NLTK's `word_tokenize` of the lower-cased caption, stop words among
    them, minus `, . : ; ? ( ) [ ] & ! * @ # $ %`.
    """
    text = caption.lower()
    if _PLAIN.fullmatch(text) and not _RULED.search(text):
        return text.replace(", ", " ").rstrip(" .").split()
    words = (word for sentence in _sentences(text) for word in _word_splitter().tokenize(sentence))
    return [word for word in words if word not in PUNCTUATION]
