"""What README.md and the pages in docs/ say of files, tests, flags and fields is so."""

import importlib.util
import json
import re
import subprocess
import sys
from functools import reduce
from importlib import import_module
from operator import getitem
from pathlib import Path

import pytest

from configs import base

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
FOLDERS = "kamcl_jax|input_pipeline|configs|examples|tests|docs"


def fenced(text):
    """The lines of the code blocks; a command that goes on after a backslash is one line."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    return "".join(blocks).replace("\\\n", " ").splitlines()


COMMANDS = sorted(
    {
        line[line.index("main.py") :].split("#")[0].strip(' "')
        for text in TEXTS.values()
        for line in fenced(text)
        if "main.py --mode" in line
    }
)


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", TEXTS[page]):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_named_are_there(page):
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./]*)", TEXTS[page]):
        assert (ROOT / path).exists() or (ROOT / "tests" / path).exists(), path


def test_tests_that_the_page_on_fidelity_names_are_there():
    named = re.findall(r"`([\w/]*/?test_\w+\.py)?(?:::(\w+))?`", TEXTS["docs/fidelity.md"])
    file, names = "", 0
    for path, name in named:
        file = path or file
        if name:
            names += 1
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(), name
    assert names > 20


@pytest.mark.parametrize("page", TEXTS)
def test_names_that_snippets_import_are_there(page):
    imported = re.compile(r" *from ((?:kamcl_jax|input_pipeline|configs)[\w.]*) import (.*)")
    for found in filter(None, map(imported.fullmatch, fenced(TEXTS[page]))):
        for name in found[2].split(", "):
            name = name.split(" as ")[0]
            module = import_module(found[1])
            assert hasattr(module, name) or import_module(f"{found[1]}.{name}")


@pytest.fixture(scope="module")
def flags_of_modes():
    """Mode -> its flags, from a process of its own: examples define flags of the same names."""
    code = """
import json
from kamcl_jax.command_line import MODES
flags = {name: list(mode.takes) for name, mode in MODES.items()}
for name, mode in MODES.items():
    for need in mode.needs:
        flags[name] += [need] if isinstance(need, str) else need
print(json.dumps(flags))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_and_fields_of_a_command_are_there(command, flags_of_modes):
    given = dict(re.findall(r"--([\w.]+)(?:=(\S+))?", command))
    file, _, variant = given.get("config", "").partition(":")
    if file.startswith(("my_", "CONFIG")):
        return  # the reader's own
    config = base.get_config()
    if file:
        spec = importlib.util.spec_from_file_location("config_of_a_command", ROOT / file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
    for name in given:
        if name.startswith("config."):
            reduce(getitem, name.split(".")[1:], config)
    taken = flags_of_modes[given.pop("mode")]
    assert {name.split(".")[0] for name in given} <= set(taken)
