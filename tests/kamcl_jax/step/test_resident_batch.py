"""Training data on the devices: the same batches, and nothing is sent but numbers."""

import re

import jax
import numpy as np
import pytest
from tiny_model import BATCH, CONCEPTS, IMAGE_SIZE, MAX_TOKENS, WORDS

from input_pipeline.splits import batches
from input_pipeline.splits.examples import Examples
from kamcl_jax.parallel import compilation, mesh
from kamcl_jax.step import resident_batch

IMAGES, CAPTIONS, SIDE = 13, 40, IMAGE_SIZE + 3

COLUMNS = {"number": np.arange(CAPTIONS, dtype=np.int32), "is_odd": np.arange(CAPTIONS) % 2 == 1}


class CountedRows:
    """Images that remember how many were read at once."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        rows = self.array[index]
        self.most = max(self.most, len(rows))
        return rows


@pytest.fixture(scope="module")
def examples():
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, MAX_TOKENS + 1, CAPTIONS).astype(np.int32)
    tokens = generator.integers(1, WORDS, (CAPTIONS, MAX_TOKENS)).astype(np.int32)
    tokens[np.arange(MAX_TOKENS) >= lengths[:, None]] = 0
    return Examples(
        images=CountedRows(generator.integers(0, 256, (IMAGES, SIDE, SIDE, 3)).astype(np.uint8)),
        image_ids=np.arange(IMAGES),
        file_names=[""] * IMAGES,
        captions=[""] * CAPTIONS,
        image_of_caption=generator.integers(0, IMAGES, CAPTIONS).astype(np.int32),
        tokens=tokens,
        lengths=lengths,
        word_concepts=(generator.random((CAPTIONS, CONCEPTS)) < 0.2).astype(np.uint8),
        image_concepts=generator.random((IMAGES, CONCEPTS)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def all_devices():
    return mesh.replicated(mesh.make_mesh())


def captions_of(step):
    return np.random.default_rng(step).choice(CAPTIONS, BATCH).astype(np.int32)


def test_a_batch_is_the_one_that_the_host_reads(examples, one_device):
    tables = resident_batch.load(examples, one_device)
    captions = captions_of(0)
    found = jax.jit(resident_batch.gather)(tables, captions)
    expected = batches.make_batch(examples, captions)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("rows", [1, 5, IMAGES, 3 * IMAGES])
def test_images_come_in_chunks_to_every_device(examples, all_devices, rows):
    examples.images.most = 0
    images = resident_batch.load(examples, all_devices, chunk_bytes=rows * SIDE**2 * 3 + 1).images
    assert examples.images.most == min(rows, IMAGES)
    assert len(images.addressable_shards) == 8
    for shard in images.addressable_shards:
        np.testing.assert_array_equal(shard.data, examples.images.array)


def test_the_size_is_that_of_what_is_loaded(examples, all_devices):
    for columns in ({}, COLUMNS):
        tables = resident_batch.load(examples, all_devices, columns=columns)
        held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tables))
        assert resident_batch.table_bytes(examples, columns) == held


def test_each_device_looks_up_its_own_rows_and_nothing_is_sent(examples, all_devices):
    tables = resident_batch.load(examples, all_devices, columns=COLUMNS)
    look_up = resident_batch.make_look_up(all_devices)
    captions = captions_of(0)
    program = look_up.lower(tables, mesh.put_batch(all_devices, captions)).compile().as_text()
    assert not compilation.collectives(program)
    # Besides the table, images come in eighths of a batch only.
    held = {int(n) for n in re.findall(rf"u8\[(\d+),{SIDE},{SIDE},3\]", program)}
    assert held <= {IMAGES, BATCH // 8}
    found = look_up(tables, mesh.put_batch(all_devices, captions))
    expected = batches.make_batch(examples, captions, COLUMNS)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].sharding.is_equivalent_to(all_devices.batch, array.ndim)
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    np.testing.assert_array_equal(tables.images, examples.images.array)  # they are not donated
