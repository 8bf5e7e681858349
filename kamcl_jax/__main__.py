"""Makes `python -m kamcl_jax` the same command as `python main.py`."""

from kamcl_jax import command_line

if __name__ == "__main__":
    command_line.run()
