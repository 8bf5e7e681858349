"""Command line of KAMCL: flags only.

python main.py --mode=train --config=configs/synthetic.py --workdir=runs/demo
"""

import sys
from pathlib import Path
from typing import NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from input_pipeline.errors import DataError
from kamcl_jax import training
from kamcl_jax.config_check import ConfigError
from kamcl_jax.training import DivergedError

MODES = {"train": training.train, "evaluate": training.evaluate}

_MODE = flags.DEFINE_enum("mode", None, list(MODES), "What to do.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, events, report.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as configs/synthetic.py.")


def main(argv: list[str]) -> None:
    """Runs the mode; a user's mistake ends with one sentence and exit status 1."""
    if len(argv) > 1:
        sys.exit(
            f"error: unexpected arguments: {' '.join(argv[1:])} "
            "(a config field is set as --config.FIELD=VALUE)"
        )
    if not _WORKDIR.value:
        sys.exit("error: --workdir is empty")
    logging.set_verbosity(logging.WARNING)
    config = _load_config()
    try:
        MODES[str(_MODE.value)](config, Path(str(_WORKDIR.value)))
    except (ConfigError, DataError, DivergedError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from the last epoch", file=sys.stderr)
        sys.exit(130)


def _refuse_config(error: Exception) -> NoReturn:
    # ml_collections tries several ways to load the file; the last line is what went wrong.
    sys.exit(f"error: the config cannot be loaded: {str(error).splitlines()[-1].strip()}")


def _load_config() -> ml_collections.ConfigDict:
    try:
        return _CONFIG.value
    except OSError as error:
        _refuse_config(error)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses like absl, but tells of an unknown config field in one sentence."""
    try:
        return app.parse_flags_with_usage(argv)
    except AttributeError as error:
        cause = error.args[0] if error.args else error
        words = cause.args[0] if isinstance(cause, KeyError) else cause
        sys.exit(f"error: the config has no field {' '.join(str(words).split())}")
    except (OSError, SyntaxError) as error:
        _refuse_config(error)


if __name__ == "__main__":
    flags.mark_flags_as_required(["mode", "config", "workdir"])
    app.run(main, flags_parser=_parse_flags)
