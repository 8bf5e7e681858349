"""The training step, all of it traced inside one jitted function; start at `train_step`."""
