"""The notebook-style example runs from its first cell to its last."""

import runpy
from pathlib import Path

import numpy as np
import plain_hits
from PIL import Image

from kamcl_jax.export import model_folder

EXAMPLE = Path(__file__).parents[2] / "examples" / "library_use.py"


def test_the_example_runs_on_a_model_folder(tiny_model, tmp_path, monkeypatch, capsys):
    model_folder.write(tmp_path / "model", tiny_model, "# A model\n")
    monkeypatch.setenv("KAMCL_RUN", str(tmp_path / "model"))
    names = runpy.run_path(str(EXAMPLE))
    printed = capsys.readouterr().out
    assert "unknown in 'a zeppelin over a lake': ['zeppelin'" in printed
    assert f"saved: {names['folder'] / 'retrieved.png'}" in printed
    assert Image.open(names["folder"] / "retrieved.png").size[0] > 500
    # What it shows is what the similarities say.
    similarity = names["similarity"]
    best = np.argsort(-similarity[:, 0], kind="stable")[:3]
    np.testing.assert_array_equal(names["rows"][0], best)
    right = np.eye(len(similarity), dtype=bool)
    hits = plain_hits.recall(plain_hits.ranks(similarity.T, right), 3) / 100
    assert f"among the first 3 for {hits:.0%} of the sentences" in printed
