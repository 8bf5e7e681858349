"""What the layouts of CLIP's and SigLIP's files have in common: our towers and their blocks."""

from kamcl_jax.weights.torch_layout import Layout, Place, below, named

IMAGE, TEXT = ("image", "tower"), ("text", "tower")
"""Where the towers lie below a collection of variables."""


def repeated(count: int, block: Layout, name: str = "{}") -> Layout:
    """Returns the layout of all blocks of a `transformer.Transformer`, given that of one.

    Args:
      count: The number of blocks.
      block: The layout of each.
      name: What a block is called, with `{}` for its number.
    """
    layout: Layout = {}
    for number in range(count):
        place = below(("transformer", f"block_{number}"), block)
        layout |= named(name.format(number), place)
    return layout


def linear_part(*path: str, width: int, first: int, last: int) -> Layout:
    """Returns the layout of a `torch.nn.Linear` that is a part of `transformer.Projections`.

    Its outputs are those from `first` on and before `last`, counted in widths.
    """
    part = slice(first * width, last * width)
    return {
        "weight": Place(("params", *path, "kernel"), (1, 0), (slice(None), part)),
        "bias": Place(("params", *path, "bias"), None, part),
    }
