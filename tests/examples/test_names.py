"""Every name that an example takes from a module of this project is there."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
OURS = {"kamcl_jax", "input_pipeline", "configs", "examples"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_names_that_an_example_takes_are_there(path):
    tree, taken = ast.parse(path.read_text()), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                taken[alias.asname or alias.name] = getattr(module, alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = taken.get(node.value.id)
            assert not inspect.ismodule(found) or hasattr(found, node.attr), ast.unparse(node)
