"""What a config means: its table of fields, and the objects that are built from it."""
