"""Comparison with the PyTorch original: golden files of it, and a live run of it."""
