"""How pretrained text encoders clean a caption before it is split into tokens.

Libraries mirrored: OpenAI's CLIP and open_clip 3 (both MIT) for `clip_text`, open_clip's
`canonicalize` for `siglip_text`, and the text operations of big_vision (Apache-2.0) for
`siglip_training_text`.
"""

import html
import string

import ftfy

# An underscore stands between two words, any other punctuation belongs to one.
_WITHOUT_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))
_LOWER_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def clip_text(caption: str) -> str:
    """Returns a caption as CLIP reads it.

    Text that was decoded wrongly is mended, HTML entities become characters (twice, as `&amp;amp;`
    is common on the web), a run of white space becomes one space, and all is lower case.
    """
    return " ".join(_mended(caption).split()).lower()


def siglip_text(caption: str) -> str:
    """Returns a caption as open_clip prepares it for SigLIP: as CLIP's, without punctuation.

    Only ASCII punctuation is removed. An underscore becomes a space.
    """
    return " ".join(_mended(caption).translate(_WITHOUT_PUNCTUATION).lower().split())


def siglip_training_text(caption: str) -> str:
    """Returns a caption as big_vision gives it to SigLIP in training: A to Z in lower case.

    Punctuation stays, and white space is left to the rules of the sentencepiece file.
    """
    return caption.translate(_LOWER_ASCII)


def _mended(caption: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(caption)))
