"""The new processes that conversions run in, as this one sees them; what runs there is :mod:`.converter`."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import ExportError
from ...runtime.child import Killed, ended, from_outside, get, put
from ...system import launch
from . import converter
from .unanswered import failure, last_line, patience

__all__ = ["converted"]

_idle: list[_Converter] = []


class _Converter:
    """A process that converts, as seen from this one. On Linux it makes several conversions, each in a fork of itself."""

    def __init__(self) -> None:
        loaded = [m for m in ("torch", "ultralytics") if m in sys.modules]  # what a detector of this kind needs
        session: dict[str, Any] = {"start_new_session": True} if os.name != "nt" else {}
        self.owner = os.getpid()
        self._told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close(); why it cannot start
        mode = "forks" if converter.FORKS else "once"
        self._process = subprocess.Popen(
            launch.command(f"{__package__}.converter", mode, *loaded),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._told, env=launch.environment(), cwd=launch.HOME, **session,
        )  # fmt: skip

    def ready(self) -> bool:
        """Whether it takes a conversion; one that was idle for long has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(b"?")
            self._process.stdin.flush()
            return self._process.stdout.read(1) == b"+"
        except OSError:
            return False

    def convert(self, head: dict[str, Any], pieces: list[np.ndarray]) -> dict[str, Any]:
        """Convert, and return the answer; empty where there is none, and ``code`` is how the process ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            put(self._process.stdin, head, pieces)
            return get(self._process.stdout)[0]
        except (OSError, EOFError):
            return {"code": self._process.wait()}

    def code(self) -> int | None:
        """Return the code that it ended with, None where it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=5)
        return None

    def end(self) -> None:
        """End it, and what it launched."""
        with contextlib.suppress(OSError):
            if os.name == "nt":
                self._process.kill()
            elif self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own

    def kill(self) -> None:
        """End it, and wait until it has ended."""
        self.end()
        self.close()

    def close(self) -> None:
        """Let it end: it does once nothing more can be asked."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
        self._told.close()

    def said(self) -> str:
        """Return the last line that it printed before it took a conversion."""
        self._told.seek(0)
        return last_line(self._told.read())


def converted(head: dict[str, Any], pieces: list[np.ndarray], title: str, log: Path) -> dict[str, Any]:
    """Convert in a new process, and return its answer.

    Raises:
        ExportError: It crashed, was ended, or took too long.
    """
    known = _taken()
    try:
        with patience(known.end) as hung:
            answer = known.convert(head, pieces)
    except BaseException:
        known.kill()
        raise
    if "code" not in answer:
        if converter.FORKS:
            _idle.append(known)
        else:
            known.close()
        return answer
    known.kill()
    raise failure(answer["code"], hung.is_set(), title, log)


def _taken() -> _Converter:
    """Return a process that is ready to convert.

    Raises:
        ExportError: None can be launched.
    """
    while (known := _popped()) is not None:
        if known.owner != os.getpid():  # of the process that this one was forked from
            continue
        if known.ready():
            return known
        known.kill()
    try:
        new = _Converter()
    except OSError as exc:  # too many processes, too little memory, no temporary folder
        raise ExportError(f"no process that converts can be launched: {exc.strerror or exc}") from exc
    try:
        ready = new.ready()
    except BaseException:
        new.kill()
        raise
    if ready:
        return new
    code, said = new.code(), new.said()
    new.kill()
    if from_outside(code):
        raise Killed(f"the process that converts {ended(code)}, before it began. Try again")
    raise ExportError(f"the process that converts, {sys.executable} -m {__package__}.converter, {ended(code)} before it began{said}")


def _popped() -> _Converter | None:
    try:
        return _idle.pop()
    except IndexError:  # there is none, or another thread has taken it
        return None


@atexit.register
def _close() -> None:
    while (known := _popped()) is not None:
        if known.owner == os.getpid():
            known.kill()  # it waits; a fork of this process may hold the pipe open, so that it would go on to wait
