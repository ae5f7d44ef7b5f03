"""The process that conversions run in, ``python -m yolo_attn.export.formats.converter MODE MODULE...``; see :mod:`.apart`.

It imports the modules (``torch``, ``ultralytics``), and then answers what comes on its standard input: a byte, which is answered by one, then a frame
of :mod:`yolo_attn.runtime.child` with a call as a pickle, which is answered by a frame with its result. In the mode
``forks``, each call runs in a fork of this process, which has one thread and has computed nothing; in the mode ``once``,
one call runs in this process, which then ends. When the process that asks ends, however it ends, this one does, with all
that it launched.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ...errors import YoloAttnError, first_line
from ...runtime.child import get, put
from ...system.drafts import forget

__all__ = ["FORKS", "answer_of", "end_with", "inside", "loading", "printing_to"]

FORKS = sys.platform.startswith("linux")  # elsewhere system libraries do not stand it
IDLE = 60.0  # seconds after which this process ends, with the memory that it takes

loading = threading.Event()  # set while this process imports what it converts


def answer_of(call: Callable[[], Path]) -> dict[str, Any]:
    """Make a call, and return what came of it: ``path``, or ``error`` and the ``kind`` of the error."""
    try:
        return {"path": str(call())}
    except YoloAttnError as exc:
        return {"error": str(exc), "kind": type(exc).__name__}
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # converters raise anything, SystemExit among it
        traceback.print_exc()
        told = first_line(exc)
        if told.startswith("Traceback"):  # of a compiler that passes its own on as text
            told = str(exc).strip().splitlines()[-1]
        return {"error": f"{type(exc).__name__}: {told[:400]}", "kind": "ExportError"}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def printing_to(log: Path) -> None:
    """Write what this process prints, from Python or below it, to a file."""
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)


def _converted(asked: IO[bytes]) -> dict[str, Any]:
    """Read a call, and make it."""
    head, (data, *buffers) = get(asked)
    threading.Thread(target=end_with, args=(asked,), daemon=True).start()
    os.environ.clear()
    os.environ.update(head["env"])
    sys.path[:] = head["path"]
    printing_to(Path(head["log"]))
    os.chdir(head["folder"])
    try:
        from ...hook.install import repair
        from ...registry import registry
        from ...weights.attention import name_of
        from .converter import loading  # not of __main__, which this module is here

        repair()  # what a detector of an older host needs is there before its classes are imported
        loading.set()
        known, convert, given = pickle.loads(data.data, buffers=buffers)  # from the process that launched this one
        loading.clear()
        for cls, name in known.items():
            if name_of(cls) is None:
                registry.register(name, cls)
    except (Exception, SystemExit) as exc:  # of a module that only the other process can import, or that ends its import
        traceback.print_exc()
        return {"unready": f"another process cannot load it ({type(exc).__name__}: {first_line(exc)[:150]})"}
    answer = answer_of(lambda: convert(*given))
    sys.stdout.flush()
    return answer


def end_with(asked: IO[bytes]) -> None:
    """End this process, and what it launched, once the process that asked has ended."""
    with contextlib.suppress(OSError):
        asked.read(1)
    if os.name == "nt":
        os._exit(1)
    os.killpg(0, signal.SIGKILL)


def _in_fork() -> dict[str, Any]:
    """Convert in a fork; return its answer, or the ``code`` that it ended with."""
    taken, given = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(taken)
            with os.fdopen(given, "wb") as stream:
                stream.write(json.dumps(_converted(os.fdopen(0, "rb"))).encode())
            forget()
            code = 0
        finally:
            os._exit(code)
    os.close(given)
    with os.fdopen(taken, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if data:
        answer: dict[str, Any] = json.loads(data)
        return answer
    return {"code": -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)}


def main() -> None:
    """Answer until nothing more can be asked."""
    import select

    forks = sys.argv[1] == "forks"
    given = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed is no answer
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # read when the host is imported
    if "torch" in sys.argv[2:]:  # each once, for all forks
        importlib.import_module("torch")
    if "ultralytics" in sys.argv[2:]:
        importlib.import_module("ultralytics")
        importlib.import_module("yolo_attn.export.formats.host")
    while True:
        if forks and not select.select([0], [], [], IDLE)[0]:
            return
        if not os.read(0, 1):
            return
        given.write(b"+")
        given.flush()
        put(given, _in_fork() if forks else _converted(os.fdopen(0, "rb")), [])
        if not forks:
            forget()
            os._exit(0)  # not waiting for the thread that reads


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # the other process has ended
        main()
