"""Locks that stay usable in a forked child.

A child has only the forking thread. A lock that another thread held would stay locked in the child forever, and the
state that it guards could be inconsistent. So a fork waits until these locks are free. A lock that does not become
free in time, such as that of a thread waiting for the forking one, is replaced by a new lock in the child.
"""

from __future__ import annotations

import os
import threading

__all__ = ["Lock"]

PATIENCE = 10.0  # seconds; the longest operation under one of these locks is importing the kit's modules

_all: list[Lock] = []
_forking = threading.local()  # the locks that a fork has taken: several threads may fork, each with its own


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
        """Take it unless another thread holds it; return whether it was taken. ``__exit__`` releases it."""
        return self._inner.acquire(blocking=False)

    def _take(self) -> bool:
        return self._inner.acquire(timeout=PATIENCE)

    def _renew(self) -> None:
        self._inner = threading.RLock()


def _before() -> None:
    _forking.taken = [lock for lock in _all if lock._take()]


def _in_parent() -> None:
    taken: list[Lock] = _forking.taken
    while taken:
        taken.pop()._inner.release()


def _in_child() -> None:
    for lock in _all:
        if lock not in _forking.taken:
            lock._renew()
    _in_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
