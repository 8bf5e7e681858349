"""Trains a config with and without parts of KAMCL over several seeds and prints a table.

python examples/ablation.py --config=configs/synthetic.py --workdir=runs/ablation

`--variant=NAME`, given once or several times, trains these variants only. The same command again
goes on where it stopped: finished runs are not repeated.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kamcl_jax.train import loop

VARIANTS = {
    "KAMCL": {},
    "KAMCL with false negatives masked": {"loss.mask_false_negatives": True},
    "without step 2 (concept alignment)": {"loss.alignment_weight": 0.0},
    "without the queue (negatives: the batch's other keys)": {"loss.negatives": "batch"},
    "without momentum contrast": {"loss.contrastive_weight": 0.0},
}
"""Row of the table -> what is changed in the config."""

_CONFIG = config_flags.DEFINE_config_file("config", "configs/synthetic.py", "Config file.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/ablation", "Folder of the runs.")
_VARIANT = flags.DEFINE_multi_enum("variant", None, list(VARIANTS), "To train; all, if left out.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to average over.")


def run(changes: dict, seed: int, workdir: Path) -> dict[str, float]:
    """Returns the test metrics of one training, read back where it has finished before."""
    finished = workdir / "report" / "metrics.json"
    if finished.exists():
        return json.loads(finished.read_text())["test"]
    config = _CONFIG.value.copy_and_resolve_references()
    config.update_from_flattened_dict({**changes, "seed": seed})
    return loop.train(config, workdir)["test"]


def main(argv: list[str]) -> None:
    """Runs all variants over all seeds."""
    del argv
    logging.set_verbosity(logging.WARNING)
    seeds = [int(seed) for seed in _SEEDS.value]
    rows = ["| variant | test mR | i2t R@1 | t2i R@1 | mR of each seed |", "|---|---|---|---|---|"]
    for name in _VARIANT.value or VARIANTS:
        changes = VARIANTS[name]
        folder = Path(_WORKDIR.value) / name.split("(")[0].strip().replace(" ", "_")
        scores = [run(changes, seed, folder / f"seed{seed}") for seed in seeds]
        cells = []
        for metric in ("mR", "i2t_r1", "t2i_r1"):
            values = np.array([score[metric] for score in scores])
            cells.append(f"{values.mean():.1f} ± {values.std(ddof=min(1, len(values) - 1)):.1f}")
        each = ", ".join(f"{score['mR']:.1f}" for score in scores)
        rows.append(f"| {name} | {' | '.join(cells)} | {each} |")
    print("\n".join(rows))


if __name__ == "__main__":
    app.run(main)
