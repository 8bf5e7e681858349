"""Tables in Markdown that also read well in a terminal."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Returns a table with padded columns.

    Args:
      head: the columns' names.
      rows: as many cells each.
      left: columns that are aligned to the left; the others are numbers.
    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([_line(head, widths, left), rule, *(_line(row, widths, left) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        cell.ljust(width) if place < left else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"
