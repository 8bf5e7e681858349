"""A benchmark from a config to its files, and what is refused before it begins."""

import json
import sys

import pytest
from fake_checkout import DATA, MODEL, write
from linear_towers import dual_encoder
from PIL import Image
from tiny_model import tiny_config

from configs import synthetic
from kamcl_jax.benchmark import against_original, command, roofline, step_parts
from kamcl_jax.benchmark.trials import Budget
from kamcl_jax.config import build
from kamcl_jax.errors import ConfigError, TorchOriginalError

ONCE = Budget(rounds=1, seconds=0)


@pytest.fixture
def small(monkeypatch):
    """Towers and measurements that take no time."""

    def make_model(config, num_tokens, num_concepts):
        return dual_encoder(config.embedding_size, num_concepts)

    monkeypatch.setattr(build, "make_model", make_model)
    monkeypatch.setattr(roofline, "matmul_side", lambda: 64)
    monkeypatch.setattr(roofline, "copied_bytes", lambda: 2**16)


@pytest.fixture
def config(tmp_path):
    config = tiny_config()
    config.mesh.data = 1
    config.data.dir = str(tmp_path / "data")
    return config


def saved(workdir):
    with Image.open(workdir / "report" / "benchmark.png") as picture:
        assert min(picture.size) > 300
    return json.loads((workdir / "report" / "benchmark.json").read_text())


def test_everything_is_timed_and_saved(config, tmp_path, small, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    pytest.importorskip("nltk")
    # The fake original takes any image size.
    monkeypatch.setattr(against_original, "check_sizes", lambda config: None)
    config.num_concepts = 512
    config.data.pad_concepts = True
    config.data.read_threads = 3
    checkout = write(tmp_path / "checkout", {**MODEL, **DATA})
    threads = torch.get_num_threads()
    results = command.run(config, tmp_path / "run", checkout, ONCE, ONCE)
    torch.set_num_threads(threads)
    assert saved(tmp_path / "run") == results
    step = results["step"]
    assert sum(part["seconds"] for part in step["parts"].values()) == pytest.approx(step["seconds"])
    assert set(step["parts"]) == {*step_parts.PARTS, step_parts.REST}
    assert step["images_per_second"] == pytest.approx(config.batch_size / step["seconds"])
    shares = [results["roofline"][f"share_of_{what}"] for what in ("matmul_rate", "copy_rate")]
    assert results["roofline"]["share_of_roofline"] == pytest.approx(max(shares))
    assert results["encoding"]["captions"] == 30
    assert results["input"]["read_threads"] == 3
    assert set(results["ranking"]) == {"1093 x 5465", "the config's test split"}
    rows = {row["what"]: row for row in results["original"]["rows"]}
    assert set(rows) == {
        "training step",
        "input, an image",
        "input and augmentation, an image",
        "encoding a test set",
        "encoding as many images as captions",
        "ranking 1093 x 5465",
    }
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["original_seconds"] / row["our_seconds"])
    assert results["left_out"] == []
    printed = capsys.readouterr().out
    assert "| part of a training step" in printed
    assert "| original / ours" in printed


def test_without_files_the_step_alone_is_timed(config, tmp_path, small, capsys):
    config.data.name = "rsicd"
    config.data.dir = str(tmp_path / "nowhere")
    results = command.run(config, tmp_path / "run", None, ONCE, ONCE)
    assert saved(tmp_path / "run") == results
    assert results["config"]["random_data"]
    assert {"step", "roofline", "ranking"} <= set(results)
    assert not {"encoding", "input", "original"} & set(results)
    (sentence,) = results["left_out"]
    assert sentence.startswith(f"there is no folder {tmp_path / 'nowhere'}: the step runs on ")
    assert sentence in capsys.readouterr().err


def test_what_the_original_cannot_run_is_told_before_anything_runs(config, tmp_path, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        command.run(config, tmp_path / "run", tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith("the PyTorch original cannot run beside this config (")
    for words in (
        "config.image_size is 64, not 256",
        "config.augmentation.resize is 70, not 278",
        "config.text_encoder.hidden_width is 10, not 2400",
    ):
        assert words in sentence
    assert "\n" not in sentence
    assert not (tmp_path / "run").exists()
    config = synthetic.get_config("full")
    against_original.check_sizes(config)
    config.batch_size = 12
    with pytest.raises(ConfigError, match=r"queue_length 8000 is no multiple of .*batch_size 12$"):
        against_original.check_sizes(config)
    monkeypatch.setitem(sys.modules, "torch", None)
    checkout = write(tmp_path / "checkout", MODEL)
    with pytest.raises(TorchOriginalError, match=r"needs PyTorch \(pip install torch\)"):
        command.run(synthetic.get_config("full"), tmp_path / "run", checkout)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"needs 512 concepts and the data have 40: set config\."):
        against_original.check_num_concepts(40)
