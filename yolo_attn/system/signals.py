"""Hold signals back while something is done that must not be half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["undisturbed"]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for a short time, and handle the first of them afterwards.

    Signals are handled in the main thread; in others, nothing is to be held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    late: list[tuple[int, Any]] = []
    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):  # not where the system's own handling ends the process
                before[number] = handler
                signal.signal(number, lambda *told: late.append(told))
        yield
    finally:
        for held, handler in before.items():
            signal.signal(held, handler)
        for arrived, frame in late[:1]:
            before[arrived](arrived, frame)
