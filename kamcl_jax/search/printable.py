"""File names and sentences as a terminal or a picture can show them."""


def printable(text: str) -> str:
    """Returns a text on one line: what cannot be shown, also an escape code, is a sign each."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
