"""A trained model and its embeddings in formats that other programs read."""
