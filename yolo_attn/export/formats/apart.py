"""Convert in a process of its own: compilers of networks print, install signal handlers, and crash.

The process is a new one (:mod:`.converter`), which is given the detector through a pipe. It is not a fork of this one:
threads of OpenVINO, of OpenMP or of a notebook do not exist in a fork, where others wait for them; and Windows and macOS
do not fork such a process at all.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType
from typing import IO, Any

import numpy as np

from ... import errors
from ..._name import PACKAGE
from ...errors import ExportError, first_line
from ...log import announce
from ...runtime.child import Killed, ended, from_outside, get, put
from ...system import launch
from ...system.drafts import forget
from ...weights.attention import name_of
from .base import Job
from .converter import FORKS, answer_of, end_with, inside, loading, printing_to

__all__ = ["PATIENCE", "convert_apart"]

PATIENCE = 1800.0  # seconds for one conversion
REMEDY = "Define it in a file of its own, and load that with --plugin FILE or yolo_attn.load_plugin"

# Whose functions are found in classes of others: of torch, its own, and what the kit does to a host on import.
LENDERS = ("torch.", "typing", f"{PACKAGE}.", "None")

_idle: list[_Converter] = []


def convert_apart(convert: Callable[..., Path], folder: Path, title: str, *given: Any) -> Path:
    """Run a conversion in a new process whose working directory is `folder`; return the path of the result.

    What a new process cannot import, such as a class that was defined in a notebook, is converted in a fork of this
    process; where processes do not fork, in this one, which is announced.

    Args:
        convert: Writes into the working directory, and returns a path below it.
        folder: An empty folder.
        title: What converts, for messages.
        given: Its arguments.

    Raises:
        ExportError: The conversion failed, or crashed; the message has its first line.
    """
    if loading.is_set():  # a module that exports on import: each process would launch the next
        raise ExportError(f"{title} was asked for by a module that the process that converts imports. Export below its main guard")
    folder = folder.resolve()
    log = folder.with_name(folder.name + ".log")
    pieces, alone = _packed(convert, given)
    answer: dict[str, Any] = {}
    if not alone:
        head = {"env": dict(os.environ), "path": launch.search_path(), "folder": str(folder), "log": str(log)}
        answer = _converted(head, pieces, title, log)
        alone = answer.get("unready", "")
    if alone:
        call = functools.partial(convert, *given)
        if FORKS:
            answer = _forked(call, folder, log, title, alone)
        else:
            announce("%s runs in this process, since %s: if it crashes, this process ends. %s", title, alone, REMEDY)
            with inside(folder):
                answer = answer_of(call)
    if "error" in answer:
        kind = getattr(errors, answer["kind"], ExportError)
        raise kind(answer["error"])
    made = folder / answer["path"]
    if not made.exists() or (made.is_file() and not made.stat().st_size):
        raise ExportError(f"{title} reported success and wrote nothing{_last(log)}")
    return made


def _packed(convert: Callable[..., Path], given: tuple[Any, ...]) -> tuple[list[np.ndarray], str]:
    """Return a call as what goes through a pipe, or why a new process cannot make it."""
    jobs = [g for g in given if isinstance(g, Job)]
    modules = [m for job in jobs for m in job.source.model.modules()]
    classes = {type(m) for m in modules}
    if why := next(filter(None, (*map(_changed, classes), *map(_changed_itself, modules))), ""):
        return [], why
    # a new process has not run what registered a user's classes
    known = {cls: name for cls in classes if not cls.__module__.startswith(f"{PACKAGE}.") and (name := name_of(cls))}
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps((known, convert, given), 5, buffer_callback=buffers.append)
    except Exception as exc:  # whatever a user's class raises; what is local to a function is no pickle
        return [], f"it cannot be given to another process ({first_line(exc)[:150]})"
    if b"__main__" in data:
        return [], "a part of it is defined in the program that runs"
    return [np.frombuffer(data, np.uint8), *(np.frombuffer(b.raw(), np.uint8) for b in buffers)], ""


def _changed(cls: type) -> str:
    """Return why a new process would not have a class as it is here."""
    if cls.__module__ == "__main__":
        return f"{cls.__name__} is defined in the program that runs"
    spec = getattr(sys.modules.get(cls.__module__), "__spec__", None)
    if getattr(spec, "_initializing", False):  # importing it would export it again, in a process that would do the same
        return f"{cls.__module__}, where {cls.__name__} is defined, is still being imported"
    for base in cls.__mro__:
        for name, value in list(vars(base).items()):
            made = getattr(value, "__func__", getattr(value, "fget", value))  # of static and class methods, of properties
            home = str(getattr(made, "__module__", None)) if isinstance(made, FunctionType) else base.__module__
            lent = name != "forward" and home.startswith(LENDERS)
            if home != base.__module__ and not lent and not _both_ours(home, base.__module__):
                return f"{base.__name__}.{name} was replaced in the program that runs"
    return ""


def _both_ours(*modules: str) -> bool:
    return all(name.startswith(f"{PACKAGE}.") for name in modules)


def _changed_itself(module: Any) -> str:
    """Return why a new process would not have an object as it is here: a method is sent by its name alone."""
    for name, value in vars(module).items():
        if isinstance(value, MethodType) and getattr(type(value.__self__), value.__func__.__name__, None) is not value.__func__:
            return f"{name} of one {type(module).__name__} was replaced in the program that runs"
    return ""


class _Converter:
    """A process that converts, as seen from this one. On Linux it makes several conversions, each in a fork of itself."""

    def __init__(self) -> None:
        loaded = [m for m in ("torch", "ultralytics") if m in sys.modules]  # what a detector of this kind needs
        session: dict[str, Any] = {"start_new_session": True} if os.name != "nt" else {}
        self.owner = os.getpid()
        self._told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close(); why it cannot start
        mode = "forks" if FORKS else "once"
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
        return _last_line(self._told.read())


def _converted(head: dict[str, Any], pieces: list[np.ndarray], title: str, log: Path) -> dict[str, Any]:
    """Convert in a new process, and return its answer.

    Raises:
        ExportError: It crashed, was ended, or took too long.
    """
    converter = _taken()
    try:
        with _patience(converter.end) as hung:
            answer = converter.convert(head, pieces)
    except BaseException:
        converter.kill()
        raise
    if "code" not in answer:
        if FORKS:
            _idle.append(converter)
        else:
            converter.close()
        return answer
    converter.kill()
    return _no_answer(answer["code"], hung.is_set(), title, log)


@contextlib.contextmanager
def _patience(end: Callable[[], Any]) -> Iterator[threading.Event]:
    """End a process that takes too long; yield what is set then."""
    hung = threading.Event()

    def late() -> None:
        hung.set()
        end()

    timer = threading.Timer(PATIENCE, late)
    timer.daemon = True
    timer.start()
    try:
        yield hung
    finally:
        timer.cancel()


def _no_answer(code: int, hung: bool, title: str, log: Path, more: str = "") -> dict[str, Any]:
    if hung:
        raise ExportError(f"{title} was stopped after {PATIENCE / 60:.0f} minutes without a result{more}")
    if from_outside(code):
        raise Killed(f"{title} {ended(code)} while converting. Try again")
    raise ExportError(f"{title} {ended(code)} while converting{more}{_last(log)}")


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


def _forked(call: Callable[[], Path], folder: Path, log: Path, title: str, why: str) -> dict[str, Any]:
    """Convert in a fork of this process, which has what was defined in it, and no thread but one."""
    (taken, given), (until, held) = _pipe(), _pipe()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed, or of a program without a terminal
            stream.flush()
    pid = 0
    try:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.close(taken)
                os.close(held)
                _child(call, folder, log, given, until)
                forget()
                code = 0
            finally:
                os._exit(code)  # nothing of the parent's is finished or flushed twice
        os.close(given)
        with _patience(lambda: _kill(pid)) as hung, os.fdopen(taken, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(pid, 0)
    except BaseException:
        if pid:
            with contextlib.suppress(OSError):
                _kill(pid)
                os.waitpid(pid, 0)
        raise
    finally:
        os.close(until)
        os.close(held)
    if data:
        answer: dict[str, Any] = pickle.loads(data)  # from this process's own child
        return answer
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    more = f". It is a fork of this process, since {why}; a fork lacks this process's threads. {REMEDY}"
    return _no_answer(code, hung.is_set(), title, log, more)


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe; neither is where a process reads or prints, in one whose own are closed."""
    ends = os.pipe()
    if min(ends) > 2:
        return ends
    try:
        return _pipe()
    finally:
        for end in ends:
            os.close(end)


def _kill(pid: int) -> None:
    """End a fork, and what it launched."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:  # it has not come to its own group
        os.kill(pid, signal.SIGKILL)


def _child(call: Callable[[], Path], folder: Path, log: Path, pipe: int, until: int) -> None:
    os.setpgid(0, 0)  # ended as a whole; the parent tells of an interruption
    threading.Thread(target=end_with, args=(os.fdopen(until, "rb", closefd=False),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    printing_to(log)
    import torch

    torch.set_num_threads(1)  # the parent's threads do not exist in a forked child, and OpenMP would wait for them
    os.chdir(folder)
    with os.fdopen(pipe, "wb") as stream:
        stream.write(pickle.dumps(answer_of(call)))
    if sys.stdout is not None:
        sys.stdout.flush()


def _last(log: Path) -> str:
    """Return the last line that the converter printed, if any."""
    try:
        return _last_line(log.read_bytes())
    except OSError:
        return ""


def _last_line(printed: bytes) -> str:
    lines = printed[-20_000:].decode("utf-8", "replace").strip().splitlines()
    lines = [text for text in lines if not text.startswith(("frame #", "<omitting python frames>"))]  # PyTorch's, of where it ended
    return f". It printed last: {lines[-1].strip()[:200]}" if lines else ""
