"""The process of a command: a home folder, no leftovers of killed processes, SIGTERM handled like Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import files
from ..log import announce
from . import drafts

__all__ = ["Terminated", "exit_code", "ready"]


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: a command ends as after Ctrl-C, removing its drafts and printing its hints."""


def exit_code(exc: KeyboardInterrupt) -> int:
    """Return the exit code that shells expect of an interrupted process: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (signal.SIGTERM if isinstance(exc, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def ready(*, script: bool = False) -> Iterator[None]:
    """Prepare this process for a command, and restore it on exit.

    Args:
        script: The command runs a user's script, which handles signals itself.
    """
    left = drafts.sweep()
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        announce("removed what a killed process left: %s%s", left[0], more)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_home())
        if not script:
            stack.enter_context(_terminated())
        yield


@contextlib.contextmanager
def _home() -> Iterator[None]:
    """Set HOME for this process and those it launches where there is none: the hosts need one too."""
    try:
        Path.home()
    except RuntimeError:
        folder = files.home_folder()
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
        announce("this user has no home folder: using %s. Set HOME to use another.", folder)
        os.environ["HOME"] = str(folder)
        try:
            yield
        finally:
            os.environ.pop("HOME", None)
    else:
        yield


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
