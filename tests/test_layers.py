"""A folder imports only folders below it: the order that lets you read the code from either end."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LAYERS = [
    ["main", "kamcl_jax.__main__"],
    ["kamcl_jax.command_line"],
    ["kamcl_jax.flag_parsing"],
    ["kamcl_jax.serving"],
    ["kamcl_jax.search"],
    ["kamcl_jax.benchmark"],
    ["kamcl_jax.torch_release"],
    ["kamcl_jax.__init__"],
    ["kamcl_jax.export"],
    ["kamcl_jax.train"],
    ["kamcl_jax.evaluate"],
    ["kamcl_jax.inference"],
    ["kamcl_jax.runs"],
    ["configs"],
    ["kamcl_jax.config"],
    ["kamcl_jax.weights"],
    ["kamcl_jax.step"],
    ["kamcl_jax.parallel"],
    ["kamcl_jax.ranking", "kamcl_jax.models"],
    ["kamcl_jax.errors"],
    ["input_pipeline.splits", "input_pipeline.__init__"],
    ["input_pipeline.datasets"],
    ["input_pipeline.images", "input_pipeline.caption_files", "input_pipeline.language"],
    ["input_pipeline.storage"],
    ["input_pipeline.errors"],
]
PLACES = {name: place for place, layer in enumerate(LAYERS) for name in layer}
PURE = ("kamcl_jax.step", "kamcl_jax.models", "kamcl_jax.ranking")
"""Here nothing touches a disk, a config or the output."""


def layer_of(module):
    """Returns a module's layer; a package by itself counts as its `__init__`."""
    names = module.split(".")
    found = [name for name in (".".join(names[:2]), names[0]) if name in PLACES]
    return found[0] if found else f"{names[0]}.__init__"


def imports(path):
    """Yields what a file imports of this project, and everything else by its first name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module in ("kamcl_jax", "input_pipeline")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if inside else [node.module]


def files():
    folders = [ROOT / name for name in ("kamcl_jax", "input_pipeline", "configs")]
    return [ROOT / "main.py", *(path for folder in folders for path in folder.rglob("*.py"))]


def test_a_folder_imports_only_folders_below_it():
    wrong = []
    for path in files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in imports(path):
            if name.split(".")[0] not in ("kamcl_jax", "input_pipeline", "configs"):
                continue
            here, there = layer_of(module), layer_of(name)
            if here != there and PLACES[here] >= PLACES[there]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_the_mathematics_knows_no_disk_no_config_and_no_output():
    for path in files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if layer_of(module) in PURE:
            known = {name.split(".")[0] for name in imports(path)}
            assert not known & {"ml_collections", "absl", "os", "sys", "orbax"}, module
            assert "print(" not in path.read_text(), module
