"""The flags of a command, parsed; a wrong one is told in one sentence, with what may be meant."""

import difflib
import sys
from pathlib import Path
from typing import NoReturn

from absl import flags

from kamcl_jax.config.fields import FIELDS


def parse(argv: list[str]) -> list[str]:
    """Parses the flags of a command as absl does, and returns the arguments that are no flags.

    Ends the program with status 1 where a flag is wrong.
    """
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        sys.exit(f"error: there is no flag --{error.flagname}{_flag_hint(error.flagname)}")
    except flags.IllegalFlagValueError as error:
        sys.exit(f"error: {_illegal_value(argv, error)}")
    except (AttributeError, KeyError) as error:
        sys.exit(f"error: the config has no field {_missing_field(error)}{_field_hint(argv)}")
    except flags.Error as error:
        sys.exit(f"error: {_last_line(error)}")
    except (OSError, SyntaxError) as error:
        refuse_config(error)


def refuse_config(error: Exception) -> NoReturn:
    """Ends the program with status 1, as the config's file cannot be loaded."""
    # ml_collections tries several ways to load the file; the last line is what went wrong.
    sentence = f"the config cannot be loaded: {_last_line(error)}"
    file, colon, variant = _config_argument(sys.argv).partition(":")
    if file and not file.endswith(".py") and Path(f"{file}.py").is_file():
        sentence += f"; did you mean --config={file}.py{colon}{variant}?"
    sys.exit(f"error: {sentence}")


def _last_line(error: Exception) -> str:
    """Returns the last line of what an error says, or its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _missing_field(error: Exception) -> str:
    """Returns what ml_collections says of the field that a config does not have: its name, first.

    It raises a KeyError, which it wraps in an AttributeError where the field is an attribute.
    """
    missing = next((wrapped for wrapped in error.args if isinstance(wrapped, KeyError)), error)
    return "\n".join(map(str, missing.args)).partition("\n")[0]


def _config_argument(argv: list[str]) -> str:
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == "config":
            return value if equals else following
    return ""


def _config_settings(argv: list[str]) -> list[tuple[str, str]]:
    """Returns the (field, value) of each --config.FIELD=VALUE."""
    names = [argument.lstrip("-").partition("=") for argument in argv[1:]]
    return [
        (name.removeprefix("config."), value)
        for name, _, value in names
        if name.startswith("config.")
    ]


def _flag_hint(name: str) -> str:
    fields = [name] if name in FIELDS else [one for one in FIELDS if one.endswith(f".{name}")]
    names = [f"config.{field}" for field in fields] or difflib.get_close_matches(
        name, [*flags.FLAGS, *(f"config.{field}" for field in FIELDS)], 1
    )
    return f"; did you mean {' or '.join(f'--{one}' for one in names)}?" if names else ""


def _field_hint(argv: list[str]) -> str:
    for name, _ in _config_settings(argv):
        if ".options." in name or name.startswith("loss.extra_terms."):
            return (
                f" of {name}: an option must be in the config file before the command line can "
                "change it (docs/extending.md)"
            )
        close = difflib.get_close_matches(name, FIELDS, 1)
        if name not in FIELDS and close:
            return f"; did you mean --config.{close[0]}?"
    return ""


def _illegal_value(argv: list[str], error: Exception) -> str:
    for name, value in _config_settings(argv):
        if f"--config.{name}=" in str(error) and name in FIELDS:
            return f"config.{name} cannot be {value!r}; it must be {FIELDS[name].rule.words}"
    return _last_line(error)
