"""ruff and mypy are clean with the settings in pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("command", ["ruff check --no-cache .", "mypy"])
def test_clean(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_shipped() -> None:
    """Folders are listed by hand, because two of them are mapped into the package: none may be forgotten."""
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert listed is not None
    folders = {p.parent.relative_to(ROOT).as_posix() for p in (ROOT / "yolo_attn").rglob("__init__.py")}
    folders |= {f"yolo_attn/{name}" for name in ("patches", "model_cfgs")}
    assert set(re.findall(r'"([\w.]+)"', listed.group(1))) == {f.replace("/", ".") for f in folders}


def test_tests_join_paths_for_every_system() -> None:
    """`;` stands between the folders of a path on Windows."""
    files = [f for f in (ROOT / "tests").rglob("*.py") if ".hosts" not in f.parts]
    joined = re.compile(r"PATH\W.*\}:(?:\{|\$)|PATH.*[\"']:[\"']\.join")
    found = [f.name for f in files if f.name != "test_lint.py" and joined.search(f.read_text(encoding="utf-8"))]
    assert len(files) > 20 and not found
