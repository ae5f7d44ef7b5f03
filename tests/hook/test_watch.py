"""The watch over imports, on small modules in a process of its own: each way that a module's code comes to run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Callable

import pytest
from conftest import Run

SCENES = """
import importlib, importlib.util, sys, threading
from yolo_attn.hook.watch import Watch
told = []
watch = Watch(["plain", "amid", "broken", "package.inner", "zipped", "absent"], lambda m: told.append((m.__name__, m.DONE)))

def expect(*names):
    assert told == [(n, True) for n in names], told
    told.clear()

import builtins
builtins.watch = watch
importlib.import_module("amid")  # starts the watch while it is imported itself
expect("amid")
assert type(sys.modules["amid"].__spec__).__name__ == "ModuleSpec"

import plain
expect("plain")
loader = type(plain.__loader__).__name__
assert loader == type(plain.__spec__.loader).__name__ == "SourceFileLoader"
import plain
expect()
importlib.reload(plain)
expect("plain")
assert type(plain.__spec__.loader).__name__ == loader
del sys.modules["plain"]
import plain
expect("plain")

for _ in range(2):  # a failed import is nobody's; the next one is told of
    try:
        import broken
    except ZeroDivisionError:
        pass
    expect()
sys.allowed = True
import broken
expect("broken")

import package.inner
expect("package.inner")
sys.path.insert(0, "modules.zip")
import zipped
assert zipped.DONE and type(zipped.__loader__).__name__ == "zipimporter"
expect("zipped")
assert importlib.util.find_spec("absent") is None
try:
    import absent
except ModuleNotFoundError as exc:
    assert exc.name == "absent"

# threads that import the same module: told of once, and not before it is whole
del sys.modules["plain"]
threads = [threading.Thread(target=importlib.import_module, args=("plain",)) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
expect("plain")

watch.start(), watch.start()
assert sys.meta_path.count(watch) == 1
watch.stop(), watch.stop()
assert watch not in sys.meta_path
del sys.modules["plain"]
import plain
expect()

# a second kit of the same name takes the first one's place
watch.start()
other = Watch(["plain"], lambda m: told.append(("other", True)))
other.start()
del sys.modules["plain"]
import plain
expect("other")
other.stop()
print("all scenes")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small modules, each of which says when it is whole."""
    for name, text in {
        "plain.py": "import time\ntime.sleep(0.01)\n",
        "amid.py": "watch.start()\n",
        "broken.py": "import sys\n1 / getattr(sys, 'allowed', 0)\n",
        "package/__init__.py": "",
        "package/inner.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"DONE = False\n{text}DONE = True\n", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "modules.zip", "w") as file:
        file.writestr("zipped.py", "DONE = True\n")
    return tmp_path


def test_each_way_to_import(folder: Path, python: Callable[..., Run]) -> None:
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{SCENES}"
    assert "all scenes" in python(code, env={"YOLO_ATTN_HOOK": "0"}).ok()
