"""What a config names as 'package.module:Name'."""

import importlib
import operator
import os
import sys
from typing import Any

from kamcl_jax.config_check import ConfigError


def resolve(path: str, field: str) -> Any:
    """Imports what a config field names.

    Modules are found where Python finds them, and in the working directory.

    Args:
      path: 'package.module:Name'.
      field: that holds it, as `config.image_encoder.module`; for the error.

    Raises:
      ConfigError: the path is none, or the module or its attribute is missing or fails.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{field} is {path!r}; it must be 'package.module:Name'")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: nothing that is installed gives way to it
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module_name))
    # The module is the user's: it may raise anything.
    except Exception as error:
        raise ConfigError(f"{field} is {path!r}, which cannot be imported: {told(error)}") from None


def told(error: Exception) -> str:
    """Returns an exception's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
