"""Every patch of every host: what it looks for taken away is named; what it puts there is taken back, in any order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable

from classic_host import Classic, classic
from conftest import ROOT, Run, run_python

from yolo_attn.hook.spliced import Seams
from yolo_attn.kit import KIT, TheKit
from yolo_attn.registry import registry

__all__ = ["classic"]

# Walks HOSTS, so that a new patch is covered without a change here.
TAKEN_AWAY = """
import importlib, logging, sys
import yolo_attn
{host}
from yolo_attn.hook import install
from yolo_attn.hook import patching
from yolo_attn.patches import HOSTS

logging.getLogger("yolo_attn").setLevel(logging.ERROR)
host = next(h for h in HOSTS if h.parser in sys.modules and h.recognise(sys.modules[h.parser]))
root = install._root(host, sys.modules[host.parser])
for patch in host.patches:
    try:
        importlib.import_module(patch.module)
    except ImportError:
        assert patch.unless is not None and patch.unless(root), patch
assert not install.failures(), install.failures()

def named(patch, how):
    install.uninstall()
    install.install(strict=False)
    told = str(install.failures().get(host.name, ""))
    assert patch.function in told and sys.modules[patch.module].__file__ in told and host.name in told, (patch, how, told)
    try:
        install.install()
    except yolo_attn.YoloAttnError:
        pass
    else:
        raise AssertionError((patch, how, "asked for, it must be an error"))
    install.uninstall()

here = [p for p in host.patches if p.module in sys.modules and any(h.function == p.function and h.module.__name__ == p.module for h in install.applied())]
assert len(here) >= 7, here
for patch in here:
    install.uninstall()
    owner, name = patching.place(sys.modules[patch.module], patch.function)
    inherited = name not in vars(owner)
    original = getattr(owner, name)

    # of another signature
    scope = vars(sys.modules[patch.module])
    exec(f"def {name}(first_of_other_name): pass", scope)
    stranger = scope[name]
    if owner is not sys.modules[patch.module]:
        del scope[name]
    setattr(owner, name, stranger)
    named(patch, "other signature")

    # renamed or gone
    if inherited:
        setattr(owner, name, None)
    else:
        delattr(owner, name)
    if not (patch.unless is not None and patch.unless(root)) and not hasattr(owner, name) or inherited:
        named(patch, "gone")

    if inherited:
        delattr(owner, name)
    else:
        setattr(owner, name, original)
    install.install()
    assert not install.failures()
    install.uninstall()
    assert getattr(owner, name) is original, patch

# a module of the host that is not there any more
for patch in here:
    if patch.module == host.parser:
        continue
    gone = type(patch)(**{**vars(patch), "module": patch.module + "_renamed", "unless": None})
    other = type(host)(**{**vars(host), "patches": (host.patches[0], gone)})
    errors = install._absent(other, sys.modules[host.parser])
    assert len(errors) == 1 and gone.module in str(errors[0])
print("TAKEN AWAY", len(here))
"""


def test_what_a_patch_looks_for_is_missed_on_ultralytics(python: Callable[..., Run]) -> None:
    code = TAKEN_AWAY.replace("{host}", "import ultralytics.nn.tasks")
    assert "TAKEN AWAY" in python(code).ok()


def test_what_a_patch_looks_for_is_missed_on_yolov5(classic: Classic, tmp_path: Path) -> None:
    assert "TAKEN AWAY" in classic.python(TAKEN_AWAY, cwd=tmp_path).ok()


def test_copies_of_the_kit_share_the_rows_of_a_parser() -> None:
    """A row goes to the copy that knows its name, whichever copy came first."""

    class Other(TheKit):
        def knows(self, name: Any, d: dict[str, Any], i: int) -> bool:
            return bool(name == "OfOther")

        def find(self, name: Any, args: list[Any], i: int, d: dict[str, Any], lookup: Callable[[], Any]) -> Any:
            return f"{name} of the other copy"

    d = {"backbone": [[-1, 1, "SE", []]], "head": []}
    se = registry.get_module("SE")
    for kits in ([KIT, Other()], [Other(), KIT]):
        seams = Seams("kit", (lambda: None).__code__)
        for i, kit in enumerate(kits):
            seams.join(str(i), kit)
        assert seams.find("OfOther", [], 0, d, lambda: None) == "OfOther of the other copy"
        assert seams.find("SE", [], 0, d, lambda: None) is se


# Two copies under other names, as two projects vendor them.
VENDORED = """
import importlib, logging, sys
logging.disable(logging.WARNING)
import ultralytics.nn.tasks as tasks
import ultralytics.engine.trainer, ultralytics.engine.model, ultralytics.utils.dist
from ultralytics.engine.model import yaml_model_load as by_name
from ultralytics.utils import torch_utils

def state():
    found = {}
    for home in (tasks, torch_utils, ultralytics.utils.dist, tasks.BaseModel, ultralytics.engine.model.Model,
                 ultralytics.engine.trainer.BaseTrainer):
        for k, v in vars(home).items():
            if callable(v):
                found[home.__name__, k] = v, getattr(v, "__code__", None)
    return found

def same(a, b):
    return a.keys() == b.keys() and all(x is y for k in a for x, y in zip(a[k], b[k]))

d = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SE", []]], "head": []}
plain = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": []}

def build(rows=d):
    return tasks.parse_model({**rows, "backbone": [list(r) for r in rows["backbone"]]}, 3, verbose=False)[0]

before = state()
for order in ("ab", "ba"):
    kits = {n: importlib.import_module(f"{n}.yolo_attn") for n in "ab"}
    for n in "ab":
        kits[n].install()
        assert kits[n].installed() == ["ultralytics"] and not kits[n].hook.install.failures(), n
    assert type(build()[1]).__module__.partition(".")[0] in "ab"
    kits[order[0]].uninstall()
    left = kits[order[1]]
    assert kits[order[0]].installed() == [] and left.installed() == ["ultralytics"]
    assert type(build()[1]).__module__.startswith(order[1] + ".")  # whoever is left serves the rows
    model = tasks.DetectionModel("yolov5n.yaml", verbose=False)
    model.load(tasks.DetectionModel("yolov5n.yaml", verbose=False), verbose=False)
    model.fuse(verbose=False)
    left.uninstall()
    assert same(state(), before), [k for k in before if k not in state() or not same({k: state()[k]}, {k: before[k]})]
    try:
        build()
    except KeyError as exc:
        assert exc.args == ("SE",)
    else:
        raise AssertionError("nobody should know SE")
    model = tasks.DetectionModel("yolov5n.yaml", verbose=False)
    model.load(tasks.DetectionModel("yolov5n.yaml", verbose=False), verbose=False)
    model.fuse(verbose=False)

# builders and togglers at once
import threading, time
kit, errors, since = kits["a"], [], time.monotonic()
built = {"plain": 0, "SE": 0}
def going():  # two seconds, and as long as a busy machine takes for enough of them
    took = time.monotonic() - since
    return took < 2 or (built["plain"] <= 20 and took < 300 and not errors)
def builder(rows, key):
    while going():
        try:
            build(rows)
            built[key] += 1
        except KeyError as exc:  # the host's own error while the kit is not installed
            if exc.args != ("SE",) or key == "plain":
                errors.append(exc)
        except BaseException as exc:
            errors.append(exc)
def toggler(kit):
    while going():
        kit.install(); kit.uninstall()
threads = [threading.Thread(target=builder, args=a) for a in ((d, "SE"), (d, "SE"), (plain, "plain"), (plain, "plain"))]
threads += [threading.Thread(target=toggler, args=(k,)) for k in kits.values()]
[t.start() for t in threads]; [t.join() for t in threads]
assert not errors, (errors[:3], built)
assert built["plain"] > 20, built
for k in kits.values():
    k.uninstall()
assert same(state(), before)
print("WHOLE", built)
"""


def test_vendored_copies_are_uninstalled_in_any_order(tmp_path: Path) -> None:
    for name in "ab":
        target = tmp_path / name / "yolo_attn"
        shutil.copytree(ROOT / "yolo_attn", target, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in ("patches", "model_cfgs"):
            shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / name / "__init__.py").write_text("", encoding="utf-8")
    run = run_python("-c", VENDORED, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert "WHOLE" in run.ok()


# A child that is forked while another thread is within the kit's locks.
FORKED = """
import os, sys, threading, time
import torch, yolo_attn
from yolo_attn.registry import safe, sources
from yolo_attn.registry import registry
from yolo_attn.hook import install
from torch import nn
from yolo_attn.system.fork import Lock

class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()

stop, rounds = False, []
def busy():
    while not stop:
        yolo_attn.install(); yolo_attn.uninstall()
        with sources._state.load_lock, safe._lock, registry._state.lock, install._lock:
            time.sleep(0.001)
        rounds.append(1)
threads = [threading.Thread(target=busy, daemon=True) for _ in range(2)]
[t.start() for t in threads]
children = []
for k in range(8):
    pid = os.fork()
    if not pid:
        yolo_attn.register(f"Gate{k}", Gate)
        assert yolo_attn.get_module("SE")
        yolo_attn.install(); yolo_attn.uninstall()
        os._exit(7)
    children.append(pid)
until, codes = time.monotonic() + 300, []
while children and time.monotonic() < until:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            children.remove(pid)
            codes.append(os.waitstatus_to_exitcode(status))
    time.sleep(0.01)
for pid in children:
    os.kill(pid, 9)
stop = True
assert codes == [7] * 8, (codes, len(children))
assert len(rounds) > 8, "the threads that hold the locks must be at work"

# a lock that is never given free is a new one in the child
import yolo_attn.system.fork as fork
fork.PATIENCE = 0.1
lock, taken = Lock(), threading.Event()
def hold():
    with lock:
        taken.set()
        time.sleep(2)
threading.Thread(target=hold, daemon=True).start()
taken.wait()
pid = os.fork()
if not pid:
    with lock:
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
with lock:
    pid = os.fork()  # in the hands of the thread that forks
    if not pid:
        with lock:
            pass
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
print("FORKED")
"""


def test_forked_children_are_not_deadlocked(python: Callable[..., Run]) -> None:
    assert "FORKED" in python(FORKED).ok()
