"""Two hosts in one process, every order of importing and installing, and modules that are somebody else's."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import prepare_hosts
import pytest
from classic_host import Classic, classic, installed
from conftest import ROOT, Cases, Run, run_python
from test_classic import TUTORIAL

__all__ = ["classic"]

# One process walks the orders: hosts are taken out of sys.modules between them, so that each import is a first one.
ORDERS = """
import itertools, sys, torch
from yolo_attn.hook.patching import patches_below  # its mark is the same in every import of the kit
__import__("yolo_attn").uninstall()
def forget():
    for n in list(sys.modules):
        if n.partition(".")[0] in ("yolo_attn", "models", "utils") or n in ("yolov5.models.yolo", "yolov5.utils.general"):
            del sys.modules[n]
def host():
    global yolo, general
{indented}
    return yolo
def builds(yolo):
    marked = [f for f in (yolo.parse_model, yolo.Model.fuse, yolo.Model.info) if next(patches_below(f), None)]
    assert len(marked) in (0, 3), marked
    return bool(marked)
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
    yolo_attn.uninstall()
    assert not builds(yolo), order
    assert not [n for n in vars(yolo) if "yolo_attn" in n], order
    count += 1
print("ORDERS", count)
"""


ONE = Cases("""
import functools, inspect, sys, threading, torch
import yolo_attn
yolo_attn.uninstall()
{host}
from {module} import parse_model as by_name
code, init = yolo.parse_model.__code__, yolo.Model.__init__
check, signature = general.check_file.__code__, inspect.signature(yolo.Model)
yolo_attn.install()

def case_a_parser_imported_by_name_is_hooked():
    assert yolo.parse_model is by_name and by_name.__code__ is not code
    yolo.Model("yolov5n_se.yaml")

def case_installing_twice_is_installing_once():
    hooked = by_name.__code__
    yolo_attn.install()
    assert by_name.__code__ is hooked

def case_signatures_stay():
    assert inspect.signature(yolo.Model) == signature

def case_a_foreign_wrapper_over_the_parser_survives():
    calls = []
    @functools.wraps(by_name)
    def foreign(*args, **kwargs):
        calls.append(1)
        return by_name(*args, **kwargs)
    yolo.parse_model = foreign
    try:
        yolo_attn.uninstall(); yolo_attn.install()
        yolo.Model("yolov5n_se.yaml")
        assert calls == [1] and yolo.parse_model is foreign
    finally:
        yolo.parse_model = by_name

def case_threads_that_build_while_others_install():
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

def case_two_hosts_build_one_yaml():
    from ultralytics.nn import tasks
    assert "ultralytics" in yolo_attn.installed() and len(yolo_attn.installed()) == 2
    tasks.DetectionModel("yolov5n_se.yaml", verbose=False)
    yolo.Model("yolov5n_se.yaml")

def case_both_hosts_are_given_back():
    from ultralytics.nn import tasks
    both = tasks.parse_model.__code__
    yolo_attn.uninstall(); yolo_attn.uninstall()
    assert by_name.__code__ is code and yolo.Model.__init__ is init and general.check_file.__code__ is check
    assert tasks.parse_model.__code__ is not both and yolo_attn.installed() == []
    assert not [n for m in list(sys.modules.values()) for n in vars(m) if "_yolo_attn" in n]
    try:
        yolo.Model("yolov5n_se.yaml")
    except FileNotFoundError:
        return
    raise AssertionError("it still builds")
""")


@pytest.mark.slow
def test_orders(classic: Classic, tmp_path: Path) -> None:
    indented = "".join(f"    {line}\n" for part in classic.imports.splitlines()[:-1] for line in part.split("; "))
    code = ORDERS.replace("{indented}", indented)
    out = classic.python(code, cwd=tmp_path).ok()
    assert int(out.rpartition("ORDERS")[2]) == 24


@pytest.mark.parametrize("what", ONE.names)
def test_two_hosts_in_one_process(what: str, classic: Classic, tmp_path: Path) -> None:
    def run(code: str) -> Run:
        return classic.python(code.replace("{module}", f"{classic.prefix}models.yolo"), cwd=tmp_path)

    ONE.check(what, run, classic.name)


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
        "assert 'torch' not in sys.modules and not yolo_attn.hook.install.failures()\n",
        cwd=tmp_path,
    )  # fmt: skip
    assert run.ok() == "" and run.err == ""


@pytest.mark.slow
def test_the_matrix_of_hosts(tmp_path: Path) -> None:
    """A slice of what `python tools/host_matrix.py` prints: the lowest version; the newest is what other tests run on."""
    lowest, tool = prepare_hosts.lowest(), str(ROOT / "tools" / "host_matrix.py")
    assert {lowest, prepare_hosts.PACKAGE} <= set(run_python(tool, "--list").ok().split())
    into = Path(installed(lowest)[0]).parent
    asked = ["--hosts", lowest, "--configs", "yolov5_se.yaml", "yolo11_se.yaml", "--sizes", "n", "s"]
    run = run_python(tool, *asked, "--into", str(into), cwd=tmp_path)
    rows = [[c.strip() for c in line.split("|")[2:-1]] for line in run.ok().splitlines()[2:]]
    assert rows == [
        ["yolov5_se.yaml", "2,665,696", "9,196,672"],
        ["yolo11_se.yaml", *["refused: no module is called 'C3k2'"] * 2],
    ]


def test_a_host_too_old_to_train_with_is_named(tmp_path: Path) -> None:
    """As 8.0.0, which has no `ultralytics.utils`."""
    (tmp_path / "ultralytics").mkdir()
    (tmp_path / "ultralytics" / "__init__.py").write_text("__version__ = '8.0.0'\n", encoding="utf-8")
    run = run_python(
        str(ROOT / "train_detect.py"), "--cfg", "yolov5n_se.yaml", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert "ultralytics 8.0.0 is not supported" in run.mistake()


# A checkout whose own `models/common.py` imports the kit, and so before its parser is defined; then once more.
AMID = """
import sys
for _ in range(2):
    exec(sys.argv[1])
    import yolo_attn
    assert [h for h in yolo_attn.installed() if "yolov5" in h]
    yolo.Model("yolov5n_se.yaml")
    for name in [n for n in sys.modules if "models." in n and "yolo_attn" not in n]:
        del sys.modules[name]
"""


@pytest.mark.slow
def test_imported_amid_its_own_import_and_again(copied: Classic, tmp_path: Path) -> None:
    """Under `python -OO`, which compiles the host without docstrings."""
    copied.python(AMID, copied.imports, cwd=tmp_path, env={"PYTHONOPTIMIZE": "2"}).ok()


@pytest.mark.slow
def test_a_host_without_source(classic: Classic, copied: Classic, tmp_path: Path) -> None:
    """Compiled files only: importing goes on, asking for the hook names the host, the file and the reason."""
    models = copied.root / "models"
    compileall.compile_dir(str(models), quiet=1, legacy=True)
    (models / "yolo.py").rename(models / "yolo.py.away")
    try:
        run = copied.python("import yolo_attn\n{host}\nprint('HERE', yolo.__file__)\nyolo_attn.install()", cwd=tmp_path)
    finally:
        (models / "yolo.py.away").rename(models / "yolo.py")
    assert "HERE" in run.out and run.code
    last = run.err.strip().splitlines()[-1]
    for word in ("cannot patch yolov5", str(models / "yolo.pyc"), "its source is not available", "Supported:"):
        assert word in last


@pytest.fixture(scope="module")
def copied(classic: Classic, tmp_path_factory: pytest.TempPathFactory) -> Classic:
    """A copy of the host whose `models/common.py` imports the kit."""
    folder = tmp_path_factory.mktemp("copied")
    copy = folder / (classic.root.name if classic.prefix else "copy")
    shutil.copytree(classic.root, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "runs", "*.jpg", "*.pt"))
    common = copy / "models" / "common.py"
    common.write_text("import yolo_attn\n" + common.read_text(encoding="utf-8"), encoding="utf-8")
    return Classic(classic.name, copy, classic.prefix, (str(folder), *classic.path))


# Rows of registered modules from a file in the host's own dialect, then with the run-time hook as well.
PATCHED = """
import hashlib, sys, torch, yolo_attn
{host}
def digest(cfg):
    torch.manual_seed(0)
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in yolo.Model(cfg).state_dict().values())).hexdigest()
hooked = [h for h in yolo_attn.installed() if "yolov5" in h]
assert bool(hooked) == (sys.argv[2] == "hooked") and hasattr(yolo, "_yolo_attn_rows") != bool(hooked)
first = digest(sys.argv[1])
yolo_attn.install()
assert not yolo_attn.hook.install.failures()
print("HASHES", first, digest("yolov5n_se.yaml"))
"""


@pytest.mark.slow
def test_patch_gives_a_diff_that_applies(classic: Classic, tmp_path: Path) -> None:
    """With Windows' line ends, a form feed and a path that no console's encoding holds; then the model without hooking."""
    fork = tmp_path / "my fork \u5206\u652f"
    copy = fork / (classic.root.name if classic.prefix else "copy")
    shutil.copytree(classic.root, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "runs", "*.jpg", "*.pt"))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    file = copy / "models" / "yolo.py"
    file.write_bytes(b"# \x0c\r\n" + file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    ask = [sys.executable, "-m", "yolo_attn", "patch", "--diff", "yolo.py"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    diff = subprocess.run(ask, cwd=file.parent, env=env, check=True, capture_output=True).stdout
    changes = [line for line in diff.splitlines() if line[:1] in b"+-" and line[:3] not in (b"+++", b"---")]
    assert [c[:1] for c in changes] == [b"+", b"-", b"+", b"-", b"+"]
    subprocess.run(["git", "apply", "-"], input=diff, cwd=tmp_path, check=True)
    assert file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n")
    patched = Classic(classic.name, copy, classic.prefix, (str(fork), *classic.path))
    cfg = tmp_path / "tutorial.yaml"
    cfg.write_text(TUTORIAL, encoding="utf-8")
    hooked = classic.python(PATCHED, str(cfg), "hooked", cwd=tmp_path).ok().rpartition("HASHES")[2]
    on_disk = patched.python(PATCHED, str(cfg), "on disk", cwd=tmp_path, env={"YOLO_ATTN_HOOK": "0"}).ok()
    assert on_disk.rpartition("HASHES")[2] == hooked
    again = run_python("-m", "yolo_attn", "patch", "--diff", str(file), cwd=tmp_path).mistake()
    assert "patched already" in again


OLD_NUMBERS = {
    "models/__init__.py": "",
    "models/yolo.py": "import torch.nn as nn\nfrom utils.general import *\nclass Model(nn.Module): pass\nclass Detect(nn.Module): pass\n"
    "Concat = Conv = make_divisible = check_anchor_order = Detect\ndef parse_model(d, ch): pass\n",
    "utils/__init__.py": "",
    "utils/general.py": "import numpy as np\ndef check_yaml(): pass\nmake_divisible = non_max_suppression = strip_optimizer = check_yaml\n"
    "def intersect_dicts(da, db, exclude=()): pass\ndef check_file(file): pass\n"
    "def labels_to_class_weights(labels): return np.bincount(labels.astype(np.int))\n",
    "train.py": "import numpy as np\nimport models.yolo, utils.general\n"
    "print('WEIGHTS', utils.general.labels_to_class_weights(np.array([0., 1., 1.])).tolist())\n",
}  # fmt: skip


def test_a_dropped_name_of_numpy_in_the_hosts_general_module(tmp_path: Path) -> None:
    """As v6.0 and v6.1 count their labels, before the first epoch; `yolo-attn run` gives the name back."""
    for name, text in OLD_NUMBERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert "WEIGHTS [1, 2]" in run_python("-m", "yolo_attn", "run", "train.py", cwd=tmp_path).ok()


def test_every_dropped_name_of_a_host_is_repaired(classic: Classic) -> None:
    """Every module of the checkout that uses a name which NumPy has dropped is one that the launchers repair."""
    import yolo_attn.patches as patches
    from yolo_attn.patches.yolov5_dated import DROPPED

    host = next(h for h in patches.HOSTS if h.name.startswith("yolov5") and h.prefix == classic.prefix)
    used = re.compile(rf"\bnp\.({'|'.join(DROPPED)})\b")
    for path in [*classic.root.glob("utils/*.py"), *classic.root.glob("models/*.py")]:
        lines = [x for x in path.read_text(encoding="utf-8").splitlines() if used.search(x) and "hasattr" not in x]
        module = f"{classic.prefix}{path.parent.name}.{path.stem}"
        assert not lines or module in host.repaired, (module, lines)
