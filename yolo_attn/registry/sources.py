"""What fills the registry: sources that are loaded on the first look-up, and a note of what could not be loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Callable

from ..system.fork import Lock

__all__ = ["add_source", "importing", "load_all", "load_first", "note_missing", "why_missing"]


@dataclass
class _State:
    """The sources. Survives a reload of this file, since other threads may hold its locks."""

    sources: dict[str, Callable[[], None]] = field(default_factory=dict)  # by what they register
    done: set[str] = field(default_factory=set)  # the sources that have been loaded
    missing: dict[str, list[str]] = field(default_factory=dict)  # why a name is not registered, by name
    loading: bool = False
    lock: Lock = field(default_factory=Lock)
    # Apart from `lock`, so that a thread that imports a plug-in never waits for one that loads every source.
    load_lock: Lock = field(default_factory=Lock)


_thread = threading.local()
_state: _State = globals().get("_state") or _State()


def add_source(what: str, load: Callable[[], None]) -> None:
    """Add a source, loaded on the first look-up after those that were added before it.

    Args:
        what: What the source registers, in words. A source of the same words is replaced, as after a reload.
        load: A function that registers it. Called once; called again after it has raised.
    """
    with _state.lock:
        _state.sources[what] = load


def load_all() -> None:
    """Load every source once; other threads wait until all are loaded."""
    if _state.done.issuperset(_state.sources):
        return
    lock = _state.load_lock
    if not getattr(_thread, "importing", False):
        lock.__enter__()
    elif not lock.attempt():
        next(iter(_state.sources.values()))()  # the kit's own modules, which any thread may import
        return
    try:
        if _state.loading:  # in this same thread: a module that looks names up while it is imported
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


def load_first() -> None:
    """Run the first source, the kit's own modules: their names are taken before a user's are."""
    for what, load in [*_state.sources.items()][:1]:
        if what not in _state.done:
            load()


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Mark this thread as importing a plug-in: its look-ups then wait for no thread that may wait for the plug-in."""
    before = getattr(_thread, "importing", False)
    _thread.importing = True
    try:
        yield
    finally:
        _thread.importing = before


def note_missing(names: Iterable[str], why: str) -> None:
    """Record what could not be loaded, for the error message when one of its names is looked up.

    Args:
        names: The names that it would have registered; empty if unknown.
        why: The reason, as one sentence.
    """
    with _state.lock:
        for name in [*names] or [""]:
            told = _state.missing.setdefault(name, [])
            if why not in told:
                told.append(why)


def why_missing(name: str) -> str:
    """Return why a name may be missing, as sentences to append to a message; empty if nothing failed to load."""
    told = _state.missing.get(name) or _state.missing.get("") or []
    return "".join(f" {why}" for why in told)
