"""The exceptions that a user's data can cause."""


class KamclError(Exception):
    """Something that you can mend, told in one sentence that names the file, the line or the field.

    Every error that this software raises on purpose derives from it, so a program of your own needs
    to catch one class. `kamcl_jax.errors` lists them all.
    """


class DataError(KamclError, ValueError):
    """The data cannot be used."""
