"""A search page for an index of images, served on this machine."""
