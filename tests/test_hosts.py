"""Two hosts in one process, every order of importing and installing, and modules that are somebody else's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from classic_host import Classic, classic
from conftest import ROOT, run_python

__all__ = ["classic"]

# One process walks the orders: hosts are taken out of sys.modules between them, so that each import is a first one.
ORDERS = """
import itertools, sys, torch
def forget():
    for n in list(sys.modules):
        if n.partition(".")[0] in ("yolo_attn", "models", "utils") or n in ("yolov5.models.yolo", "yolov5.utils.general"):
            del sys.modules[n]
def host():
    global yolo, general
{indented}
    return yolo
def depth(f):
    n = 0
    while hasattr(f, "__wrapped__"):
        f, n = f.__wrapped__, n + 1
    return n
def builds(yolo):
    return "_yolo_attn_seams" in yolo.parse_model.__code__.co_names
steps = {
    "kit": lambda: __import__("yolo_attn"),
    "host": host,
    "install": lambda: [__import__("yolo_attn").install() for _ in range(2)],
    "uninstall": lambda: [__import__("yolo_attn").uninstall() for _ in range(2)],
}
count = 0
for order in itertools.permutations(["kit", "host", "install", "uninstall"]):
    forget()
    wanted = True
    for step in order:
        steps[step]()
        wanted = {"install": True, "uninstall": False}.get(step, wanted)
    import yolo_attn
    assert builds(yolo) == wanted, (order, wanted)
    assert bool(yolo_attn.installed()) == wanted, order
    assert depth(yolo.parse_model) == 0, order
    yolo_attn.uninstall()
    assert not builds(yolo), order
    assert "_yolo_attn_seams" not in vars(yolo), order
    count += 1
print("ORDERS", count)
"""


REST = """
import functools, inspect, sys, threading, torch
import yolo_attn
yolo_attn.uninstall()
{host}
from {module} import parse_model as by_name
code, init = yolo.parse_model.__code__, yolo.Model.__init__.__code__
check, signature = general.check_file.__code__, inspect.signature(yolo.Model)
yolo_attn.install(); yolo_attn.install()
assert yolo.parse_model is by_name and by_name.__code__ is not code
assert inspect.signature(yolo.Model) == signature
yolo.Model("yolov5n_se.yaml")

# A foreign wrapper over the parser survives, below and above.
calls = []
@functools.wraps(by_name)
def foreign(*args, **kwargs):
    calls.append(1)
    return by_name(*args, **kwargs)
yolo.parse_model = foreign
yolo_attn.uninstall(); yolo_attn.install()
yolo.Model("yolov5n_se.yaml")
assert calls == [1] and yolo.parse_model is foreign
yolo.parse_model = by_name

# Threads that build while others install.
wrong = []
def work():
    try:
        for _ in range(2):
            yolo_attn.install()
            yolo.Model("yolov5n_se.yaml")
    except BaseException as exc:
        wrong.append(exc)
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert not wrong, wrong

# Two hosts, one YAML, in one process.
from ultralytics.nn import tasks
assert {{"ultralytics", *yolo_attn.installed()}} == set(yolo_attn.installed()) and len(yolo_attn.installed()) == 2
tasks.DetectionModel("yolov5n_se.yaml", verbose=False)
yolo.Model("yolov5n_se.yaml")
both = tasks.parse_model.__code__

yolo_attn.uninstall(); yolo_attn.uninstall()
assert by_name.__code__ is code and yolo.Model.__init__.__code__ is init and general.check_file.__code__ is check
assert tasks.parse_model.__code__ is not both and yolo_attn.installed() == []
assert not [n for m in list(sys.modules.values()) for n in vars(m) if n == "_yolo_attn_seams"]
try:
    yolo.Model("yolov5n_se.yaml")
except FileNotFoundError:
    print("GIVEN BACK")
"""


def test_orders(classic: Classic, tmp_path: Path) -> None:
    indented = "".join(f"    {line}\n" for part in classic.imports.splitlines()[:-1] for line in part.split("; "))
    code = ORDERS.replace("{indented}", indented)
    out = classic.python(code, cwd=tmp_path).ok()
    assert int(out.rpartition("ORDERS")[2]) == 24


def test_one_process(classic: Classic, tmp_path: Path) -> None:
    code = REST.replace("{module}", f"{classic.prefix}models.yolo").replace("{{", "{").replace("}}", "}")
    assert "GIVEN BACK" in classic.python(code, cwd=tmp_path).ok()


@pytest.mark.parametrize("text", ["class Model: pass\n", "def parse_model(d, ch): return d\nModel = Detect = object\n"])
def test_somebody_elses_models_package(text: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "utils").mkdir()
    (tmp_path / "models" / "yolo.py").write_text(text)
    (tmp_path / "utils" / "general.py").write_text("def check_file(file):\n    return file\n")
    run = run_python(
        "-c",
        "import sys; sys.path.insert(0, '.')\nimport models.yolo as m, utils.general as g\nbefore = dict(vars(m)), g.check_file.__code__\n"
        "import yolo_attn; yolo_attn.install()\n"
        "assert (dict(vars(m)), g.check_file.__code__) == before and not yolo_attn.installed()\n"
        "assert 'torch' not in sys.modules and not yolo_attn.parser.failures()\n",
        cwd=tmp_path,
    )  # fmt: skip
    assert run.ok() == "" and run.err == ""


def test_matrix_tool_names_its_hosts() -> None:
    """The tool's list is what the README's table and the hosts' own range are made from."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "host_matrix.py"), "--list"], capture_output=True, text=True, check=True
    )
    assert "ultralytics==8.0.0" in done.stdout and "yolov5==7.0.14" in done.stdout
