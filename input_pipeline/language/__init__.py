"""Captions become words, tokens and concepts."""
