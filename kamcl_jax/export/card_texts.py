"""The sentences of the model card, see `model_card`."""

DATA_SETS = {
    "rsicd": "RSICD (Lu et al. 2017)",
    "rsitmd": "RSITMD (Yuan et al. 2022)",
    "nwpu_captions": "NWPU-Captions (Cheng et al. 2022)",
    "ucm_captions": "UCM-Captions (Qu et al. 2016)",
    "sydney_captions": "Sydney-Captions (Qu et al. 2016)",
    "synthetic": "scenes drawn by a program",
    "caption_folder": "images and captions of the trainer's own",
}

WHAT_IT_IS = """# KAMCL: remote-sensing image-text retrieval

Two encoders, one for aerial and satellite images and one for English sentences, that map both to
unit vectors: the more an image and a sentence say the same, the larger their inner product. Each
encoder also says how probable each of a list of concepts is (`concepts` in `vocabulary.json`). The
method is *Knowledge-Aided Momentum Contrastive Learning* (Ji et al. 2023), in the implementation
*KAMCL in JAX*; trained on {data}, the checkpoint after step {step}.

The program is Apache-2.0. Whoever publishes these weights chooses their licence, with regard to
the terms of the training data, and writes it into `license` above.
"""

WITH_THE_PROGRAM = """## How to use it

With the program on Python's path, in this folder:

```python
import kamcl_jax

model = kamcl_jax.load(".")
images = model.encode_images(["airport.jpg", "harbour.png"])  # files or arrays of any size
texts = model.encode_texts(["two planes are parked next to a terminal"])
print(model.similarity(images, texts))  # cosines, f32[2, 1]
```
"""

CUSTOM_MODULES = """
Not part of the program, and needed on Python's path, too: {modules}.
"""

BY_JAX_ALONE = """
Without the program, by JAX alone (`pip install jax flatbuffers pillow`), on CPU, CUDA or TPU. The
weights are in the `.stablehlo` files, and so is the normalisation of the pixels:

```python
import json

import jax.export
import numpy as np
from PIL import Image


def encoder(path):
    with open(path, "rb") as file:
        return jax.export.deserialize(bytearray(file.read())).call


def pixels(path):
    image = Image.open(path).convert("RGB")
    return np.asarray(image.resize(({size}, {size}), Image.Resampling.BILINEAR))


encode_images = encoder("image_encoder.stablehlo")
images = encode_images(np.stack([pixels("airport.jpg"), pixels("harbour.png")]))

with open("vocabulary.json", encoding="utf-8") as file:
    known = json.load(file)
ids = {{word: number for number, word in enumerate(known["words"], start=1)}}  # 0 is padding
columns = {{word: column for column, word in enumerate(known["concepts"])}}
captions = ["two planes are parked next to a terminal", "a river between fields"]
split = [caption.lower().split(){cut} for caption in captions]
tokens = np.zeros((len(split), max(map(len, split))), np.int32)
named = np.zeros((len(split), len(columns)), np.uint8)
for row, words in enumerate(split):
    tokens[row, : len(words)] = [ids.get(word, ids["<unk>"]) for word in words]
    named[row, [columns[word] for word in words if word in columns]] = 1
encode_texts = encoder("text_encoder.stablehlo")
texts = encode_texts(tokens, named)

print(images["embeddings"] @ texts["embeddings"].T)  # cosines, f32[2, 2]
print(images["concepts"].shape)  # probabilities, f32[2, {concepts}]
```

| file | inputs | outputs |
|---|---|---|
| `image_encoder.stablehlo` | pixels u8[b, {size}, {size}, 3], RGB | `embeddings`, unit vectors, and `concepts`, probabilities |
| `text_encoder.stablehlo` | tokens i32[b, t], t up to {most_tokens}: 1 to {words}, then 0; concepts named u8[b, {concepts}] | the same |

Any b and t will do; each pair of them is compiled once. `split()` is enough for plain words:
punctuation is left out, and abbreviations and apostrophes are split as NLTK's `word_tokenize` does
(`input_pipeline/tokenization.py` of the program).{first}{forms}{padding}
"""  # noqa: E501 - a table's row is a line

FIRST_TOKENS = """ In the training, captions were cut to
{max_tokens} tokens. The lines above cut yours (`[:{max_tokens}]`) before they look up tokens and
concepts; wider arrays of tokens are refused."""

LEMMAS = """ A word names a concept by its lemma, as `simplemma` finds
it (`config.concepts.lemmatize`), which the lines above leave out."""

RELEASE_PADDING = """ The model was trained with
`caption_padding='release'`: a caption's embedding depends on the longest one of its batch."""

RESULTS = """## Results
"""

NO_RESULTS = """\
There is no report of these weights (step {step}): how good they are is not known here.
`--mode=evaluate` of the program scores a run."""

CHOSEN = ", chosen by validation mR"

SCORES = """\
Recalls in percent on the test split, of the weights after epoch {epoch:.3g}{chosen}. mR is
the mean of the six recalls; the rank of an image is that of the best of its captions. They are
those of the training run's own report.

{scores}

95 % intervals, from {resamples} resamples of the test images with their captions. They say how
much a score hangs on which images were tested, not how much another training would change it.

{intervals}"""

TRAINING = """
## Training

`config.json` has the whole config, but for paths, and the versions of the packages that wrote it.
"""

DATA = """
## Data
"""

OF_DATA = """\
Trained and tested on {data} (`{name}`). The vocabulary has {words} words, the list of concepts
{concepts}.

{counts}"""

UNKNOWN_SIZES = """\
How many images and captions there were was not looked up for this card; an export with `--split`
does so."""

_LIMITS = """
## Limits and biases

* It knows what its training images show. Other places, sensors, resolutions, seasons and looking
  angles than theirs were not tested.
* Images are resized to {size} x {size} pixels, whatever their shape: small objects in large images
  vanish.
* It reads English captions of the kind it was trained with. All words that it does not know count
  as one and the same. How well it tells apart numbers, colours, places (left, right) and negations
  was not tested.
* A score orders images for a sentence; it is no probability that the sentence is true. The best of
  any set of images is found even if none fits.
* The concepts are words that the captions' writers repeated: their habits and blind spots are the
  model's.
* The scores above were measured on one test split, from the same source as the training images;
  equal captions of different images make some queries impossible to get right.
* Not tested for any decision that touches people, such as surveillance, disaster response or
  insurance. Try it on your own images first."""

_CUT = """
* It reads the first {max_tokens} tokens (words and punctuation marks) of a sentence, as it was
  trained to. What comes after them does not count."""

_DRAWN = """
* The training images are drawn by a program. On photographs it is of no use."""

CITATION = """
## Citation

```bibtex
@article{ji2023kamcl,
  title   = {Knowledge-Aided Momentum Contrastive Learning for Remote-Sensing Image Text Retrieval},
  author  = {Ji, Zhong and Meng, Changxu and Zhang, Yan and Pang, Yanwei and Li, Xuelong},
  journal = {IEEE Transactions on Geoscience and Remote Sensing},
  year    = {2023},
  doi     = {10.1109/TGRS.2023.3332317}
}
```
"""


def limits(data_name: str, image_size: int, max_tokens: int) -> str:
    """Returns what the model cannot do.

    Args:
      data_name: of the config.
      image_size: pixels a side.
      max_tokens: that captions are cut to; 0 if they are not.
    """
    text = _LIMITS.format(size=image_size)
    if max_tokens:
        text += _CUT.format(max_tokens=max_tokens)
    return text + _DRAWN if data_name == "synthetic" else text
