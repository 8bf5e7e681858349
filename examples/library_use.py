"""Using a trained model from Python, cell by cell; Jupyter and VS Code open it as a notebook.

python examples/library_use.py        # after `make demo`; KAMCL_RUN names another run or export
"""

# %% [markdown]
# # Using a trained model
# A run's folder, or a model folder that `--mode=export` has written, is all that is needed: no data
# set, no config.

# %%
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import kamcl_jax  # noqa: E402
from input_pipeline.datasets.synthetic import scenes as synthetic_scenes  # noqa: E402
from kamcl_jax.ranking.ranks import rank_both_ways  # noqa: E402
from kamcl_jax.ranking.top_k import top_k  # noqa: E402

model = kamcl_jax.load(os.environ.get("KAMCL_RUN", ROOT / "runs" / "demo"))
print(f"{len(model.vocabulary)} words, {len(model.concepts)} concepts, step {model.step}")

# %% [markdown]
# ## Images
# Files of any size, arrays `uint8[height, width, 3]` and PIL images may be mixed. Files are read
# batch by batch, so a list may be long. Here: scenes that no training has seen.

# %%
scenes = [synthetic_scenes.draw(seed=1, index=number, size=120) for number in range(24)]
folder = Path(tempfile.mkdtemp())
Image.fromarray(scenes[0].image).save(folder / "a scene.png")
images = [folder / "a scene.png", *(scene.image for scene in scenes[1:])]

image_embeddings = model.encode_images(images, batch_size=8)
print("images:", image_embeddings.shape, "lengths:", np.linalg.norm(image_embeddings[:3], axis=1))

# %% [markdown]
# ## Sentences
# Words that the model never saw count as one unknown word; it is good to know which.

# %%
captions = [scene.captions[0] for scene in scenes]
text_embeddings = model.encode_texts(captions)
print("unknown in 'a zeppelin over a lake':", model.unknown_words("a zeppelin over a lake"))

# %% [markdown]
# ## Retrieval
# `similarity` gives all cosines. `top_k` finds the best of any number in bounded memory.
# `rank_both_ways` tells where the right ones stand; images of equal score stand in random order.

# %%
similarity = model.similarity(image_embeddings, text_embeddings)
scores, rows = top_k(text_embeddings, image_embeddings, k=3)
ranks = rank_both_ways(similarity, image_of_caption=np.arange(len(captions)))["t2i"]
best = ", ".join(f"{row} ({score:.3f})" for row, score in zip(rows[0], scores[0], strict=True))
print(f"{captions[0]!r} finds the images {best}")
among_first = ranks.hit_probability(3).mean()
print(f"the right image is among the first 3 for {among_first:.0%} of the sentences")

# %% [markdown]
# ## What the model sees
# The concept head gives each concept word a probability.

# %%
seen = model.encode_images_with_concepts(images[:1])
strongest = np.argsort(-seen.concepts[0])[:8]
for concept in strongest:
    print(f"{model.concepts.words[concept]:>12} {seen.concepts[0, concept]:.2f}")

# %% [markdown]
# ## A picture of it

# %%
figure = Figure(figsize=(9, 3), layout="constrained")
for place, (axis, row, score) in enumerate(
    zip(figure.subplots(1, 3), rows[0], scores[0], strict=True), 1
):
    axis.imshow(scenes[row].image)
    axis.set_title(f"{place}: {score:.3f}")
    axis.axis("off")
figure.suptitle(captions[0])
figure.savefig(folder / "retrieved.png")
print("saved:", folder / "retrieved.png")
