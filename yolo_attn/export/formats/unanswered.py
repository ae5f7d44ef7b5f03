"""What is told of a process that gave no answer: it crashed, was ended from outside, or took too long and is ended."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import ExportError, YoloAttnError
from ...runtime.child import Killed, ended, from_outside

__all__ = ["PATIENCE", "failure", "last", "last_line", "patience"]

PATIENCE = 1800.0  # seconds for one conversion


@contextlib.contextmanager
def patience(end: Callable[[], Any]) -> Iterator[threading.Event]:
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


def failure(code: int, hung: bool, title: str, log: Path, more: str = "") -> YoloAttnError:
    """Return the error that says why there is no answer: :class:`Killed` where it was ended from outside.

    Args:
        code: What the process ended with.
        hung: Whether it took too long.
        title: What converts, for messages.
        log: The file that it printed to.
        more: What else to tell.
    """
    if hung:
        return ExportError(f"{title} was stopped after {PATIENCE / 60:.0f} minutes without a result{more}")
    if from_outside(code):
        return Killed(f"{title} {ended(code)} while converting. Try again")
    return ExportError(f"{title} {ended(code)} while converting{more}{last(log)}")


def last(log: Path) -> str:
    """Return the last line that the converter printed, if any."""
    try:
        return last_line(log.read_bytes())
    except OSError:
        return ""


def last_line(printed: bytes) -> str:
    """Return the last line of what was printed, if any, as a sentence that follows another."""
    lines = printed[-20_000:].decode("utf-8", "replace").strip().splitlines()
    lines = [text for text in lines if not text.startswith(("frame #", "<omitting python frames>"))]  # PyTorch's, of where it ended
    return f". It printed last: {lines[-1].strip()[:200]}" if lines else ""
