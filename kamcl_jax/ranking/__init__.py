"""Embeddings compared with each other: scores, ranks, the recalls and how certain they are."""
