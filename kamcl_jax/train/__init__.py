"""Training on the host: the loop, how batches reach the devices, progress and interruptions."""
