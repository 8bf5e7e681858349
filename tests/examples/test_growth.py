"""The growth report on two tiny training steps, and its arithmetic."""

import argparse
import dataclasses
import json
import math
import os

import pytest
from linear_towers import Towers
from PIL import Image
from tiny_model import BATCH, EMBEDDING, IMAGE_SIZE, MAX_TOKENS, QUEUE, WORDS, tiny_config

from examples import growth, growth_report
from kamcl_jax.config import build


@pytest.fixture
def tiny_growth(monkeypatch):
    """The whole path on linear towers and a small queue."""
    monkeypatch.setattr(build, "make_model", lambda *_: Towers())
    monkeypatch.setattr(growth, "VOCABULARY", WORDS)
    monkeypatch.setattr(growth, "SHORT", 0.0)
    monkeypatch.setattr(growth, "narrow_config", tiny_config)
    sizes = growth.Sizes(batch=BATCH, image=IMAGE_SIZE, queue=QUEUE, words=MAX_TOKENS)
    monkeypatch.setattr(growth, "Sizes", lambda: sizes)
    axis = dataclasses.replace(growth.AXES["queue"], sizes=(QUEUE, 4 * QUEUE))
    monkeypatch.setitem(growth.AXES, "queue", axis)


def test_two_points_make_a_table_and_a_picture(tiny_growth, tmp_path):
    out = tmp_path / "new"
    text = growth.sweep(["queue"], out)
    shorter, longer = json.loads((out / "growth.json").read_text())["queue"]
    assert (shorter["size"], longer["size"]) == (QUEUE, 4 * QUEUE)
    keys = 2 * 3 * QUEUE * EMBEDDING * 4  # bytes
    assert longer["memory"] - shorter["memory"] >= keys
    assert longer["flops"] > shorter["flops"] > 0
    assert (out / "growth.md").read_text() == text
    power = math.log(longer["seconds"] / shorter["seconds"], 4)
    assert f"to the power of {power:.2f}." in text
    with Image.open(out / "growth.png") as image:
        assert min(image.size) > 200


def test_axes_that_were_measured_before_stay(tmp_path, monkeypatch):
    points = {1: {"size": 1, "seconds": 2.0, "flops": 1e9, "memory": 1e6}}
    points[2] = {**points[1], "size": 2}
    monkeypatch.setattr(growth, "measure", lambda _, size: points[size])
    for name in ("words", "batch"):
        axis = dataclasses.replace(growth.AXES[name], sizes=(1, 2))
        monkeypatch.setitem(growth.AXES, name, axis)
        text = growth.sweep([name], tmp_path)
    assert 0 < text.index("### Batch") < text.index("### Caption length")


def test_devices_have_a_batch_each(tiny_growth):
    one, two = (growth.measure("devices", size) for size in (1, 2))
    # Each has the cosines of its own queries with the keys of all.
    assert one["flops"] < two["flops"] < 2 * one["flops"]
    assert two["work"] == two["seconds"] * os.cpu_count() / 2


def test_a_ranking_tells_its_memory(monkeypatch):
    monkeypatch.setattr(growth, "EVALUATED_WIDTH", 4)
    point = growth.measure(growth_report.EVALUATION, 20)
    assert point["matrix"] == 4 * 20 * 100
    assert point["peak"] >= point["before"] > 2**20
    assert point["seconds"] > 0


def test_another_process_answers_on_simulated_devices(monkeypatch):
    seen = {}

    def run(command, env, **_):
        seen.update(command=command, env=env)
        return argparse.Namespace(stdout='a note\n{"size": 4, "seconds": 1.5}\n')

    monkeypatch.setattr(growth.subprocess, "run", run)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=folder")
    assert growth.measure_alone("devices", 4) == {"size": 4, "seconds": 1.5}
    assert seen["command"][-1] == "--measure=devices:4"
    flags = seen["env"]["XLA_FLAGS"].split()
    assert flags == ["--xla_dump_to=folder", "--xla_force_host_platform_device_count=4"]
    growth.measure_alone(growth_report.EVALUATION, 1000)
    assert seen["env"]["XLA_FLAGS"] == "--xla_dump_to=folder"
