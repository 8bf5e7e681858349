"""The code of docs/extending.md is what the program takes."""

import re
from pathlib import Path

import pytest
from tiny_model import tiny_config

from kamcl_jax.config import plugins

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()


def block_with(words):
    (found,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, re.S) if words in code)
    return found


def test_its_encoder_is_one(tmp_path, monkeypatch):
    (tmp_path / "encoder_of_the_page.py").write_text(block_with("class MyEncoder"))
    monkeypatch.syspath_prepend(tmp_path)
    config = tiny_config()
    config.image_encoder.module = "encoder_of_the_page:MyEncoder"
    config.image_encoder.options.width = 8
    plugins.check_encoders(config, None)


def test_its_config_is_accepted():
    names = {}
    exec(block_with("def get_config"), names)
    plugins.check_encoders(names["get_config"](), None)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((\.\./[^)]*)\)", PAGE))))
def test_its_links_lead_somewhere(link):
    assert (ROOT / "docs" / link).is_file()


def test_it_counts_the_lines_of_the_vision_transformer():
    lines = (ROOT / "examples" / "vision_transformer.py").read_text().splitlines()
    assert f"a vision transformer in {len(lines)} lines" in PAGE
