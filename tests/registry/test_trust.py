"""Whose code runs: what was named, nothing beside it, nothing of the working folder, and announced before it does."""

from __future__ import annotations

import os
import py_compile
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import ROOT, Run

from yolo_attn import errors
from yolo_attn.registry import finder, installed, memory, plugins, sources

LOAD = "import sys, yolo_attn; print('VALUE', yolo_attn.load_plugin(sys.argv[1]).VALUE)"
FIND = """
import importlib, yolo_attn
try:
    print("VALUE", importlib.import_module("yolo_attn.plugins.small").VALUE)
except yolo_attn.YoloAttnError as exc:
    print("REFUSED", exc)
"""


@pytest.fixture
def package(home: Path) -> Path:
    """A plug-in package with a module, a folder and a linked folder in it."""
    folder = home / "small"
    (folder / "deep").mkdir(parents=True)
    (home / "linked").mkdir()
    (folder / "__init__.py").write_text(
        "from .part import VALUE\nfrom .deep import more\nfrom .far.away import LINKED\n", encoding="utf-8"
    )
    (folder / "part.py").write_text("VALUE = 1\n", encoding="utf-8")
    (folder / "deep" / "more.py").write_text("", encoding="utf-8")
    (home / "linked" / "away.py").write_text("LINKED = 1\n", encoding="utf-8")
    (folder / "far").symlink_to(home / "linked", target_is_directory=True)
    return folder


def change(path: Path, content: str) -> None:
    """Change a file, and not the time that it says."""
    about = path.stat()
    path.write_text(content, encoding="utf-8")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_all_below_a_package_is_what_was_named(home: Path, package: Path) -> None:
    """A new file, a changed one, one behind a link, bytecode without its source: another package."""
    init = package / "__init__.py"
    was = memory.digest(init)
    (package / "notes.txt").write_text("no code", encoding="utf-8")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "part.cpython-311.pyc").write_bytes(b"never read")
    assert memory.digest(init) == was != ""
    seen = {was}
    for path in (package / "new.py", package / "deep" / "more.py", home / "linked" / "away.py", package / "old.pyc",
                 package / f"built{memory.IMPORTABLE[-1]}"):  # fmt: skip
        path.write_bytes(b"# else\n")
        seen.add(memory.digest(init))
    assert len(seen) == 6 and "" not in seen
    (package / "round").symlink_to(package, target_is_directory=True)
    assert memory.digest(init) == ""


def test_a_package_runs_its_sources_only(package: Path, python: Callable[..., Run]) -> None:
    """Bytecode that is right by time and size stands in for no module below the package either."""
    part = package / "part.py"
    about = part.stat()
    change(part, "VALUE = 2\n")
    py_compile.compile(str(part), doraise=True)
    change(part, "VALUE = 1\n")
    os.utime(part, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert "VALUE 1" in python(LOAD, str(package)).ok()
    assert "VALUE 1" in python(FIND).ok()


def test_bytecode_alone_is_refused(package: Path, python: Callable[..., Run]) -> None:
    part = package / "part.py"
    py_compile.compile(str(part), cfile=str(package / "part.pyc"), doraise=True)
    part.unlink()
    run = python(LOAD, str(package))
    assert run.code and "part.pyc is bytecode without its source" in run.err.strip().splitlines()[-1]


def test_what_is_linked_may_not_change(home: Path, package: Path, python: Callable[..., Run]) -> None:
    python(LOAD, str(package)).ok()
    change(home / "linked" / "away.py", "LINKED = 2\n")
    assert "has changed since" in python(FIND).ok()


def test_a_module_that_changes_after_the_package_was_loaded(package: Path, python: Callable[..., Run]) -> None:
    (package / "late.py").write_text("VALUE = 1\n", encoding="utf-8")
    code = f"""
    import importlib, pathlib, yolo_attn
    yolo_attn.load_plugin({str(package)!r})
    pathlib.Path({str(package)!r}, "late.py").write_text("print('ran')")
    try:
        importlib.import_module("yolo_attn.plugins.small.late")
    except yolo_attn.YoloAttnError as exc:
        print("REFUSED", exc)
    try:
        importlib.import_module("yolo_attn.plugins.small.never")
    except ModuleNotFoundError as exc:
        print("NONE", exc.name)
    """
    out = python(code).ok()
    assert "REFUSED" in out and "late.py has changed" in out and "NONE yolo_attn.plugins.small.never" in out
    assert "ran" not in out.split()


def test_a_folder_offers_what_it_is(home: Path, package: Path, python: Callable[..., Run]) -> None:
    """A package by its folder; no file that happens to lie in it, or beside it."""
    (home / "secret.py").write_text("print('ran')", encoding="utf-8")
    code = FIND.replace("small", "secret")
    for folder in (home, home / "small"):
        run = python(code, env={"YOLO_ATTN_PLUGINS": str(folder)})
        assert "REFUSED" in run.ok() and "ran" not in run.out.split()
    assert "VALUE 1" in python(FIND, env={"YOLO_ATTN_PLUGINS": str(package)}).ok()


def test_a_relative_entry_does_not_follow_the_working_folder(home: Path, python: Callable[..., Run]) -> None:
    for n, folder in enumerate(("a", "b")):
        (home / folder).mkdir()
        (home / folder / "small.py").write_text(f"VALUE = {n}", encoding="utf-8")
    code = f"import os, yolo_attn\nos.chdir({str(home / 'b')!r})" + FIND + "print(os.environ['YOLO_ATTN_PLUGINS'])"
    out = python(code, cwd=home / "a", env={"YOLO_ATTN_PLUGINS": "small.py"}).ok().split()
    assert out == ["VALUE", "0", str(home / "a" / "small.py")]


def test_a_named_file_that_is_missing_is_said(home: Path, python: Callable[..., Run]) -> None:
    code = """
    import yolo_attn
    print(yolo_attn.get_module("SE").__name__)
    try:
        yolo_attn.get_module("Mine")
    except yolo_attn.YoloAttnError as exc:
        print(exc)
    """
    run = python(code, env={"YOLO_ATTN_PLUGINS": str(home / "gone.py")})
    first, second = run.ok().splitlines()
    assert first == "SEAttention" and "gone.py" in second
    assert run.err.count("gone.py") == 1 and "YOLO_ATTN_PLUGINS" in run.err


THREADS = """
import sys, threading, time, yolo_attn
from yolo_attn.registry import plugins
found = []
start = threading.Barrier(4)
def load():
    start.wait()
    found.append(hasattr(yolo_attn.load_plugin(sys.argv[1]), "LAST"))
threads = [threading.Thread(target=load) for _ in range(4)]
[t.start() for t in threads]
[t.join(60) for t in threads]
print(found)
"""


def test_threads_that_load_at_once_get_the_whole_module(home: Path, python: Callable[..., Run]) -> None:
    """Also where the plug-in looks names up, for which another thread may hold the registry."""
    file = home / "slow.py"
    content = "import time, yolo_attn\ntime.sleep(0.3)\nyolo_attn.list_modules()\nLAST = 1\n"
    file.write_text(content, encoding="utf-8")
    assert python(THREADS, str(file)).ok().strip() == str([True] * 4)
    both = THREADS.replace("    start.wait()\n", "    start.wait()\n    if len(found) % 2: yolo_attn.list_modules()\n")
    assert python(both, str(file), env={"YOLO_ATTN_PLUGINS": str(file)}).ok().strip() == str([True] * 4)


# -- dotted names ---------------------------------------------------------------------------------------------------

GATE = "from torch import nn\nprint('RAN', __name__)\nclass X(nn.Module):\n def __init__(self, channels): super().__init__()\n"


def register(d: dict[str, Any], folder: Path) -> str:
    """Load what a dictionary registers in a process of its own; what came of it."""
    return f"""
import pathlib, yolo_attn
from yolo_attn.registry import plugins
try:
    plugins.load_register({{"register": {d!r}}}, pathlib.Path({str(folder)!r}), "their.yaml")
    print("LOADED")
except yolo_attn.YoloAttnError as exc:
    print("REFUSED", type(exc).__name__, exc)
"""


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("helper_gate", "belongs to no installed package"),
        ("helpers.gate", "belongs to no installed package"),
        ("spaces.gate", "belongs to no installed package"),
        ("unittest.__main__", "not the name of a module"),
        ("unittest.mock", "part of Python"),
        ("antigravity", "part of Python"),
        ("this", "part of Python"),
        ("torch.no_such", "cannot be imported"),
    ],
)
def test_a_dotted_name_reaches_installed_packages_only(
    home: Path, python: Callable[..., Run], target: str, told: str
) -> None:
    """Not the working folder, whether the interpreter puts it first in line or the environment does."""
    (home / "helper_gate.py").write_text(GATE, encoding="utf-8")
    (home / "helpers").mkdir()
    (home / "helpers" / "__init__.py").write_text("print('RAN')", encoding="utf-8")
    (home / "helpers" / "gate.py").write_text(GATE, encoding="utf-8")
    (home / "spaces").mkdir()  # no code of its own: what is in it is looked at
    (home / "spaces" / "gate.py").write_text(GATE, encoding="utf-8")
    path = os.pathsep.join([str(home), str(ROOT)])
    out = python(register({"M": f"{target}:X"}, home / "y"), cwd=home, env={"PYTHONPATH": path}).ok()
    assert "REFUSED PluginError their.yaml: 'register: M" in out and told in out
    assert "RAN" not in out


def test_a_dotted_name_of_an_installed_package(home: Path, python: Callable[..., Run]) -> None:
    site = home / "site"
    (site / "gates-1.0.dist-info").mkdir(parents=True)
    (site / "gates.py").write_text(GATE, encoding="utf-8")
    path = os.pathsep.join([str(site), str(ROOT)])
    assert "LOADED" in python(register({"M": "gates:X"}, home), env={"PYTHONPATH": path}).ok()
    # and what the program has imported already is only looked up
    code = "import sys, types, torch; m = sys.modules['mine'] = types.ModuleType('mine'); m.X = torch.nn.SiLU"
    assert "LOADED" in python(code + register({"M": "mine:X"}, home)).ok()
    # an editable install has a finder of its own
    source = home / "work" / "gates"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text(GATE, encoding="utf-8")
    editable = f"""
    import importlib.util, sys
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "gates":
                return importlib.util.spec_from_file_location(name, {str(source / "__init__.py")!r},
                                                              submodule_search_locations=[{str(source)!r}])
    Finder.__module__ = "__editable___gates_1_0_finder"
    sys.meta_path.append(Finder)
    """
    code = textwrap.dedent(editable) + register({"M": "gates:X"}, home)
    assert "LOADED" in python(code, cwd=home / "work").ok()


def test_the_announcement_comes_before_the_code(home: Path, python: Callable[..., Run]) -> None:
    """So the code cannot suppress it."""
    file = home / "quiet.py"
    file.write_text(
        "import logging, sys\nlogging.disable(logging.CRITICAL)\nprint('RAN', file=sys.stderr, flush=True)\n" + GATE,
        encoding="utf-8",
    )
    run = python(register({"M": "quiet.py:X"}, home))
    run.ok()
    assert run.err.index(f"their.yaml: M is X from {file}") < run.err.index("RAN")


# -- installed entry points -----------------------------------------------------------------------------------------


@pytest.fixture
def broken(home: Path) -> dict[str, str]:
    """Three entry points, of which two cannot be used."""
    site = home / "site"
    (site / "bad_gates-1.0.dist-info").mkdir(parents=True)
    (site / "bad_gates-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-gates\nVersion: 1.0\n")
    (site / "bad_gates-1.0.dist-info" / "entry_points.txt").write_text(
        "[yolo_attn.modules]\nRaises = bad_raises:Gate\nLeaves = bad_leaves:Gate\nGood = good_gates:X\n"
    )
    (site / "bad_raises.py").write_text("1 / 0\n", encoding="utf-8")
    (site / "bad_leaves.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    (site / "good_gates.py").write_text(GATE, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def test_a_broken_entry_point_is_named_and_left_out(broken: dict[str, str], python: Callable[..., Run]) -> None:
    code = """
    import yolo_attn
    print(yolo_attn.get_module("Good").__name__, yolo_attn.get_module("SE").__name__)
    for name in ("Raises", "Leaves"):
        try:
            yolo_attn.get_module(name)
        except yolo_attn.YoloAttnError as exc:
            print(exc)
    from ultralytics.nn.tasks import DetectionModel
    print(len(DetectionModel("yolov8n.yaml", verbose=False).model))
    """
    run = python(code, env=broken)
    out = run.ok().splitlines()
    assert "X SEAttention" in out and out[-1] == "23"
    told = [line for line in out if "is skipped" in line]
    assert len(told) == 2 and "'Raises = bad_raises:Gate' is skipped: ZeroDivisionError" in told[0]
    assert "'Leaves = bad_leaves:Gate' is skipped: SystemExit: 3" in told[1] and "bad-gates" in told[1]
    assert run.err.count("is skipped") == 2


def test_the_command_line_survives_a_broken_entry_point(broken: dict[str, str], cli: Callable[..., Run]) -> None:
    run = cli("list", env=broken)
    assert "Good" in run.ok() and "SEAttention" in run.out and run.err.count("is skipped") == 2


def record(site: Path, name: str, entry_points: bytes) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_bytes(entry_points)


BUILD = """
import yolo_attn
from ultralytics.nn.tasks import DetectionModel
model = DetectionModel("yolov8n.yaml", verbose=False).model
print(len(model), type(model[0]).__module__, yolo_attn.get_module("SE").__name__, "X" in yolo_attn.list_modules())
"""


def test_a_package_cannot_take_a_host_s_name(home: Path, python: Callable[..., Run]) -> None:
    """Models without attention are untouched by what somebody's package calls its module."""
    record(home / "site", "good-gates", b"[yolo_attn.modules]\nConv = good_gates:X\nX = good_gates:X\n")
    (home / "site" / "good_gates.py").write_text(GATE, encoding="utf-8")
    run = python(BUILD, env={"PYTHONPATH": os.pathsep.join([str(home / "site"), str(ROOT)])})
    assert run.ok().splitlines()[-1].startswith("23 ultralytics.nn.modules.conv SEAttention")


def test_a_file_is_the_one_that_was_checked(home: Path, python: Callable[..., Run]) -> None:
    """A folder called ~ beside the YAML is no way to the user's home."""
    (home / "work" / "~").mkdir(parents=True)
    (home / "work" / "~" / "gate.py").write_text(GATE.replace("RAN", "BESIDE"), encoding="utf-8")
    (home / "gate.py").write_text(GATE.replace("RAN", "AT HOME"), encoding="utf-8")
    code = register({"M": "~/gate.py:X"}, home / "work").replace(repr(str(home / "work")), "'.'")
    out = python(code, cwd=home / "work", env={"HOME": str(home)}).ok()
    assert "BESIDE" in out and "LOADED" in out and "AT HOME" not in out


def test_what_is_announced_cannot_hide_itself(home: Path, python: Callable[..., Run]) -> None:
    """Names in a YAML that move a terminal's cursor are printed as they are written."""
    (home / "gate.py").write_text(GATE, encoding="utf-8")
    name = "M\x1b[1A\x1b[2K\r\nyolo_attn: all is well\u202e"
    run = python(register({name: "gate.py:X"}, home))
    run.ok()
    (line,) = (line for line in run.err.splitlines() if "gate.py" in line)
    assert line.startswith(r"yolo_attn: their.yaml: M\x1b[1A\x1b[2K\r\nyolo_attn: all is well\u202e is X")
    assert "\x1b" not in run.err


# -- files that register nothing ------------------------------------------------------------------------------------

MINE = GATE.replace("print('RAN', __name__)\n", "") + (
    "class Conv(nn.Module):\n def __init__(self, c1, c2): super().__init__()\n"
    "class SE(nn.Module):\n def __init__(self, channels): super().__init__()\n"
    "class _Hidden(nn.Module):\n pass\nfrom torch.nn import SiLU\n"
)


def test_what_a_file_defines_is_taken_under_its_name(home: Path, python: Callable[..., Run]) -> None:
    """Unless it registers something itself; a name of the kit stays the kit's, a name of the host the host's."""
    (home / "mine.py").write_text(MINE, encoding="utf-8")
    code = """
    import sys, yolo_attn
    before = set(yolo_attn.list_modules())
    yolo_attn.load_plugin(sys.argv[1])
    print(sorted(set(yolo_attn.list_modules()) - before), yolo_attn.get_module("SE").__module__)
    from ultralytics.nn.tasks import DetectionModel
    print(type(DetectionModel("yolov8n.yaml", verbose=False).model[0]).__module__)
    """
    run = python(code, str(home / "mine.py"))
    lines = run.ok().splitlines()  # between them the host may say that it writes its settings
    assert (lines[0], lines[-1]) == ("['Conv', 'X'] yolo_attn.modules.se", "ultralytics.nn.modules.conv")
    assert run.err.count("SE is skipped") == 1
    (home / "mine.py").write_text(MINE + "import yolo_attn\nyolo_attn.register('Only', X)\n", encoding="utf-8")
    assert python(code, str(home / "mine.py")).ok().startswith("['Only'] ")
    (home / "mine.py").write_text("import torch\n", encoding="utf-8")
    assert "defines no nn.Module" in python(code, str(home / "mine.py")).err


def test_a_file_and_a_class_wherever_a_module_is_named(home: Path, cli: Callable[..., Run]) -> None:
    file = home / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    for argv in (["X", "--plugin", str(file)], [f"{file}:X"]):
        out = cli("list", *argv).ok()
        assert str(file) in out and "[-1, 1, X, []]" in out
    assert "no class 'Y'" in cli("list", f"{file}:Y").mistake()
    out = cli("insert", "yolov5n.yaml", "--module", f"{file}:X", "--where", "neck").ok()
    assert "X, []" in out
    assert "'SE'" in cli("list", f"{file}:SE").mistake()


def test_insert_in_python_takes_a_file_and_a_class(home: Path, python: Callable[..., Run]) -> None:
    (home / "mine.py").write_text(MINE, encoding="utf-8")
    code = "import yolo_attn; print(yolo_attn.insert('yolov5n.yaml', 'mine.py:X', where='neck').count('X, []'))"
    assert python(code, cwd=home).ok().split()[-1] == "3"


def test_resolve_leaves_names_alone() -> None:
    assert plugins.resolve("SE") == "SE"
    assert sources.why_missing("SE") == ""


def test_the_homes_of_packages_are_no_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x-1.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert os.path.realpath(tmp_path) in installed._homes()
    monkeypatch.chdir(tmp_path)
    assert os.path.realpath(tmp_path) not in installed._homes()
    with pytest.raises(errors.PluginError, match="not the name of a module"):
        installed.import_installed("a..b")
    assert finder.named() == []
