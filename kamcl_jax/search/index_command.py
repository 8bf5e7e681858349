"""What `--mode=index` does, and says."""

from pathlib import Path

import kamcl_jax
from input_pipeline.images.bands import BandChoice
from kamcl_jax.search import update_index
from kamcl_jax.search.printable import printable
from kamcl_jax.search.update_index import Indexed

NAMED = 5
"""Suffixes and files that are named where the number of all tells enough."""


def run(workdir: Path, images: Path, folder: Path, choice: BandChoice) -> None:
    """Makes an index or brings it up to date, and prints what has been done.

    Args:
      workdir: of a run, or a folder that holds an exported model.
      images: folder of the images.
      folder: of the index.
      choice: of bands.

    Raises:
      DataError: see `indexing.index_images`.
    """
    update_index.check(images, folder)
    done = update_index.index_images(kamcl_jax.load(workdir), images, folder, choice)
    print(report(done))
    print(f"index: {folder}")


def report(done: Indexed) -> str:
    """Returns what an indexing has done, as lines of text."""
    new, old = len(done.embedded), len(done.kept)
    lines = [
        f"{_images(new + old)} in the index: {new} embedded now, {old} there already, "
        f"{len(done.gone)} gone and dropped"
    ]
    if done.found.others:
        counts = sorted(done.found.others.items(), key=lambda item: (-item[1], item[0]))
        suffixes = [f"{suffix or 'without suffix'} {count}" for suffix, count in counts]
        total = done.found.others.total()
        lines.append(f"other files, left out: {total} ({_some(suffixes)})")
    if done.found.linked_folders:
        lines.append(f"links to folders, not entered: {done.found.linked_folders}")
    if done.almost_black:
        lines.append(
            f"almost black: {_images(len(done.almost_black))} ({_some(done.almost_black)}); "
            "--stretch=2,98 shows what is in TIFF files of 11 or 12 bits"
        )
    if done.unreadable:
        lines.append(f"unreadable, left out: {len(done.unreadable)}")
        names = sorted(done.unreadable.items())
        lines.extend(f"  {printable(name)}: {reason}" for name, reason in names)
    return "\n".join(lines)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _some(words: list[str]) -> str:
    more = ", ..." if len(words) > NAMED else ""
    return ", ".join(map(printable, words[:NAMED])) + more
