"""Conversions run in a process of their own: what it is given, what it leaves, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import MethodType
from typing import Any

import converting
import numpy as np
import pytest
from conftest import ROOT
from torch import nn

from yolo_attn.detectors.source import Source
from yolo_attn.errors import ExportError, FileError
from yolo_attn.export.formats import apart, converter, launched
from yolo_attn.export.formats.base import Job
from yolo_attn.registry import registry
from yolo_attn.runtime.child import Apart, Killed
from yolo_attn.system import launch


@pytest.fixture(params=["forks", "once"])
def mode(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """As on Linux, and as on Windows and macOS, where a process converts once."""
    if request.param == "forks" and not sys.platform.startswith("linux"):
        pytest.skip("processes fork on Linux alone")
    monkeypatch.setattr(converter, "FORKS", request.param == "forks")
    return str(request.param)


class Own(nn.Module):
    """A user's attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Any) -> Any:
        return x * self.scale(x).sigmoid()


@pytest.fixture
def job(tmp_path: Path) -> Any:
    """A network with a module of the user's, registered by this process alone."""
    registry.register("OwnOfTests", Own)
    yield Job(Source(tmp_path / "own.pt", "yolov5", nn.Sequential(nn.Conv2d(3, 8, 3), Own(8))), (64, 64))
    registry.unregister("OwnOfTests")


def test_it_is_a_new_process_with_all_that_it_needs(mode: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment and the registry are those of this process now, its memory is not; the working directory stays."""
    monkeypatch.setattr(converting, "marked", True)
    here, pictures = os.getcwd(), np.arange(300_000, dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("SET_LATE", name)
        made = apart.convert_apart(converting.about, tmp_path / name, "the test", pictures, job)
        told = json.loads(made.read_text(encoding="utf-8"))
        assert told["marked"] is False and told["late"] == name and told["folder"] == str((tmp_path / name).resolve())
        assert told["sums"] == [int(pictures.sum())] and told["networks"] == [{"1": "OwnOfTests"}]
        assert (tmp_path / f"{name}.log").read_text(encoding="utf-8") == "printed by the converter\n"
    assert os.getcwd() == here


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes fork on Linux alone")
def test_a_crash_is_one_message(tmp_path: Path) -> None:
    """A process that has ended in the meantime, for want of memory or since it was idle for long, is replaced first."""
    work = tmp_path / "work"
    work.mkdir()
    for idle in launched._idle:
        idle._process.kill()
        idle._process.wait()
    with pytest.raises(ExportError, match=r"^the test ended the process with code 3 while converting. It printed last: no room$"):
        apart.convert_apart(converting.crash, work, "the test")


def in_program(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Own, "__module__", "__main__")
    return converting.about


def replaced(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    def forward(self: Any, x: Any) -> Any:
        return x

    forward.__module__ = "__main__"
    monkeypatch.setattr(Own, "forward", forward)
    return converting.about


def local(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda job: converting.about(job)


def no_file(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a module that is in this process's memory alone."""
    monkeypatch.setitem(sys.modules, "of_a_notebook", type(sys)("of_a_notebook"))
    sys.modules["of_a_notebook"].Own = Own  # type: ignore[attr-defined]
    for part in (Own, Own.__init__, Own.forward):
        monkeypatch.setattr(part, "__module__", "of_a_notebook")
    return converting.about


def helped(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another method than forward, of a class that the module's derives from."""

    def half(self: Any, x: Any) -> Any:
        return x

    half.__module__ = "__main__"
    monkeypatch.setattr(nn.Conv2d.__base__, "_conv_forward", half, raising=False)
    return converting.about


def itself(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The method of one object: a pickle names it, and another process finds the class's by that name."""

    def forward(self: Any, x: Any) -> Any:
        return x

    monkeypatch.setattr(job.source.model[1], "forward", MethodType(forward, job.source.model[1]))
    return converting.about


def importing(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script without a main guard, imported: another process would train and export again."""
    monkeypatch.setattr(sys.modules[Own.__module__].__spec__, "_initializing", True, raising=False)
    return converting.about


def ends_its_import(job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As a script does that wants arguments."""
    folder = Path(str(job.source.path)).parent
    (folder / "wants_arguments.py").write_text("raise SystemExit(2)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    no_file(job, monkeypatch)
    monkeypatch.setitem(sys.modules, "wants_arguments", sys.modules["of_a_notebook"])
    for part in (Own, Own.__init__, Own.forward):
        monkeypatch.setattr(part, "__module__", "wants_arguments")
    return converting.about


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (helped, "_ConvNd._conv_forward was replaced in the program that runs"),
        (itself, "forward of one Own was replaced in the program that runs"),
        (importing, f"{Own.__module__}, where Own is defined, is still being imported"),
        (ends_its_import, "another process cannot load it (SystemExit: 2)"),
        (in_program, "Own is defined in the program that runs"),
        (replaced, "Own.forward was replaced in the program that runs"),
        (local, "it cannot be given to another process"),
        (no_file, "another process cannot load it (ModuleNotFoundError: No module named 'of_a_notebook')"),
    ],
)
def test_what_this_process_alone_has(
    mode: str, job: Job, plant: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is converted in a fork, or, where there is none, in this process, which says so."""
    monkeypatch.setattr(converting, "marked", True)
    convert = plant(job, monkeypatch)
    said: list[str] = []
    monkeypatch.setattr(apart, "announce", lambda text, *words: said.append(text % words))
    work = tmp_path / "work"
    work.mkdir()
    told = json.loads(apart.convert_apart(convert, work, "the test", job).read_text(encoding="utf-8"))
    assert told["marked"] is True and told["networks"] == [{"1": "OwnOfTests"}]
    if mode == "forks":
        assert not said
    else:
        assert said[0].startswith(f"the test runs in this process, since {why}") and "--plugin FILE" in said[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes fork on Linux alone")
def test_a_crash_in_a_fork_tells_why_it_is_one(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "__module__", "__main__")
    (tmp_path / "work").mkdir()
    told = r"^the test ended the process with code 3 while converting. It is a fork of this process, since Own is defined"
    with pytest.raises(ExportError, match=f"{told}.*--plugin FILE.*printed last: no room$"):
        apart.convert_apart(lambda job: converting.crash(), tmp_path / "work", "the test", job)


ASKS = """
import sys
from pathlib import Path
from yolo_attn.export.formats import apart, converter
from yolo_attn.system.drafts import scratch
import converting
converter.FORKS = sys.argv[1] == "forks"
convert = converting.endless if sys.argv[2] == "new" else lambda: converting.endless()
with scratch(Path(".")) as folder:
    (folder / "work").mkdir()
    apart.convert_apart(convert, folder / "work", "the test")
"""


def running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "mode", "where"),
    [
        (signal.SIGINT, "forks", "new"),
        (signal.SIGINT, "once", "new"),
        (signal.SIGINT, "forks", "fork"),
        (signal.SIGKILL, "forks", "new"),
        (signal.SIGKILL, "once", "new"),
        (signal.SIGKILL, "forks", "fork"),
    ],
)
def test_what_it_launched_ends_with_it(number: signal.Signals, mode: str, where: str, tmp_path: Path) -> None:
    """The converter writes on while its folder is removed, if it is not ended first."""
    pids = tmp_path / "pids"
    place = tmp_path / "place"
    place.mkdir()
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PIDS": str(pids), "PYTHONPATH": path}
    asks = subprocess.Popen([sys.executable, "-c", ASKS, mode, where], cwd=place, env=env, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300  # of a machine that is busy with others
    while not (pids.is_file() and len(pids.read_text(encoding="utf-8").split()) == 2) and time.monotonic() < until:
        assert asks.poll() is None, asks.communicate()
        time.sleep(0.02)
    time.sleep(0.1)
    asks.send_signal(number)
    asks.communicate(timeout=300)
    until = time.monotonic() + 300
    launched = [int(p) for p in pids.read_text(encoding="utf-8").split()]
    while any(running(p) for p in launched) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(running(p) for p in launched)
    if number == signal.SIGINT:
        assert list(place.iterdir()) == []


def test_a_folder_of_the_same_name_is_not_what_runs_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a user may hold a copy of the kit, or a numpy.py."""
    (tmp_path / "yolo_attn").mkdir()
    for name in ("yolo_attn/__init__.py", "numpy.py"):
        (tmp_path / name).write_text("raise SystemExit('another')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"none\.onnx"):
        Apart(Path("none.onnx"), "onnxruntime")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes fork on Linux alone")
def test_an_idle_process_ends_though_a_fork_holds_its_pipe(tmp_path: Path) -> None:
    """A worker that loads data is a fork of this process, and lives on while this one ends."""
    (tmp_path / "work").mkdir()
    apart.convert_apart(converting.about, tmp_path / "work", "the test")
    pipe = launched._idle[-1]._process.stdin
    assert pipe is not None
    held = os.dup(pipe.fileno())
    closing = threading.Thread(target=launched._close, daemon=True)
    closing.start()
    closing.join(50)  # below the minute after which it would end by itself
    ended = not closing.is_alive()
    os.close(held)
    closing.join()
    assert ended and launched._idle == []


def test_a_process_that_cannot_be_launched_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many processes run, or one is ended while it imports."""
    launched._close()

    def refused(*args: Any, **options: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    (tmp_path / "work").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refused)
        with pytest.raises(ExportError, match="^no process that converts can be launched: Resource temporarily unavailable$"):
            apart.convert_apart(converting.about, tmp_path / "work", "the test")
        with pytest.raises(ExportError, match="^no process that runs onnxruntime can be launched: Resource"):
            Apart(tmp_path / "a.onnx", "onnxruntime")
    monkeypatch.setattr(launch, "command", lambda module, *words: [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    if os.name != "nt":
        with pytest.raises(Killed, match="^the process that converts was ended by SIGKILL, as when memory runs out, before it began. Try"):
            apart.convert_apart(converting.about, tmp_path / "work", "the test")
