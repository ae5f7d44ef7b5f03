"""Locks that a forked child can take, whatever the parent's other threads were doing when it was forked.

A child has the forking thread only. A lock that another thread held stays locked in it for ever, and what the lock
guards may be half changed. So a fork waits until these locks are free; one that does not become free in time, such as
the lock of a thread that waits for the forking one, is a new lock in the child.
"""

from __future__ import annotations

import os
import threading

__all__ = ["Lock"]

PATIENCE = 10.0  # seconds; the longest that is done under one of them is importing the kit's modules

_all: list[Lock] = []
_taken: list[Lock] = []


class Lock:
    """A reentrant lock for ``with``."""

    def __init__(self) -> None:
        self._inner = threading.RLock()
        _all.append(self)

    def __enter__(self) -> Lock:
        """Take it."""
        self._inner.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self._inner.release()

    def attempt(self) -> bool:
        """Take it unless another thread holds it; whether it is taken, to be released by ``__exit__``."""
        return self._inner.acquire(blocking=False)

    def _take(self) -> bool:
        return self._inner.acquire(timeout=PATIENCE)

    def _renew(self) -> None:
        self._inner = threading.RLock()


def _before() -> None:
    _taken[:] = [lock for lock in _all if lock._take()]


def _in_parent() -> None:
    while _taken:
        _taken.pop()._inner.release()


def _in_child() -> None:
    for lock in _all:
        if lock not in _taken:
            lock._renew()
    _in_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
