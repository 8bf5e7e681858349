"""What a config names as 'package.module:Name'."""

import importlib
import importlib.util
import operator
import os
import sys
from pathlib import Path
from typing import Any

from kamcl_jax.errors import ConfigError


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
    _find_in_working_directory()
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module_name))
    # The module is the user's: it may raise anything.
    except Exception as error:
        raise ConfigError(f"{field} is {path!r}, which cannot be imported: {told(error)}") from None


def check_outside(path: str, field: str, folder: Path) -> None:
    """Refuses a module that lies in a folder, without importing anything that does.

    What somebody else has made may name a module, but not bring it: loading a model must not run
    code that came with it.

    Args:
      path: 'package.module:Name'; one that is none is left to `resolve`.
      field: that holds it; for the error.
      folder: that no code is taken from.

    Raises:
      ConfigError: the module, or a package that it is in, lies there.
    """
    _find_in_working_directory()
    parts = path.partition(":")[0].split(".")
    for depth in range(1, len(parts) + 1):
        try:
            # Imports the packages above, which have been looked at before.
            spec = importlib.util.find_spec(".".join(parts[:depth]))
        except Exception:  # they may raise anything; `resolve` tells of it
            return
        if spec is None:
            return
        files = [spec.origin] if spec.has_location and spec.origin else []
        for place in (*files, *(spec.submodule_search_locations or ())):
            if Path(place).resolve().is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{field} is {path!r}, which lies in {folder} itself: code that comes with a "
                    "model is not run; put it elsewhere if you trust it"
                )


def _find_in_working_directory() -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: nothing that is installed gives way to it


def told(error: Exception) -> str:
    """Returns an exception's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
