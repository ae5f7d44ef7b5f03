"""The kit's logger: a library logs, the command line prints.

Used as a library, the kit adds no handler and sets no level: the application that configures :mod:`logging` decides
what is shown. Where logging is not configured, :func:`announce` writes to standard error itself, as
:data:`logging.lastResort` does for warnings. A command prints through its own handler while it runs (:func:`printing`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from .errors import one_line

__all__ = ["LOGGER", "Progress", "announce", "printing"]

LOGGER = logging.getLogger("yolo_attn")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs, not before Python 3.11
    """Writes to the current ``sys.stderr``, which notebooks and tests replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.setFormatter(logging.Formatter("yolo_attn: %(message)s"))

    @property
    def stream(self) -> Any:
        return sys.stderr


def announce(message: str, *args: object) -> None:
    """Print one line for the user: through logging where that is configured, otherwise to standard error.

    In a distributed run, only the worker of rank 0 prints.

    Args:
        message: The line, a %-style format string.
        args: Its arguments.
    """
    rank = os.environ.get("RANK", "").strip()
    if rank.isdigit() and int(rank) > 0:
        return
    args = tuple(a if isinstance(a, (int, float)) else one_line(str(a)) for a in args)
    if LOGGER.hasHandlers():
        LOGGER.info(message, *args)
    elif LOGGER.getEffectiveLevel() <= logging.WARNING and LOGGER.manager.disable < logging.INFO:
        # WARNING is the level of a root logger that was never configured
        _Stderr().handle(LOGGER.makeRecord(LOGGER.name, logging.INFO, __file__, 0, message, args, None))


class Progress:
    """Announces a line of progress at most every ten seconds; called with each."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, line: str) -> None:
        """Announce it, if it is time."""
        if time.monotonic() - self.last >= 10:
            self.last = time.monotonic()
            announce("%s", line)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Print each of the kit's log lines once to standard error, whatever a host does to :mod:`logging` meanwhile.

    For the command line. Nested use has no effect; handler and level are restored on exit.
    """
    if any(isinstance(h, _Stderr) for h in LOGGER.handlers):
        yield
        return
    handler, level, propagate = _Stderr(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
