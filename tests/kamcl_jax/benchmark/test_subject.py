from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import tiny_config

from kamcl_jax.benchmark import input_and_retrieval, subject
from kamcl_jax.config import build


@pytest.mark.parametrize(("masks", "longest"), [(False, 0), (True, 4)])
def test_a_random_batch_has_the_shapes_of_a_training_batch(masks, longest):
    config = tiny_config()
    config.loss.mask_false_negatives = config.augmentation.flips = masks
    config.data.max_tokens = longest  # 0: uncut
    batch = subject.random_batch(config)
    shapes = build.abstract_batch(config, longest or subject.MAX_TOKENS, config.num_concepts)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        name: (x.shape, x.dtype) for name, x in shapes.items()
    }
    assert ((batch["tokens"] > 0).sum(1) == batch["lengths"]).all()
    assert batch["tokens"].max() <= subject.WORDS


@pytest.mark.parametrize(
    ("preset", "tokens"),
    [("ViT-B-32", 34), ("ViT-B-16-SigLIP", 64), ("ViT-SO400M-14-SigLIP", 16)],
)
def test_a_random_caption_is_no_longer_than_a_published_model_reads(preset, tokens):
    config = tiny_config()
    config.encoders.preset = preset
    batch = subject.random_batch(config)
    assert batch["tokens"].shape[1] == tokens
    assert batch["lengths"].max() <= tokens


def split_of(lengths, images):
    count = len(lengths)
    return SimpleNamespace(
        captions=["text"] * count,
        image_of_caption=np.repeat(np.arange(images), count // images),
        images=np.zeros((images, 2, 2, 3), np.uint8),
        tokens=np.ones((count, 9), np.int32),
        lengths=np.array(lengths, np.int32),
        word_concepts=np.zeros((count, 3), np.uint8),
        image_concepts=np.zeros((images, 3), np.float32),
    )


def test_the_batch_is_one_whose_longest_caption_is_as_usual():
    # One caption a batch: the median of the lengths, whatever their order.
    assert subject.typical_batch(split_of([9, 2, 3, 8, 4], 5), seed=0, batch_size=1)["lengths"] == 4


def test_a_split_is_cut_behind_an_image():
    examples = split_of([1] * 12, images=4)
    for captions, images in ((2, 1), (3, 1), (6, 2), (8, 2), (100, 4)):
        sample = input_and_retrieval.first_captions(examples, captions, batch_size=5)
        assert len(sample.images) == images
        assert sample.captions == 3 * images
        assert sample.image_of_caption.max() == images - 1
