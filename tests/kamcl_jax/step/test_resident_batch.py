"""Training data on the devices: the same batches, the same step, and nothing sent but numbers."""

import math
import re

import jax
import numpy as np
import pytest
from linear_towers import Towers, create_state
from tiny_model import BATCH, CONCEPTS, IMAGE_SIZE, MAX_TOKENS, WORDS

from input_pipeline.splits import batches
from input_pipeline.splits.examples import Examples
from kamcl_jax.parallel import compilation, mesh
from kamcl_jax.step import resident_batch
from kamcl_jax.step.resident_batch import CaptionNumbers
from kamcl_jax.step.train_step import make_train_step

IMAGES, CAPTIONS, SIDE = 13, 40, IMAGE_SIZE + 3


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


def test_the_shapes_are_those_of_what_is_loaded(examples, all_devices):
    abstract = resident_batch.abstract(examples, BATCH, all_devices).examples
    tables = resident_batch.load(examples, all_devices)
    said, held = (
        jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree) for tree in (abstract, tables)
    )
    assert said == held
    first = [table.addressable_shards[0].data for table in jax.tree.leaves(tables)]
    assert resident_batch.size_of(abstract) == sum(table.nbytes for table in first)


def numbers_of(layout, tables, step):
    return CaptionNumbers(tables, mesh.put_batch(layout, captions_of(step)))


def test_the_step_on_one_device_is_bit_for_bit_that_of_the_host(
    examples, tiny, tiny_step, one_device
):
    step = make_train_step(tiny.model, tiny.optimizer, tiny.settings, one_device, resident=True)
    tables = resident_batch.load(examples, one_device)
    host, resident = (jax.device_put(tiny.state(), one_device.whole) for _ in range(2))
    for number in range(3):
        batch = batches.make_batch(examples, captions_of(number))
        host, expected = tiny_step(host, mesh.put_batch(one_device, batch))
        resident, measured = step(resident, numbers_of(one_device, tables, number))
        jax.tree.map(np.testing.assert_array_equal, (resident, measured), (host, expected))
    # The tables are not donated.
    np.testing.assert_array_equal(tables.images, examples.images.array)


@pytest.fixture(scope="module")
def on_all_devices(examples, tiny, all_devices):
    step = make_train_step(Towers(), tiny.optimizer, tiny.settings, all_devices, resident=True)
    abstract = resident_batch.abstract(examples, BATCH, all_devices)
    state = jax.eval_shape(lambda: create_state(tiny.optimizer))
    return compilation.compile_step(step, state, abstract, all_devices)


def test_each_device_looks_up_its_own_rows(on_all_devices):
    program = on_all_devices.as_text()
    sent = compilation.collectives(program)
    assert sent  # gradients
    assert max(math.prod(one.shape) for one in sent if one.kind != "all-reduce") < SIDE**2
    assert not [one for one in sent if one.dtype == "u8"]
    # Besides the table, images come in eighths of a batch only.
    held = {int(n) for n in re.findall(rf"u8\[(\d+),{SIDE},{SIDE},3\]", program)}
    assert held <= {IMAGES, BATCH // 8}


def test_the_tables_count_as_memory_of_the_step(on_all_devices, examples, tiny, all_devices):
    taken = compilation.memory(on_all_devices)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(create_state(tiny.optimizer)))
    tables = resident_batch.size_of(resident_batch.abstract(examples, BATCH, all_devices).examples)
    assert taken.arguments == pytest.approx(state + tables + 4 * BATCH / 8, rel=0.01)
    assert taken.reused == pytest.approx(state, rel=0.01)


def test_eight_devices_compute_what_the_host_has_them_do(
    on_all_devices, examples, tiny, all_devices
):
    step = make_train_step(Towers(), tiny.optimizer, tiny.settings, all_devices)
    tables = resident_batch.load(examples, all_devices)
    states = [jax.device_put(create_state(tiny.optimizer), all_devices.whole) for _ in range(2)]
    for number in range(3):
        batch = mesh.put_batch(all_devices, batches.make_batch(examples, captions_of(number)))
        states[0], expected = step(states[0], batch)
        states[1], measured = on_all_devices(states[1], numbers_of(all_devices, tables, number))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), measured, expected
        )
