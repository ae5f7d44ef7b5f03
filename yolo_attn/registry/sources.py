"""What fills the registry: sources, which are imported on the first look-up, and what of them could not be loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Callable

from ..system.fork import Lock

__all__ = ["add_source", "importing", "load_all", "note_missing", "why_missing"]


@dataclass
class _State:
    """Kept where this file is reloaded, with the locks that other threads may hold."""

    sources: dict[str, Callable[[], None]] = field(default_factory=dict)  # by what they bring
    done: set[str] = field(default_factory=set)  # the sources that have run
    missing: dict[str, list[str]] = field(default_factory=dict)  # why something is not here, by the names it brings
    loading: bool = False
    lock: Lock = field(default_factory=Lock)
    # Apart from `lock`, so that a thread that imports a plug-in never waits for one that loads every source.
    load_lock: Lock = field(default_factory=Lock)


_thread = threading.local()
_state: _State = globals().get("_state") or _State()


def add_source(what: str, load: Callable[[], None]) -> None:
    """Have something imported on the first look-up, after the sources that were added before.

    Args:
        what: What it brings, in words; the same words again, as after a reload, replace the former.
        load: Registers it; called once, and again if it raised.
    """
    with _state.lock:
        _state.sources[what] = load


def load_all() -> None:
    """Run every source once; other threads wait until all are there."""
    if _state.done.issuperset(_state.sources):
        return
    lock = _state.load_lock
    if not getattr(_thread, "importing", False):
        lock.__enter__()
    elif not lock.attempt():
        next(iter(_state.sources.values()))()  # imports alone, of the kit's own modules, which any thread may do
        return
    try:
        if _state.loading:  # in this very thread: a module that looks names up while it is imported
            return
        _state.loading = True
        try:
            for what, load in [*_state.sources.items()]:
                if what not in _state.done:
                    load()
                    _state.done.add(what)
        finally:
            _state.loading = False
    finally:
        lock.__exit__()


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While a plug-in's code runs in this thread: its look-ups wait for no thread that may wait for the plug-in."""
    before = getattr(_thread, "importing", False)
    _thread.importing = True
    try:
        yield
    finally:
        _thread.importing = before


def note_missing(names: Iterable[str], why: str) -> None:
    """Note what could not be loaded, for the message of who asks for one of its names.

    Args:
        names: What it would have brought; empty where nobody can know.
        why: One sentence.
    """
    with _state.lock:
        for name in [*names] or [""]:
            told = _state.missing.setdefault(name, [])
            if why not in told:
                told.append(why)


def why_missing(name: str) -> str:
    """Say what failed to load and may have brought this name, ready to follow a sentence, or an empty string."""
    told = _state.missing.get(name) or _state.missing.get("") or []
    return "".join(f" {why}" for why in told)
