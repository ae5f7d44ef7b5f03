"""What a command's process has while it runs: a home, no leftovers of others, SIGTERM as a Ctrl-C."""

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

__all__ = ["Terminated", "exit_code", "ready"]


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: a command ends as after Ctrl-C, with its drafts removed and its hints printed."""


def exit_code(exc: KeyboardInterrupt) -> int:
    """Return what a shell expects of a process that was stopped: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (signal.SIGTERM if isinstance(exc, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def ready(*, script: bool = False) -> Iterator[None]:
    """Prepare this process for a command, and give everything back.

    Args:
        script: The command runs somebody's script, whose signals are its own.
    """
    left = files.sweep()
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
    """Give a home to this process and those it launches, where there is none: the hosts too ask for one."""
    try:
        Path.home()
    except RuntimeError:
        folder = files.home_folder()
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
        announce("no home folder and no entry for this user: %s stands in. HOME names another.", folder)
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
