"""The one exception that a user's data can cause."""


class DataError(ValueError):
    """Bad input data, told in one sentence that names the file, line or field.

    `main.py` prints the sentence and exits; a library user catches it like any ValueError.
    """
