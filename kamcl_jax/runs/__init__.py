"""What lies in `--workdir`: checkpoints, the record beside each of them, and the folder itself."""
