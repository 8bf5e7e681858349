"""The folder that `--out` names, of results that are written at the end."""

from pathlib import Path

from kamcl_jax.errors import ConfigError


def check(out: Path) -> None:
    """Refuses a file, before long work starts.

    Raises:
      ConfigError: it is one.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out={out} cannot be a folder: it is a file")


def make(out: Path) -> None:
    """Makes the folder if it is absent.

    Raises:
      ConfigError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be a folder: {error.strerror}") from error
