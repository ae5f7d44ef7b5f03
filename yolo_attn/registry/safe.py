"""What a checkpoint may rebuild under ``torch.load(weights_only=True)``: declared classes, filled but never constructed.

torch looks the names of such a checkpoint up in a table of declared classes, and calls what stands there with
arguments that the file chooses. A constructor must therefore not stand there: a detector's evaluates its YAML, that
of attention somebody brought may read a file or ask the network. What is declared is a stand-in under the class's
name, which returns an empty instance whatever it is given; the file's attributes then fill it, as in any pickle.

What this does not do: a network out of a hostile file still computes what the file says, and torch's own functions
can be made to call it, or to set attributes, while it is read. torch calls that mode safer, not safe.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable
from typing import Any

from ..system.fork import Lock

__all__ = ["declare", "named", "safe_load", "withdraw"]

_entries: dict[str, tuple[type, list[Any]]] = {}  # by the name in a file: the class, what is declared for it
_lock = Lock()


def safe_load() -> bool:
    """Whether the user asked for loading that runs no code: ``ULTRALYTICS_SAFE_LOAD``, by the host's own rule.

    The host reads the variable when it is imported; set later, it counts here all the same.
    """
    host = sys.modules.get("ultralytics.utils")
    if getattr(host, "SAFE_LOAD", False) is True:
        return True
    rule = getattr(host, "env_bool", None)
    if callable(rule):
        return bool(rule("ULTRALYTICS_SAFE_LOAD"))
    return os.environ.get("ULTRALYTICS_SAFE_LOAD", "").strip().lower() in {"1", "true", "yes", "on", "y", "t"}


def named() -> bool:
    """Whether torch takes declarations under a name of choice: 2.6 and later, where loading by them is the default."""
    import torch

    major, minor = (int(x) for x in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 6)


def declare(classes: Iterable[type], aliases: Iterable[tuple[type, str]] = ()) -> list[Any]:
    """Declare classes, each under its own name, and further names of some. Twice is once.

    A class of the same name that was declared before, by an earlier run of a notebook's cell, is forgotten; an alias
    yields to a class of that name.

    Args:
        classes: The classes.
        aliases: A class and another full name that files know it by.

    Returns:
        What was declared, for :func:`withdraw`.
    """
    import torch

    classes = [*classes]
    if not hasattr(torch.serialization, "add_safe_globals"):  # before 2.4
        return []
    if not named():
        torch.serialization.add_safe_globals([*classes])
        return [*classes]
    added: list[Any] = []
    with _lock:
        own = {f"{c.__module__}.{c.__qualname__}": c for c in classes}
        for name, cls in [*own.items(), *((name, c) for c, name in aliases if name not in own)]:
            known, entries = _entries.get(name, (None, []))
            if known is not cls:
                if known is not None and name not in own:
                    continue
                withdraw(entries)
                # torch also asks whether an instance's own class was declared before it fills it: the class itself
                # stands there under a name that nobody can guess
                entries = [(_stand_in(cls), name), (cls, secrets.token_hex(16))]
                _entries[name] = cls, entries
            added += entries
        torch.serialization.add_safe_globals(added)
    return added


def withdraw(declared: Iterable[Any]) -> None:
    """Take declarations back; those that somebody else made stay."""
    import torch

    gone = {id(entry) for entry in declared}
    if not gone:
        return
    with _lock:
        for name, (_, entries) in list(_entries.items()):
            if id(entries[0]) in gone:
                del _entries[name]
        kept = [entry for entry in torch.serialization.get_safe_globals() if id(entry) not in gone]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kept)


def _stand_in(cls: Any) -> type:
    def new(_: type, *__: Any) -> Any:
        return cls.__new__(cls)

    return type(f"Empty{cls.__name__}", (), {"__new__": new, "__doc__": f"An empty {cls.__name__}."})
