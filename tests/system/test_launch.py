"""Processes that the kit launches find what this one finds, whatever the working directory holds."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from yolo_attn.study import jobs, worker
from yolo_attn.system import launch

# Each is imported by the kit, by a host, or by what launches a module; a user's folder may hold a file of that name.
HOSTILE = ("random", "torch", "yolo_attn", "runpy", "importlib", "tempfile", "json", "numpy")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules of those names, each of which says that it was run."""
    for name in HOSTILE:
        text = f"open({str(tmp_path / 'run')!r}, 'a').write({name!r})\nraise SystemExit('{name}: of the working directory')\n"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_module_is_found_where_this_process_finds_it(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is before the installed packages here is before them there."""
    first = hostile / "first"
    first.mkdir()
    (first / "which_one.py").write_text("import random, json, sys; print(json.dumps([sys.path, sys.argv]))\n", encoding="utf-8")
    (hostile / "which_one.py").write_text("raise SystemExit('of the working directory')\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(first), *(p for p in sys.path if p), None])
    for home, more in (("/here/site-packages", []), ("/here", ["/here"])):  # nothing that other versions of Python cannot read
        with monkeypatch.context() as m:
            m.setattr(launch, "HOME", home)
            assert launch.environment({"PYTHONPATH": "kept"})["PYTHONPATH"].split(os.pathsep) == ["kept", *more]
    done = subprocess.run(launch.command("which_one", "-c", "a b"), env=launch.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path, argv = json.loads(done.stdout)
    assert list(dict.fromkeys(path))[: len(sys.path) - 1] == list(dict.fromkeys(map(os.path.abspath, sys.path[:-1])))
    assert argv == [str(first / "which_one.py"), "-c", "a b"] and str(hostile) not in path and not (hostile / "run").exists()


def test_a_folder_that_this_process_searches_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's working directory is on its path, as an empty entry, and plug-ins are imported from there."""
    (tmp_path / "beside_me.py").write_text("print('found')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    done = subprocess.run(launch.command("beside_me"), env=launch.environment(), cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "found", done.stderr


def test_the_worker_of_a_study(hostile: Path) -> None:
    """It begins, and fails for want of a data set alone."""
    folder = hostile / "runs" / "one"
    folder.mkdir(parents=True)
    task = {"folder": str(folder), "argv": ["--data", "none.yaml"], "data": "none.yaml"}
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    with jobs.launched([*jobs.COMMAND, str(folder / "task.json")], hostile / "log.txt") as child:
        assert child.wait(60) == worker.FAILED
    assert "none.yaml" in json.loads((folder / worker.TROUBLE).read_text(encoding="utf-8"))["reason"]
    assert not (hostile / "run").exists(), (hostile / "log.txt").read_text(encoding="utf-8")


def test_the_checks_of_a_module_and_a_classic_script(hostile: Path) -> None:
    """As from the console script, whose path has no working directory on it; the script's own folder comes first there."""
    home = hostile / "home"
    home.mkdir()
    (home / "script.py").write_text("import random, sys; print(sys.path[0], random.random() < 1)\n", encoding="utf-8")
    code = """
    import sys
    from yolo_attn.cli import main
    from yolo_attn.training.classic import _kit
    del sys.path[0]
    print(main(["check", "SE", "--only", "constructor"]), flush=True)
    print(_kit(["run", sys.argv[1]]), flush=True)
    """
    (home / "code.py").write_text("\n".join(line.strip() for line in code.splitlines()), encoding="utf-8")
    done = subprocess.run([sys.executable, str(home / "code.py"), str(home / "script.py")], capture_output=True, text=True, check=False)
    assert "constructor" in done.stdout and f"{home} True\n0" in done.stdout, done.stdout + done.stderr
    assert not (hostile / "run").exists(), (hostile / "run").read_text(encoding="utf-8")


def test_nothing_else_launches_python() -> None:
    """One place knows how; messages may name the interpreter."""
    may = {"system/launch.py", "study/jobs.py", "commands/env.py", "export/formats/launched.py"}  # the second passes its words on
    for file in (ROOT / "yolo_attn").rglob("*.py"):
        names = {ast.unparse(n) for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute)}
        if "sys.executable" in names:
            assert file.relative_to(ROOT / "yolo_attn").as_posix() in may, file
