"""Attention that users bring: by YAML, by --plugin, by environment, by entry point; its whole life in fresh processes."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import ROOT, Run, run_python

from yolo_attn.model_yaml import find
from yolo_attn.registry import memory
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes

GATE = '''
"""A gate of my own."""
import torch
from torch import nn


class MyAttn(nn.Module):
    """One weight a channel."""

    def __init__(self, channels, power=1):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.power = power

    def forward(self, x):
        return x * (2 * torch.sigmoid(self.weight)) ** self.power
'''
REGISTER = "register:\n  {name}: {spec}\n"


def model_yaml(folder: Path, name: str = "MyAttn", spec: str = "my_attn.py:MyAttn", args: str = "[]") -> Path:
    """A YOLOv5n with the user's attention behind the last backbone C3."""
    text = (find.configs_folder() / "yolov5_se.yaml").read_text(encoding="utf-8")
    head, _, tail = text.rpartition("SEAttention, []")
    path = folder / "yolov5n_mine.yaml"
    path.write_text(REGISTER.format(name=name, spec=spec) + head + f"{name}, {args}" + tail, encoding="utf-8")
    return path


@pytest.fixture
def project(home: Path) -> Path:
    """A folder with a plug-in and a YAML that names it."""
    folder = home / "project"
    folder.mkdir()
    (folder / "my_attn.py").write_text(GATE, encoding="utf-8")
    model_yaml(folder)
    return folder


BUILD = """
import sys, yolo_attn
from ultralytics import YOLO
model = YOLO(sys.argv[1]).model
print("BUILT", type(model.model[12]).__module__, type(model.model[12]).__name__, model.model[12].weight.shape[1])
"""


def test_from_yaml(project: Path, python: Callable[..., Run]) -> None:
    """The class is found beside the YAML, gets the true channels, and one log line says where it comes from."""
    run = python(BUILD, str(project / "yolov5n_mine.yaml"))
    assert "BUILT yolo_attn.plugins.my_attn MyAttn 256" in run.ok()
    assert run.err.count(f"MyAttn is MyAttn from {project / 'my_attn.py'}") == 1


@pytest.mark.slow
def test_options_of_the_users_class(project: Path, python: Callable[..., Run]) -> None:
    for args in ("[1024, 2]", "[{power: 2}]"):
        model_yaml(project, args=args)
        python(BUILD + "assert model.model[12].power == 2", str(project / "yolov5n_mine.yaml")).ok()


def test_safe_load_refuses_the_yaml(project: Path, python: Callable[..., Run]) -> None:
    run = python(BUILD, str(project / "yolov5n_mine.yaml"), env={"ULTRALYTICS_SAFE_LOAD": "1"})
    assert run.code != 0
    assert "ULTRALYTICS_SAFE_LOAD is set" in run.err.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_yaml_reaches_only_its_own_folder(project: Path, python: Callable[..., Run]) -> None:
    shutil.move(str(project / "my_attn.py"), str(project.parent / "my_attn.py"))
    model_yaml(project, spec="../my_attn.py:MyAttn")
    run = python(BUILD, str(project / "yolov5n_mine.yaml"))
    assert "YAML's folder" in run.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "spec", "told"),
    [
        (None, "my_attn.py:MyAttn", "my_attn.py, which does not exist"),
        ("1 / 0\n", "my_attn.py:MyAttn", "my_attn.py fails on import: line 1: ZeroDivisionError"),
        ("def broken(:\n", "my_attn.py:MyAttn", "my_attn.py fails on import: line 1: SyntaxError"),
        (GATE, "my_attn.py:MyAttention", "has no class 'MyAttention'. Did you mean 'MyAttn'?"),
        (GATE, "my_attn.py", "must read file.py:Class"),
        (GATE, "no_such_package.gates:Gate", "cannot be imported"),
        ("class MyAttn:\n    pass\n", "my_attn.py:MyAttn", "not a subclass of torch.nn.Module"),
        ("raise SystemExit(3)\n", "my_attn.py:MyAttn", "my_attn.py fails on import"),
    ],
)
def test_mistakes(home: Path, cli: Callable[..., Run], content: str | None, spec: str, told: str) -> None:
    """One message, an exit code, no traceback."""
    if content is not None:
        (home / "my_attn.py").write_text(content, encoding="utf-8")
    message = cli("show", str(model_yaml(home, spec=spec))).mistake()
    assert told in message
    assert "yolov5n_mine.yaml" in message


def test_a_name_of_the_kit_cannot_be_taken(home: Path, cli: Callable[..., Run]) -> None:
    (home / "my_attn.py").write_text(GATE, encoding="utf-8")
    message = cli("show", str(model_yaml(home, name="ECA"))).mistake()
    assert "yolo_attn.plugins.my_attn.MyAttn" in message
    assert "yolo_attn.modules.eca.ECA" in message


def test_plugin_option_and_environment(home: Path, cli: Callable[..., Run]) -> None:
    """A file that registers by decorator serves rows that name it, by option or by variable."""
    plugin = home / "gates.py"
    plugin.write_text(
        "import yolo_attn\n" + GATE.replace("class MyAttn", "@yolo_attn.register\nclass MyAttn"), encoding="utf-8"
    )
    path = model_yaml(home)
    path.write_text(path.read_text(encoding="utf-8").split("\n", 2)[2], encoding="utf-8")  # without register:
    assert "'MyAttn'" in cli("show", str(path)).mistake()
    assert "yolo_attn.plugins.gates.MyAttn" in cli("show", str(path), "--plugin", str(plugin)).ok()
    assert "gates.py" in cli("list", "--plugin", str(home / "no" / "gates.py")).mistake()
    assert "MyAttn" in cli("list", "--plugin", str(plugin)).ok()


@pytest.mark.slow
def test_entry_point(home: Path, python: Callable[..., Run]) -> None:
    """An installed package brings modules through the entry-point group."""
    site = home / "site"
    (site / "gates_package-1.0.dist-info").mkdir(parents=True)
    (site / "gates_package.py").write_text(GATE, encoding="utf-8")
    (site / "gates_package-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: gates-package\nVersion: 1.0\n"
    )
    (site / "gates_package-1.0.dist-info" / "entry_points.txt").write_text(
        "[yolo_attn.modules]\nInstalledGate = gates_package:MyAttn\n"
    )
    root = str(ROOT)
    code = "import yolo_attn; print(yolo_attn.get_module('InstalledGate').__module__)"
    assert "gates_package" in python(code, env={"PYTHONPATH": os.pathsep.join([str(site), root])}).ok()


@pytest.mark.slow
def test_two_files_of_one_name(home: Path, python: Callable[..., Run]) -> None:
    """The same code in two places is one plug-in; different code under one name is refused, not guessed."""
    for folder in ("a", "b"):
        (home / folder).mkdir()
        (home / folder / "my_attn.py").write_text(GATE, encoding="utf-8")
    code = """
    import sys, yolo_attn
    yolo_attn.load_plugin(sys.argv[1]); yolo_attn.load_plugin(sys.argv[2])
    """
    files = [str(home / f / "my_attn.py") for f in "ab"]
    python(code, *files).ok()
    (home / "b" / "my_attn.py").write_text(GATE + "# other\n", encoding="utf-8")
    run = python(code, *files)
    assert "two plug-ins are called 'my_attn'" in run.err.strip().splitlines()[-1]


SMALL = "VALUE = {}\n"
# A process that never named the file: what it finds, or why not.
FIND = """
import importlib, yolo_attn
try:
    print("VALUE", importlib.import_module("yolo_attn.plugins.small").VALUE)
except yolo_attn.YoloAttnError as exc:
    print("REFUSED", exc)
"""


@pytest.fixture
def small(home: Path, python: Callable[..., Run]) -> Path:
    """A plug-in that was named once, by another process."""
    file = home / "small.py"
    file.write_text(SMALL.format(1), encoding="utf-8")
    python(f"import yolo_attn; yolo_attn.load_plugin({str(file)!r})").ok()
    return file


def test_a_named_plugin_is_found_again(small: Path, python: Callable[..., Run]) -> None:
    assert "VALUE 1" in python(FIND).ok()
    records = list((small.parent / "config" / "plugins").iterdir())
    assert len(records) == 1
    if os.name != "nt":
        assert records[0].stat().st_mode & 0o077 == 0


def test_bytecode_is_not_what_was_named(small: Path, python: Callable[..., Run]) -> None:
    """A `__pycache__` beside the file, right by time and size, holds what anybody put there."""
    about = small.stat()
    small.write_text(SMALL.format(2), encoding="utf-8")
    os.utime(small, ns=(about.st_atime_ns, about.st_mtime_ns))
    py_compile.compile(str(small), cfile=importlib.util.cache_from_source(str(small)), doraise=True)
    small.write_text(SMALL.format(1), encoding="utf-8")
    os.utime(small, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert "VALUE 1" in python(FIND).ok()
    assert "VALUE 1" in python(f"import yolo_attn; print('VALUE', yolo_attn.load_plugin({str(small)!r}).VALUE)").ok()


def test_a_file_swapped_between_check_and_use(small: Path, python: Callable[..., Run]) -> None:
    """What runs is what was hashed, or nothing."""
    swap = f"""
    import pathlib, yolo_attn
    from yolo_attn.registry import memory
    def recall(stem, checked=memory.recall):
        found = checked(stem)
        pathlib.Path({str(small)!r}).write_text("print('ran')")
        return found
    memory.recall = recall
    """
    run = python(textwrap.dedent(swap) + FIND)
    assert "REFUSED" in run.ok() and "being changed" in run.out and "ran" not in run.out.splitlines()


def test_a_link_to_a_file_is_that_file(home: Path, small: Path, python: Callable[..., Run]) -> None:
    link = home / "elsewhere" / "small.py"
    link.parent.mkdir()
    link.symlink_to(small)
    assert "VALUE 1" in python(f"import yolo_attn; print('VALUE', yolo_attn.load_plugin({str(link)!r}).VALUE)").ok()
    assert len(list((home / "config" / "plugins").iterdir())) == 1
    other = home / "other.py"
    other.write_text(SMALL.format(3), encoding="utf-8")
    link.unlink()
    link.symlink_to(other)  # the record is of the file, not of the link
    assert "VALUE 1" in python(FIND).ok()


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "{}", '{"path": 3, "sha256": []}', "[" * 100_000, "\0", "\udcff"]
)
def test_a_damaged_record_counts_for_nothing(small: Path, content: str) -> None:
    record = next((small.parent / "config" / "plugins").iterdir())
    record.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert memory.recall("small") is None and memory.history("small") == ""
    memory.remember("small", small, memory.digest(small))  # and is put right by the next naming
    assert memory.recall("small") == memory.Record(small, memory.digest(small))


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_record_that_others_could_write_counts_for_nothing(small: Path) -> None:
    record = next((small.parent / "config" / "plugins").iterdir())
    record.chmod(0o666)
    assert memory.recall("small") is None
    memory.remember("small", small, memory.digest(small))
    assert memory.recall("small") is not None


def test_a_home_that_cannot_be_written(home: Path, python: Callable[..., Run]) -> None:
    (home / "config").write_text("a file where a folder should be", encoding="utf-8")
    (home / "small.py").write_text(SMALL.format(1), encoding="utf-8")
    run = python("import sys, yolo_attn; print(yolo_attn.load_plugin(sys.argv[1]).VALUE)", str(home / "small.py"))
    assert run.ok() == "1\n"


def test_writers_at_once_lose_nothing(home: Path) -> None:
    """Each file has a record of its own: the last writer does not undo the others."""
    files = [home / f"plugin_{n}.py" for n in range(12)]
    for file in files:
        file.write_text("", encoding="utf-8")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda f: [memory.remember(f.stem, f, memory.digest(f)) for _ in range(10)], files * 2))
    assert [memory.recall(f.stem) for f in files] == [memory.Record(f, memory.digest(f)) for f in files]
    assert {p.suffix for p in memory.folder().iterdir()} == {".json"}


def test_a_path_that_the_variable_cannot_hold(home: Path, python: Callable[..., Run]) -> None:
    """A child process finds it by memory."""
    file = home / f"a{os.pathsep}b" / "small.py"
    file.parent.mkdir()
    file.write_text(SMALL.format(1), encoding="utf-8")
    code = f"import subprocess, sys, yolo_attn; yolo_attn.load_plugin({str(file)!r})\n"
    code += f"subprocess.run([sys.executable, '-c', {FIND!r}], check=True)"
    assert "VALUE 1" in python(code).ok()


def test_old_records_are_dropped(home: Path) -> None:
    for n in range(memory.MOST + 3):
        file = home / str(n) / "small.py"
        file.parent.mkdir()
        file.write_text(SMALL.format(n), encoding="utf-8")
        memory.remember("small", file, memory.digest(file))
    assert len(list(memory.folder().iterdir())) == memory.MOST


def test_a_package_is_all_its_files(home: Path, python: Callable[..., Run]) -> None:
    package = home / "small"
    package.mkdir()
    (package / "__init__.py").write_text("from .part import VALUE\n", encoding="utf-8")
    (package / "part.py").write_text(SMALL.format(1), encoding="utf-8")
    python(f"import yolo_attn; yolo_attn.load_plugin({str(package)!r})").ok()
    assert "VALUE 1" in python(FIND).ok()
    (package / "part.py").write_text(SMALL.format(2), encoding="utf-8")
    assert "has changed since" in python(FIND).ok()


def test_the_file_that_is_asked_for(home: Path, python: Callable[..., Run]) -> None:
    """Whatever else of that name the environment holds; child processes take it too."""
    for n, folder in enumerate(["named by variable", "asked for"]):
        (home / folder).mkdir()
        (home / folder / "small.py").write_text(SMALL.format(n), encoding="utf-8")
    named, asked = (str(home / f / "small.py") for f in ("named by variable", "asked for"))
    code = "import sys, subprocess, yolo_attn; print(yolo_attn.load_plugin(sys.argv[1]).VALUE, flush=True)\n"
    child = "import yolo_attn.plugins.small as s; print(s.VALUE)"
    code += f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\n"
    assert python(code, asked, env={"YOLO_ATTN_PLUGINS": named}).ok() == "1\n1\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A detector with the user's attention from YAML alone, trained by the script and stopped after one epoch of two."""
    folder = tmp_path_factory.mktemp("life")
    project = folder / "project"
    project.mkdir()
    (project / "my_attn.py").write_text(GATE, encoding="utf-8")
    model_yaml(project)
    small = make_shapes(folder / "shapes", Recipe(train=8, val=4, size=64))
    env = {"YOLO_ATTN_CONFIG_DIR": str(folder / "config"), "YOLO_ATTN_PLUGINS": ""}
    script = f"""
import sys, yolo_attn
from yolo_attn.training import trainer
def stop(self, *a):  # ends the process the hard way, right after the first epoch's checkpoint is in place
    import os
    done = save(self)
    os._exit(9)
save, trainer.Trainer.save_model = trainer.Trainer.save_model, stop
from yolo_attn.cli import main
main(["train", "--cfg", "yolov5n_mine.yaml", "--data", {str(small)!r}, "--epochs", "2", "--img", "64", "--batch", "4",
      "--project", "runs", "--noplots", "--device", "cpu"])
"""
    run = run_python("-c", script, cwd=project, env=env)
    assert run.code == 9, run.err + run.out
    last = project / "runs" / "exp" / "weights" / "last.pt"
    assert last.is_file()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return {"project": project, "last": last, "env": env, "cwd": elsewhere, "data": small}


@pytest.mark.slow
def test_life_elsewhere(trained: dict[str, Any]) -> None:
    """Validate, predict, export and resume, each in a fresh process started from another folder."""
    last, env, cwd = str(trained["last"]), trained["env"], trained["cwd"]
    image = next((trained["data"].parent / "images" / "val").glob("*.png"))
    common = {"cwd": cwd, "env": env}
    yolo = ["-m", "yolo_attn", "yolo"]
    run_python(
        *yolo, "detect", "val", f"model={last}", f"data={trained['data']}", "imgsz=64", "plots=False", **common
    ).ok()
    run_python(*yolo, "predict", f"model={last}", f"source={image}", "imgsz=64", **common).ok()
    out = run_python("-m", "yolo_attn", "export", last, "--imgsz", "64", **common).ok()
    assert trained["last"].with_suffix(".onnx").is_file(), out
    done = run_python(str(ROOT / "train_detect.py"), "--resume", last, "--no-export", **common)
    assert "Resuming training" in done.ok()
    rows = (trained["project"] / "runs" / "exp" / "results.csv").read_text().strip().splitlines()
    assert len(rows) == 3  # the header, the epoch before the kill, the epoch after


@pytest.mark.slow
def test_a_missing_plugin_is_named(trained: dict[str, Any], tmp_path: Path) -> None:
    """On a machine that never saw the file: which one it is, and how to give it. Never an installation attempt."""
    moved = tmp_path / "best.pt"
    shutil.copy(trained["last"], moved)
    env = {"YOLO_ATTN_CONFIG_DIR": str(tmp_path / "nothing"), "YOLO_ATTN_PLUGINS": "", "YOLO_AUTOINSTALL": "true"}
    argv = ["-m", "yolo_attn", "yolo", "detect", "val", f"model={moved}", f"data={trained['data']}", "imgsz=64"]
    run = run_python(*argv, cwd=tmp_path, env=env)
    message = run.mistake()
    assert "my_attn.py" in message
    assert "--plugin" in message
    assert "pip" not in run.out + run.err
    # Given, it works.
    plugin = trained["project"] / "my_attn.py"
    argv = [*argv[:3], "--plugin", str(plugin), *argv[3:], "plots=False"]
    run_python(*argv, cwd=tmp_path, env=env).ok()


@pytest.mark.slow
def test_a_changed_plugin_is_not_run(trained: dict[str, Any], tmp_path: Path) -> None:
    """What was named before runs again only while its content is the same."""
    changed = tmp_path / "my_attn.py"
    changed.write_text(GATE, encoding="utf-8")
    env = {"YOLO_ATTN_CONFIG_DIR": str(tmp_path / "config"), "YOLO_ATTN_PLUGINS": ""}
    run_python("-c", f"import yolo_attn; yolo_attn.load_plugin({str(changed)!r})", env=env).ok()
    load = f"import yolo_attn; from ultralytics import YOLO; YOLO({str(trained['last'])!r}); print('loaded')"
    assert "loaded" in run_python("-c", load, env=env).ok()
    changed.write_text(GATE + "print('ran')\n", encoding="utf-8")
    run = run_python("-c", load, env=env)
    assert "ran" not in run.out
    assert "has changed since" in run.err.strip().splitlines()[-1]


def test_the_interpreter_is_this_one() -> None:
    """The fresh processes of these tests run the same Python as the tests."""
    assert run_python("-c", "import sys; print(sys.executable)").ok().strip() == sys.executable
