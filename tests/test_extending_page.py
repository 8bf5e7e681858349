"""The modules that docs/extending.md tells a reader to save do what the page says."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from kamcl_jax.config import build

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
MODULES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(), re.S))


@pytest.fixture(autouse=True)
def saved(tmp_path, monkeypatch):
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)


def test_the_page_has_an_encoder_terms_and_a_config():
    assert list(MODULES) == ["my_encoder", "my_terms", "my_config"]


def test_its_config_is_accepted_with_its_encoder_and_its_terms():
    config = import_module("my_config").get_config()
    assert config.image_encoder.module == "my_encoder:MyEncoder"
    config.mesh.data = 1
    build.check_with_devices(config)


def test_its_terms_take_what_the_table_lists_and_are_zero_where_they_should_be():
    terms = import_module("my_config").get_config().loss.extra_terms
    listed = set(re.findall(r"^\| `(\w+)` \| ", PAGE.read_text(), re.M))
    same = SimpleNamespace(image=jnp.eye(4), text=jnp.eye(4))
    given = {"queries": same, "cosine": 100 * jnp.eye(4)}
    for term in terms.values():
        module, name = term.function.split(":")
        function = getattr(import_module(module), name)
        needed = inspect.signature(function).parameters
        assert set(needed) <= listed
        value = function(**{parameter: given[parameter] for parameter in needed})
        assert value.shape == ()
        assert abs(value) < 1e-6
