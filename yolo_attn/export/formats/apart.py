"""Convert in a process of its own: compilers of networks print, install signal handlers, and crash."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ... import errors
from ...errors import ExportError, YoloAttnError, first_line
from ...runtime.child import Killed, ended, from_outside

__all__ = ["PATIENCE", "convert_apart"]

PATIENCE = 1800.0  # seconds for one conversion


def convert_apart(convert: Callable[[], Path], folder: Path, title: str) -> Path:
    """Run a conversion in a forked child whose working directory is `folder`; return the path of the result.

    The child has the network as it is in memory, whatever plug-in or user's class it is made of. Where processes do not
    fork (Windows), it runs in this process.

    Args:
        convert: Writes into the working directory, and returns a path below it.
        folder: An empty folder.
        title: What converts, for messages.

    Raises:
        ExportError: The conversion failed, or crashed; the message has its first line.
    """
    folder = folder.resolve()
    log = folder.with_name(folder.name + ".log")
    if not hasattr(os, "fork"):
        with _inside(folder):
            answer = _answer(convert)
    else:
        answer = _forked(convert, folder, log, title)
    if "error" in answer:
        kind = getattr(errors, answer["kind"], ExportError)
        raise kind(answer["error"])
    made = folder / answer["path"]
    if not made.exists() or (made.is_file() and not made.stat().st_size):
        raise ExportError(f"{title} reported success and wrote nothing{_last(log)}")
    return made


def _forked(convert: Callable[[], Path], folder: Path, log: Path, title: str) -> dict[str, Any]:
    taken, given = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(taken)
            _child(convert, folder, log, given)
            code = 0
        finally:
            os._exit(code)  # nothing of the parent's is finished or flushed twice
    os.close(given)
    late = threading.Timer(PATIENCE, os.kill, (pid, signal.SIGKILL))
    late.start()
    try:
        with os.fdopen(taken, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(pid, 0)
    except BaseException:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    finally:
        hung = not late.is_alive()
        late.cancel()
    if data:
        answer: dict[str, Any] = pickle.loads(data)  # from this process's own child
        return answer
    if hung:
        raise ExportError(f"{title} was stopped after {PATIENCE / 60:.0f} minutes without a result")
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if from_outside(code):
        raise Killed(f"{title} {ended(code)} while converting. Try again")
    raise ExportError(f"{title} {ended(code)} while converting{_last(log)}")


def _child(convert: Callable[[], Path], folder: Path, log: Path, pipe: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent tells of an interruption
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import torch

    torch.set_num_threads(1)  # the parent's threads do not exist in a forked child, and OpenMP would wait for them
    os.chdir(folder)
    with os.fdopen(pipe, "wb") as stream:
        stream.write(pickle.dumps(_answer(convert)))
    sys.stdout.flush()


def _answer(convert: Callable[[], Path]) -> dict[str, Any]:
    try:
        return {"path": str(convert())}
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
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _last(log: Path) -> str:
    """Return the last line that the converter printed, if any."""
    try:
        lines = log.read_bytes()[-4000:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return f". It printed last: {lines[-1].strip()[:200]}" if lines else ""
