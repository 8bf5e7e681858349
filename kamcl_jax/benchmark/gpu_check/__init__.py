"""Everything worth measuring on a GPU that is there for ten minutes, part by part.

`examples/gpu_check.py` runs the parts. Each is a process of its own with a time limit, writes down
each number as soon as it has it, and goes on when one of its measurements fails.
"""
