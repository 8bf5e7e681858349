"""A tiny trained model, and an index of a few drawn images that it has made."""

import jax
import numpy as np
import pytest
from conftest import CONCEPTS, WORDS, tiny_config
from PIL import Image

from input_pipeline.vocabulary import UNKNOWN
from kamcl_jax import trained_model
from kamcl_jax.search import image_index, indexing

VOCABULARY = ["harbour", "plane", "pond", "silo", "road", "field", "barn", "roof", "river"]
IMAGES = 12


def noise(seed, height=40, width=50):
    """A picture of coarse noise, as different from others as a random model can tell."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def fill(folder, count=IMAGES):
    """Writes images into a folder and one in it."""
    (folder / "more").mkdir(parents=True)
    for number in range(count):
        name = f"more/{number:02}.png" if number % 2 else f"{number:02}.png"
        noise(number).save(folder / name)


@pytest.fixture(scope="session")
def tiny_model(tiny) -> trained_model.TrainedModel:
    """The tiny model with random weights, and words that tests can name."""
    config = tiny_config()
    config.evaluation.batch_size = 8
    words = [*VOCABULARY, *(f"word{number}" for number in range(WORDS - 2 - len(VOCABULARY)))]
    concepts = [*VOCABULARY, *(f"concept{number}" for number in range(CONCEPTS - len(VOCABULARY)))]
    state = jax.device_get(tiny.state())
    return trained_model.assemble(
        step=7,
        config=config,
        words=trained_model.Words([*words, UNKNOWN], concepts, CONCEPTS),
        variables={"params": state.params, "batch_stats": state.batch_stats},
    )


@pytest.fixture(scope="session")
def plain_model(tiny_model) -> trained_model.TrainedModel:
    """A model of custom encoders, which have options, with random weights."""
    fields = {
        "image_encoder.module": "plain_encoders:Colours",
        "image_encoder.options.contrast": 1.0,
        "text_encoder.module": "plain_encoders:Words",
        "text_encoder.options.weight_of_concepts": 1.0,
    }
    like = trained_model.abstract_variables(changed_config(tiny_model, fields), tiny_model.words)
    generator = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype("f4"), like)
    return changed(tiny_model, fields, variables)


def changed_config(model, fields):
    """The config of a model with some fields changed."""
    config = model.config.copy_and_resolve_references()
    with config.unlocked():
        for name, value in fields.items():
            *groups, field = name.split(".")
            group = config
            for one in groups:
                group = group[one]
            group[field] = value
    return config


def changed(model, fields, variables=None):
    """A model with some fields of its config changed, and by default the same weights."""
    config = changed_config(model, fields)
    return trained_model.assemble(model.step, config, model.words, variables or model.variables)


@pytest.fixture(scope="session")
def tiny_index(tiny_model, tmp_path_factory) -> image_index.ImageIndex:
    """An index of `IMAGES` images; whoever changes its files copies them first."""
    folder = tmp_path_factory.mktemp("index")
    fill(folder / "images")
    indexing.index_images(tiny_model, folder / "images", folder / "index")
    return image_index.open_index(folder / "index")
