"""The fields that all configs share, with the values of the paper's RSICD training.

`kamcl_jax/config/fields.py` has the table of them, docs/config.md the page: what each is, what it
may be, and whether a run that is resumed may change it.
"""

import ml_collections

from kamcl_jax.config import fields


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults; a data set's file changes what differs."""
    return fields.default_config()
