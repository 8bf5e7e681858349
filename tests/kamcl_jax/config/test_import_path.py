import re
import sys

import pytest

from kamcl_jax.config.plugins import import_named, refuse_code_inside
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.towers import ImageEncoder


def test_a_path_names_what_is_in_a_module():
    path = "kamcl_jax.models.towers:ImageEncoder"
    assert import_named(path, "field") is ImageEncoder
    assert import_named(f"{path}.clone", "field") is ImageEncoder.clone


def test_modules_are_found_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "found_here.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert import_named("found_here:answer", "field") == 42


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("kamcl_jax", "config.x is 'kamcl_jax'; it must be 'package.module:Name'"),
        (":Name", "config.x is ':Name'; it must be 'package.module:Name'"),
        (
            "no_such.module:Name",
            "config.x is 'no_such.module:Name', which cannot be imported: "
            "ModuleNotFoundError: No module named 'no_such'",
        ),
        (
            "kamcl_jax.step.losses:nothing",
            "cannot be imported: AttributeError: module 'kamcl_jax.step.losses' has no attribute",
        ),
        ("fails_when_imported:Name", "cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_in_one_sentence(
    path, sentence, tmp_path, monkeypatch
):
    (tmp_path / "fails_when_imported.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        import_named(path, "config.x")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "working_directory"),
    [
        ("brought:Name", "model"),
        ("package.module:Name", "model"),
        ("namespace.module:Name", "model"),
        ("model.brought:Name", "."),
    ],
)
def test_code_that_lies_in_a_folder_is_refused_and_not_run(
    path, working_directory, tmp_path, monkeypatch
):
    model = tmp_path / "model"
    for name in ("brought.py", "package/__init__.py", "package/module.py", "namespace/module.py"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("raise SystemExit('it was run')\n")
    monkeypatch.chdir(tmp_path / working_directory)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigError, match=f"field is '{path}', which lies in .*model itself"):
        refuse_code_inside(model, path, "field")


def test_code_beside_a_folder_is_not_of_it(tmp_path, monkeypatch):
    (tmp_path / "beside_it.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for path in (
        "beside_it:Name",
        "kamcl_jax.step.losses:info_nce",
        "json:loads",
        "sys:path",
        "no",
        "",
    ):
        refuse_code_inside(tmp_path / "model", path, "field")
