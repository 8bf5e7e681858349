"""The one exception of exported files."""


class ExportError(ValueError):
    """An exported file that cannot be written or read, told in one sentence that names it."""
