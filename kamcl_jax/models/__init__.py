"""Flax Linen modules of the encoders; they know no files, no configs and no training."""
