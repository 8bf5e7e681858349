"""The PyTorch original: its checkpoints, converted both ways, and what it computes, compared."""
