"""The parse hook on the real ultralytics host: equal to a hand edit, reversible, invisible, precise when it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT, run_python

from yolo_attn.model_yaml import find

HAND_EDITED = ("yolov5_se.yaml", "yolov5_eca_neck.yaml", "yolov5_se_p5.yaml", "yolov5-p6_se.yaml")

# Builds what the arguments name and prints everything that a build decides.
PROBE = """
import hashlib, json, logging, sys
import torch
{first}
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
LOGGER.addHandler(handler)
told = {{}}
for path in sys.argv[1:]:
    lines.clear()
    torch.manual_seed(0)
    model = tasks.DetectionModel(path, verbose=True)
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    told[path.rsplit("/", 1)[-1]] = dict(
        weights=digest.hexdigest(),
        rng=hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        layers=[[m.i, m.f, m.type, m.np] for m in model.model],
        save=model.save,
        table=[t for t in lines if "summary" not in t],
    )
print("TOLD" + json.dumps(told))
"""


def told(run: object) -> dict[str, dict[str, object]]:
    return json.loads(run.ok().rpartition("TOLD")[2])  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def host_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the installed ultralytics that tests may edit."""
    import ultralytics

    source = Path(ultralytics.__file__).parent
    target = tmp_path_factory.mktemp("host") / "ultralytics"
    ignore = shutil.ignore_patterns("__pycache__", "assets", "solutions", "*.so")
    shutil.copytree(source, target, ignore=ignore)
    (target / "solutions").mkdir(exist_ok=True)
    return target.parent


@pytest.fixture(scope="module")
def yamls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Shipped YAMLs under names with a scale letter, where a host without the kit finds them."""
    folder, paths = tmp_path_factory.mktemp("yamls"), []
    for name in HAND_EDITED:
        path = folder / name.replace("yolov5", "yolov5n", 1)
        shutil.copy(find.configs_folder() / name, path)
        paths.append(str(path))
    # Arguments, repeats, and the nominal width that the field writes.
    text = (find.configs_folder() / "yolov5_se_p5.yaml").read_text(encoding="utf-8")
    path = folder / "yolov5m_options.yaml"
    path.write_text(re.sub(r"1, SEAttention, \[[^\]]*\]", "3, SEAttention, [1024]", text), encoding="utf-8")
    return [*paths, str(path)]


def hand_edit(host: Path) -> None:
    """Edit `tasks.py` as the tutorial should have: import the classes, give them the true channels."""
    file = host / "ultralytics" / "nn" / "tasks.py"
    text = file.read_text(encoding="utf-8")
    branch = (
        "        elif m in (SEAttention, ECA):\n"
        "            c2 = ch[f]\n"
        "            args = [c2, *args[1:]]\n"
        "        else:\n            c2 = ch[f]\n"
    )
    assert text.count("        else:\n            c2 = ch[f]\n") == 1
    text = text.replace("        else:\n            c2 = ch[f]\n", branch)
    text = text.replace(
        "\nimport torch\n",
        "\nimport torch\nfrom yolo_attn.modules.eca import ECA\nfrom yolo_attn.modules.se import SEAttention\n",
        1,
    )
    file.write_text(text, encoding="utf-8")


def test_equal_to_a_hand_edited_host(host_copy: Path, yamls: list[str], tmp_path: Path) -> None:
    """Weights, random state, rows and printed table are those of a hand-edited copy of the same host."""
    edited = tmp_path / "edited"
    shutil.copytree(host_copy, edited)
    hand_edit(edited)
    by_hook = told(run_python("-c", PROBE.format(first="import yolo_attn"), *yamls))
    by_hand = told(
        run_python(
            "-c",
            PROBE.format(first="import yolo_attn; yolo_attn.uninstall()"),
            *yamls,
            env={"PYTHONPATH": os.pathsep.join([str(edited), str(ROOT)])},
        )
    )
    assert by_hook.keys() == by_hand.keys()
    for name in by_hook:
        assert by_hook[name] == by_hand[name], name
    assert any("yolo_attn.modules.se.SEAttention" in t for t in by_hook["yolov5n_se.yaml"]["table"])


SCENES = """
import sys, threading, types
import ultralytics.nn.tasks as tasks
from ultralytics.nn.tasks import parse_model as by_name
import ultralytics.utils.dist as dist
import linecache
before = {k: id(v) for k, v in vars(tasks).items()}
originals = [tasks.parse_model.__code__, tasks.yaml_model_load.__code__, dist.generate_ddp_file.__code__]
cached = set(linecache.cache)

import yolo_attn
from yolo_attn.hook import install
assert yolo_attn.installed() == ["ultralytics"], yolo_attn.installed()
assert by_name is tasks.parse_model and by_name.__code__ is not originals[0]

# twice is once
code = by_name.__code__
yolo_attn.install(); yolo_attn.install()
assert by_name.__code__ is code

# whoever imported the parser by name earlier has it too
d = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "ECA", []]], "head": []}
model, save = by_name({**d}, 3, verbose=False)
assert type(model[1]).__name__ == "ECA"

# tracebacks and inspect show what runs
import inspect
source = inspect.getsource(by_name)
assert ".find(" in source and ".place(" in source

# the very same code objects come back, and nothing else stays
yolo_attn.uninstall(); yolo_attn.uninstall()
assert yolo_attn.installed() == []
now = [tasks.parse_model.__code__, tasks.yaml_model_load.__code__, dist.generate_ddp_file.__code__]
assert all(a is b for a, b in zip(now, originals))
assert {k: id(v) for k, v in vars(tasks).items()} == before
assert not [k for k in set(linecache.cache) - cached if "yolo_attn" in k and "extended" in k]
try:
    by_name({**d, "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "ECA", []]]}, 3, verbose=False)
except KeyError as exc:
    assert type(exc) is KeyError and exc.args == ("ECA",), repr(exc)  # the host's own error, untouched
else:
    raise AssertionError("ECA should be unknown without the hook")

# threads
errors = []
def flip():
    try:
        for _ in range(20):
            yolo_attn.install(); yolo_attn.installed()
    except BaseException as exc:
        errors.append(exc)
threads = [threading.Thread(target=flip) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert not errors, errors
yolo_attn.uninstall()
assert tasks.parse_model.__code__ is originals[0]

# under a foreign wrapper: the hook goes below, the wrapper survives, uninstall leaves it
calls = []
inner = tasks.parse_model
def wrapper(*args, **kwargs):
    calls.append(1)
    return inner(*args, **kwargs)
tasks.parse_model = wrapper
yolo_attn.install()
model, _ = tasks.parse_model({"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SE", []]], "head": []}, 3, verbose=False)
assert type(model[1]).__name__ == "SEAttention" and calls == [1]
yolo_attn.uninstall()
assert tasks.parse_model is wrapper and inner.__code__ is originals[0]
tasks.parse_model = inner

# a fresh import of the kit takes over from the old one: never two layers
yolo_attn.install()
for name in [n for n in sys.modules if n.partition(".")[0] == "yolo_attn"]:
    del sys.modules[name]
import yolo_attn as again
assert again.installed() == ["ultralytics"]
assert inspect.getsource(tasks.parse_model).count(".find(") == 1
model, _ = tasks.parse_model({"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SE", []]], "head": []}, 3, verbose=False)
assert type(model[1]) is again.get_module("SE")  # the new import's class, by the new import's registry
again.uninstall()
assert tasks.parse_model.__code__ is originals[0]

# somebody patched the parser in memory: refuse and say so
def parse_model(d, ch, verbose=True):
    return None
mine = parse_model.__code__
tasks.parse_model.__code__ = mine
try:
    again.install()
except again.YoloAttnError as exc:
    for word in ("ultralytics", sys.modules["ultralytics"].__version__, tasks.__file__, "something else has patched"):
        assert word in str(exc), (word, str(exc))
else:
    raise AssertionError("a patched parser must be refused")
assert tasks.parse_model.__code__ is mine
print("all scenes")
"""


def test_install_and_uninstall() -> None:
    """Idempotent, reversible to the very same code objects, safe in threads and below foreign wrappers."""
    assert "all scenes" in run_python("-c", SCENES).ok()


MORE_SCENES = """
import importlib, inspect, pickle, sys, threading
import yolo_attn

# threads that look names up at once: none sees a registry half filled
found = []
threads = [threading.Thread(target=lambda: found.append(yolo_attn.get_module("SEAttention"))) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(found) == 4 and len(set(found)) == 1

from yolo_attn.hook import install
from ultralytics.nn import tasks
from ultralytics.nn.tasks import parse_model as by_name
from torch import nn

def build(name="ECA", parse=None):
    d = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, name, []], [-1, 1, "SE", []]], "head": []}
    return (parse or tasks.parse_model)(d, 3, verbose=False)[0]

def unknown(parse=None):
    try:
        build(parse=parse)
    except KeyError as exc:
        return type(exc) is KeyError

# functions pickle as ever, and their source is the host's
assert pickle.loads(pickle.dumps(tasks.parse_model)) is tasks.parse_model
for function in (tasks.yaml_model_load, tasks.BaseModel.load, tasks.BaseModel.fuse):
    assert f"def {function.__name__}(" in inspect.getsource(function).splitlines()[0]

# tracing tools see the parser
seen = set()
def trace(frame, event, arg):
    seen.add(frame.f_code.co_name)
    return trace
sys.settrace(trace)
build()
sys.settrace(None)
assert {"parse_model", "find", "place"} <= seen

# the host is reloaded: the new functions are hooked, the old ones still are, and all are given back
importlib.reload(tasks)
assert by_name is not tasks.parse_model and yolo_attn.installed() == ["ultralytics"]
build(), build(parse=by_name)
importlib.reload(tasks)
build()
yolo_attn.uninstall()
assert unknown() and unknown(by_name) and not [n for n in vars(tasks) if "yolo_attn" in n]
assert yolo_attn.installed() == [] and not [f for f in sys.meta_path if type(f).__name__ == "Watch"]
importlib.reload(tasks)
assert unknown()
yolo_attn.install()
build()

# the host is dropped and imported again
del sys.modules["ultralytics.nn.tasks"]
tasks = importlib.import_module("ultralytics.nn.tasks")
assert yolo_attn.installed() == ["ultralytics"]
build()

# the kit is reloaded
importlib.reload(install)
importlib.reload(yolo_attn)
build()
assert [type(f).__name__ for f in sys.meta_path].count("Watch") == 1

# uninstalled by another thread in the middle of a row: the build goes on to its end
class Middle(nn.Module):
    def __init__(self, channels):
        super().__init__()
        thread = threading.Thread(target=install.uninstall)
        thread.start(), thread.join()
    def forward(self, x):
        return x
yolo_attn.register("Middle", Middle)
assert type(build("Middle")[2]).__name__ == "SEAttention" and unknown()
install.install(); install.uninstall()
assert not [n for n in vars(tasks) if "yolo_attn" in n]
print("all scenes")
"""


def test_reloads_and_concurrent_uninstall() -> None:
    """Whatever is reloaded or dropped, the host's parser is the kit's until `uninstall`, and the host's after it."""
    assert "all scenes" in run_python("-c", MORE_SCENES).ok()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            "        else:\n            c2 = ch[f]\n",
            "        else:\n            c2 = ch[f] + 0\n",
            "default channel rule",
        ),
        ("        if i == 0:\n            ch = []\n", "        if not layers[1:]:\n            ch = []\n", "restart"),
    ],
)
def test_refuses_a_parser_of_another_shape(host_copy: Path, tmp_path: Path, old: str, new: str, named: str) -> None:
    """A changed host gets a precise error where the hook is asked for, and a warning where it is implied."""
    changed = tmp_path / "changed"
    shutil.copytree(host_copy, changed)
    file = changed / "ultralytics" / "nn" / "tasks.py"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    env = {"PYTHONPATH": os.pathsep.join([str(changed), str(ROOT)])}
    code = "import yolo_attn, ultralytics.nn.tasks as t; print('host imported'); yolo_attn.install()"
    run = run_python("-c", code, env=env)
    assert "host imported" in run.out  # the implied hook never breaks the host's own import
    assert run.code != 0
    last = run.err.strip().splitlines()[-1]
    for word in ("cannot patch ultralytics 8.", str(file), named, "Supported:"):
        assert word in last, (word, run.err)


def test_importing_the_kit_costs_nothing(python) -> None:  # type: ignore[no-untyped-def]
    """`import yolo_attn` imports neither a host nor torch nor matplotlib, and `list` and `--help` do without too."""
    code = """
    import sys
    import yolo_attn
    heavy = {"torch", "ultralytics", "matplotlib", "numpy", "cv2", "onnx"} & set(sys.modules)
    assert not heavy, heavy
    from yolo_attn.cli import main
    assert main(["list"]) == 0 and main(["--help"]) == 0 and main(["list", "--configs"]) == 0
    heavy = {"torch", "ultralytics", "matplotlib", "cv2", "onnx"} & set(sys.modules)
    assert not heavy, heavy
    """
    assert "SEAttention" in python(code).ok()


def test_quiet(python) -> None:  # type: ignore[no-untyped-def]
    """Nothing is printed by hooking."""
    run = python("import yolo_attn, ultralytics.nn.tasks; assert yolo_attn.installed() == ['ultralytics']")
    run.ok()
    assert run.out.strip() == "" or "settings" in run.out.lower()
    assert "yolo_attn" not in run.err


@pytest.mark.slow
def test_checkpoints_load_under_safe_load(tmp_path: Path) -> None:
    """With only classes declared safe: each kind of part that the kit's modules have, in a fresh process."""
    save = """
    import sys, torch, yolo_attn
    from ultralytics import YOLO
    for cfg in sys.argv[2:]:
        YOLO(cfg).save(f"{sys.argv[1]}/{cfg}.pt")
    """
    load = """
    import glob, sys, yolo_attn
    from ultralytics import YOLO
    for file in sorted(glob.glob(f"{sys.argv[1]}/*.pt")):
        print("LOADED", type(YOLO(file).model).__name__)
    """
    cfgs = ["yolov5n_se.yaml", "yolov5n_cbam.yaml", "yolov5n_c3ca.yaml"]
    run_python("-c", textwrap.dedent(save), str(tmp_path), *cfgs).ok()
    run = run_python("-c", textwrap.dedent(load), str(tmp_path), env={"ULTRALYTICS_SAFE_LOAD": "1"})
    assert run.ok().count("LOADED DetectionModel") == len(cfgs)
