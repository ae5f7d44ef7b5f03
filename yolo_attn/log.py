"""The kit's logger: a library logs, the command line prints.

Used as a library the kit adds no handler and sets no level: whoever configures :mod:`logging` decides what is seen.
Where nobody did, :func:`announce` writes its line to standard error itself, as :data:`logging.lastResort` does for
warnings. A command line prints through a handler of its own while it runs (:func:`printing`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["LOGGER", "announce", "printing"]

LOGGER = logging.getLogger("yolo_attn")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs, not before Python 3.11
    """Writes to what ``sys.stderr`` is at that moment: notebooks and tests exchange it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.setFormatter(logging.Formatter("yolo_attn: %(message)s"))

    @property
    def stream(self) -> Any:
        return sys.stderr


def announce(message: str, *args: object) -> None:
    """Tell the user one line: through logging as it is configured, to standard error where it is not.

    Workers of a distributed run other than the first say nothing.

    Args:
        message: The line, with %-fields.
        args: Their values.
    """
    rank = os.environ.get("RANK", "").strip()
    if rank.isdigit() and int(rank) > 0:
        return
    if LOGGER.hasHandlers():
        LOGGER.info(message, *args)
    elif LOGGER.getEffectiveLevel() <= logging.WARNING and LOGGER.manager.disable < logging.INFO:
        # WARNING is the level of a root logger that nobody has touched
        _Stderr().handle(LOGGER.makeRecord(LOGGER.name, logging.INFO, __file__, 0, message, args, None))


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Print every line of the kit on standard error, once, whatever a host does to :mod:`logging` meanwhile.

    For the command line; within itself it changes nothing. What it sets is given back at its end.
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
