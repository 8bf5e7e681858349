"""Scripts on top of the library, and modules that a config can name by their import path."""
