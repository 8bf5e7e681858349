"""The command line of KAMCL; `kamcl_jax/command_line.py` has the modes and flags.

python main.py --mode=train --config=configs/synthetic.py:small_strong --workdir=runs/demo
"""

from kamcl_jax import command_line

if __name__ == "__main__":
    command_line.run()
