"""How fast a config's training, evaluation and input are, and how fast the PyTorch original is."""
