import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_model import tiny_config

from kamcl_jax.config import checks, fields
from kamcl_jax.errors import ConfigError
from kamcl_jax.runs import record


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("batch_size", 0, r"config.batch_size is 0; it must be a whole number of at least 1"),
        ("queue_length", 7, r"config.queue_length 7 is smaller than config.batch_size 8"),
        ("dtype", "float16", r"config.dtype is 'float16'; it must be one of 'float32', 'bfloat16'"),
        ("not_finite", "ignore", r"config.not_finite is 'ignore'"),
        ("mesh.data", 0, r"config.mesh.data is 0; it must be a whole number of at least 1, or -1"),
        ("mesh.queue", "split", r"config.mesh.queue is 'split'"),
        (
            "gradient_accumulation",
            0,
            r"config.gradient_accumulation is 0; it must be a whole number of at least 1",
        ),
        ("temperature", 0.0, r"config.temperature is 0.0; it must be a number above 0"),
        ("temperature", float("nan"), r"config.temperature is nan"),
        ("momentum", 1.0, r"config.momentum is 1.0; it must be at least 0 and below 1"),
        (
            "image_encoder.depth",
            19,
            r"config.image_encoder.depth is 19; it must be one of 18, 34, ",
        ),
        (
            "augmentation.resize",
            16,
            r"config.augmentation.resize 16 is smaller than config.image_size",
        ),
        (
            "image_encoder.pooling_kernel",
            "triton",
            r"config.image_encoder.pooling_kernel is 'triton'; it must be one of 'auto', ",
        ),
        ("data.vocabulary_from", "test", r"config.data.vocabulary_from is 'test'"),
        ("data.residency", "gpu", r"config.data.residency is 'gpu'; it must be one of 'auto', "),
        ("data.read_threads", -1, r"config.data.read_threads is -1; it must be a whole number of"),
        ("data.read_threads", True, r"config.data.read_threads is True; it must be a whole number"),
        ("data.read_threads", 9999, r"config.data.read_threads is 9999; .* and below 1025"),
    ],
)
def test_a_mistake_is_named_with_its_field_and_value(field, value, sentence):
    config = tiny_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=sentence):
        checks.check_config(config)


def test_the_releases_padding_needs_the_whole_batch():
    config = tiny_config()
    config.caption_padding = "release"
    checks.check_config(config)
    config.gradient_accumulation = 2
    with pytest.raises(ConfigError, match=r"caption_padding='release' do not go together"):
        checks.check_config(config)


def test_key_encoders_that_hardly_move_are_not_evaluated():
    config = tiny_config()
    config.evaluation.encoders = "key"
    checks.check_config(config)
    config.momentum_coverage = "release"
    with pytest.raises(ConfigError, match=r"evaluation.encoders='key' and .*'release' do not go"):
        checks.check_config(config)


def test_with_the_releases_padding_scores_need_the_same_batches():
    config = tiny_config()
    trained = fields.flatten(config)
    config.evaluation.batch_size = 7
    fields.check_against_checkpoint(config, trained)
    config.caption_padding = "release"
    trained["caption_padding"] = "release"
    with pytest.raises(ConfigError, match=r"config.evaluation.batch_size: 100 in the .*, 7 now"):
        fields.check_against_checkpoint(config, trained)


def test_a_checkpoint_of_before_a_field_was_trained_with_its_default():
    config = tiny_config()
    trained = fields.flatten(config)
    del trained["dtype"]
    fields.check_against_checkpoint(config, trained)
    config.dtype = "bfloat16"
    with pytest.raises(ConfigError, match=r"config.dtype: float32 in the checkpoint, bfloat16 now"):
        fields.check_against_checkpoint(config, trained)


def test_devices_must_share_a_batch_evenly():
    config = tiny_config()
    checks.check_division(config, num_devices=4)
    with pytest.raises(ConfigError, match=r"batch_size 8 is not a multiple of the 3 devices"):
        checks.check_division(config, num_devices=3)
    config.gradient_accumulation = 4
    with pytest.raises(ConfigError, match=r"multiple of the 4 devices .* in 4 microbatches"):
        checks.check_division(config, num_devices=4)


def test_devices_must_share_a_sharded_queue_evenly():
    config = tiny_config()
    config.queue_length = 18
    checks.check_division(config, num_devices=4)
    config.mesh.queue = "sharded"
    with pytest.raises(ConfigError, match=r"queue_length 18 is not a multiple of the 4 devices"):
        checks.check_division(config, num_devices=4)


def test_the_kernels_are_for_gpus():
    def device(platform, capability=""):
        return SimpleNamespace(
            platform=platform, compute_capability=capability, device_kind=f"{platform} X"
        )

    config = tiny_config()
    checks.check_kernel(config, device("cpu"))
    config.image_encoder.pooling_kernel = "pallas"
    checks.check_kernel(config, device("gpu", "8.0"))
    for other in (device("cpu"), device("tpu"), device("gpu", "7.5")):
        sentence = rf"pooling_kernel='pallas' runs on GPUs .* of the kind '{other.device_kind}'"
        with pytest.raises(ConfigError, match=sentence):
            checks.check_kernel(config, other)


def test_a_batch_must_fit_into_the_training_split():
    with pytest.raises(ConfigError, match=r"batch_size 8 is larger than the training split of 7"):
        checks.check_against_data(tiny_config(), num_captions=7)


def test_a_run_goes_on_with_its_own_config_only():
    config = tiny_config()
    trained = fields.flatten(config)
    config.num_epochs = 99
    config.data.residency = "device"
    fields.check_against_checkpoint(config, trained)
    config.momentum = 0.5
    config.image_encoder.width = 5
    with pytest.raises(
        ConfigError,
        match=r"config.image_encoder.width: 4 in the checkpoint, 5 now; "
        r"config.momentum: 0.99 in the checkpoint, 0.5 now",
    ):
        fields.check_against_checkpoint(config, trained)


def test_options_may_be_tuples_which_a_checkpoint_has_as_lists():
    config = tiny_config()
    config.image_encoder.options.widths = (5, (6, 7))
    trained = json.loads(json.dumps(fields.flatten(config)))
    fields.check_against_checkpoint(config, trained)
    again = record.config_of({"config": trained})
    assert again.image_encoder.options.widths == [5, [6, 7]]
    fields.check_against_checkpoint(again, trained)
    config.image_encoder.options.widths = (5, (6, 8))
    with pytest.raises(ConfigError, match=r"config.image_encoder.options.widths"):
        fields.check_against_checkpoint(config, trained)


def test_the_docs_page_has_the_table():
    page = Path(__file__).resolve().parents[3] / "docs" / "config.md"
    assert fields.markdown_table() in page.read_text()


def test_every_default_keeps_its_rule_and_is_described():
    fields.check_fields(fields.default_config())
    for name, field in fields.FIELDS.items():
        assert field.about.endswith((".", "...")), name
