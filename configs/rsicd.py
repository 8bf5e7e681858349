"""RSICD (Lu et al. 2017) in the layout of the KAMCL/GaLR release.

`data.dir` holds `train_caps.txt`, `train_filename.txt`, `test_caps.txt`, `test_filename.txt` and a
folder of images.
"""

from configs import base

DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}


def get_config(variant: str = "resnet18"):
    """Returns the paper's RSICD training.

    Args:
      variant: the image network, `configs/rsicd.py:resnet50` on the command line.

    Raises:
      ValueError: the variant is unknown.
    """
    if variant not in DEPTHS:
        raise ValueError(f"configs/rsicd.py has the variants {', '.join(DEPTHS)}, not {variant!r}")
    config = base.get_config()
    config.data.options.images = "images"  # below dir
    config.image_encoder.depth = DEPTHS[variant]
    return config
