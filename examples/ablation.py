"""Trains variants of a config over several seeds and prints a table of their scores.

python examples/ablation.py --config=configs/synthetic.py --workdir=runs/ablation

`--variant=NAME`, given once or several times, trains these variants only; the first one is what the
others are compared with. The same command again goes on where it stopped: finished runs are not
repeated. Scores are those of the validation split, to choose by. `--split=test` shows those of the
test split, for the last look.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.variants import SMALL_STRONG
from kamcl_jax.evaluate import finished_run
from kamcl_jax.evaluate.evaluate import rank_test_split
from kamcl_jax.evaluate.tables import interval, markdown_table
from kamcl_jax.inference import embed
from kamcl_jax.ranking.metrics import bootstrap_differences, recalls
from kamcl_jax.ranking.ranks import Ranks
from kamcl_jax.train import loop

PARTS = {
    "KAMCL": {},
    "KAMCL with false negatives masked": {"loss.mask_false_negatives": True},
    "without step 2 (concept alignment)": {"loss.alignment_weight": 0.0},
    "without the queue (negatives: the batch's other keys)": {"loss.negatives": "batch"},
    "without momentum contrast": {"loss.contrastive_weight": 0.0},
}
"""What the parts of KAMCL are worth: row of the table -> what is changed in the config."""

GIVEN_UP = {
    "with the queue": ["loss.negatives"],
    "with false negatives": ["loss.mask_false_negatives"],
    "with the triplet loss": ["loss.triplet_weight"],
    "with keys that change slowly": ["momentum"],
    "with the paper's concept labels": ["concepts.label_scale"],
    "with concepts late": ["schedule.alignment_from_epoch", "schedule.alignment_ramp_epochs"],
    "with Adam": ["optimizer.name"],
    "with the config's learning rate": ["optimizer.learning_rate"],
    "with steps of the learning rate": ["optimizer.schedule"],
    "without a warm-up": ["optimizer.warmup_steps"],
    "without flips and turns": ["augmentation.flips", "augmentation.quarter_turns"],
    "with rotations": ["augmentation.max_rotation"],
}
"""The parts of the strong recipe: row of the table -> which fields are the config's own again."""

ADDED = {
    "with the queue and the batch": {"loss.negatives": "both", "loss.mask_unfilled": True},
    "with equal keys as positives": {
        "loss.mask_false_negatives": False,
        "loss.positives": "equal",
    },
    "with similar concepts as positives": {"loss.positives": "concepts"},
    "with a mean of the triplet loss": {
        "loss.triplet_weight": 1.0,
        "loss.triplet_reduction": "mean",
    },
    "with CLIP's loss of the batch": {"loss.batch_weight": 10.0},
    "with CLIP's loss alone": {"loss.batch_weight": 10.0, "loss.contrastive_weight": 0.0},
    "with a learnt temperature": {"learn_temperature": True},
    "with weight decay": {"optimizer.weight_decay": 0.05},
    "with concepts that count more": {"loss.alignment_weight": 100.0},
    "with the key encoders": {"evaluation.encoders": "key"},
}
"""What the strong recipe might have had: row of the table -> the change to it."""


def without(fields: Sequence[str]) -> dict:
    """Returns the strong recipe but for some of its fields."""
    return {name: value for name, value in SMALL_STRONG.items() if name not in fields}


VARIANTS = {
    **PARTS,
    "strong": SMALL_STRONG,
    **{f"strong, {name}": without(fields) for name, fields in GIVEN_UP.items()},
    **{f"strong, {name}": {**SMALL_STRONG, **changes} for name, changes in ADDED.items()},
}

Ranked = tuple[dict[str, Ranks], np.ndarray]
"""The ranks of a split's queries, both ways, and the image of each caption."""


def define_flags() -> None:
    """Defines the flags; not on import, as other scripts have some of the same names."""
    config_flags.DEFINE_config_file("config", "configs/synthetic.py", "Config file.")
    flags.DEFINE_string("workdir", "runs/ablation", "Folder of the runs.")
    flags.DEFINE_multi_enum(
        "variant", list(PARTS), list(VARIANTS), "To train, the first to compare with."
    )
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to average over.")
    flags.DEFINE_enum("split", "validation", ["validation", "test"], "What is scored.")


def train(config: ml_collections.ConfigDict, changes: dict, seed: int, workdir: Path) -> None:
    """Trains a config with some changes, if it has not finished before."""
    if (workdir / finished_run.METRICS).exists():
        return
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({**changes, "seed": seed})
    loop.train(config, workdir)


def rank(workdir: Path, split: str) -> Ranked:
    """Ranks the queries of a split with the best checkpoint of a run."""
    run = finished_run.read(workdir)
    model, settings = run.model(), run.config.evaluation
    examples = getattr(finished_run.open_data(run), split)
    embeddings = embed.embed(model.encoders, model.variables, examples, settings.batch_size)
    ranks = rank_test_split(embeddings, examples, settings.ties)
    return ranks["test"], examples.image_of_caption


def row(name: str, ranked: Sequence[Ranked], first: Sequence[Ranked]) -> list[str]:
    """Returns a row of the table: means and deviations over the seeds, and what was gained.

    The interval is a paired one over images, of the mean over the seeds.
    """
    scores = [recalls(ranks) for ranks, _ in ranked]
    cells = [name]
    for metric in ("mR", "i2t_r1", "t2i_r1"):
        values = np.array([score[metric] for score in scores])
        cells.append(f"{values.mean():.1f} ± {values.std(ddof=min(1, len(values) - 1)):.1f}")
    cells.append(", ".join(f"{score['mR']:.1f}" for score in scores))
    if ranked is first:
        return [*cells, ""]
    gained = np.mean([s["mR"] for s in scores]) - np.mean([recalls(r)["mR"] for r, _ in first])
    bounds = bootstrap_differences([r for r, _ in ranked], [r for r, _ in first], ranked[0][1])
    return [*cells, f"{gained:+.1f} ({interval(bounds['mR'])})"]


def main(argv: list[str]) -> None:
    """Runs all variants over all seeds."""
    del argv
    logging.set_verbosity(logging.WARNING)
    given, rows, first = flags.FLAGS, [], None
    for name in given.variant:
        folder = Path(given.workdir) / re.sub(r"\W+", "_", name.split(" (")[0])
        folders = {int(seed): folder / f"seed{seed}" for seed in given.seeds}
        for seed, workdir in folders.items():
            train(given.config, VARIANTS[name], seed, workdir)
        ranked = [rank(workdir, given.split) for workdir in folders.values()]
        first = first or ranked
        rows.append(row(name, ranked, first))
    head = ("variant", f"{given.split} mR", "i2t R@1", "t2i R@1", "mR of each seed")
    print(markdown_table([*head, f"mR gained on {given.variant[0]}"], rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
