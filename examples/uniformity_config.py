"""The embedded data set with one more loss term.

python main.py --mode=train --config=examples/uniformity_config.py --workdir=runs/uniformity
"""

import ml_collections

from configs import synthetic


def get_config() -> ml_collections.ConfigDict:
    """Returns `configs/synthetic.py` with the term `uniformity`."""
    config = synthetic.get_config()
    config.loss.extra_terms.uniformity = ml_collections.ConfigDict(
        {"function": "examples.uniformity_loss:uniformity", "weight": 0.1}
    )
    return config
