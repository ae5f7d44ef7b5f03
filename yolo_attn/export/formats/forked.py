"""A conversion in a fork of this process, which has what was defined in it, and of its threads one alone."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...system.drafts import forget
from .converter import answer_of, end_with, printing_to
from .unanswered import failure, patience

__all__ = ["forked"]


def forked(call: Callable[[], Path], folder: Path, log: Path, title: str, more: str) -> dict[str, Any]:
    """Make a call in a fork of this process, and return its answer.

    Args:
        call: The conversion.
        folder: The working directory that it gets.
        log: The file that it prints to.
        title: What converts, for messages.
        more: What else to tell where there is no answer.

    Raises:
        YoloAttnError: It crashed, was ended, or took too long.
    """
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
        with patience(lambda: _kill(pid)) as hung, os.fdopen(taken, "rb") as pipe:
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
    raise failure(code, hung.is_set(), title, log, more)


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
