"""Declare classes for ``torch.load(weights_only=True)`` so that they are filled but never constructed.

torch looks the names in such a checkpoint up in a table of declared classes and calls the entry with arguments of the
file's choice. The entry must therefore not be a constructor: a detector's evaluates its YAML, and that of a plug-in may
read a file or use the network. Declared instead is a stand-in under the class's name that returns an empty instance,
whatever its arguments; the file's attributes then fill it, as in any pickle.

Limits: a model from a hostile file still computes whatever the file says, and torch's own functions can be made to
call it, or to set attributes, during loading. torch itself calls this mode safer, not safe.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable
from typing import Any

from ..system.fork import Lock

__all__ = ["declare", "named", "safe_load", "withdraw"]

# By the name in a file: the class, and what is declared for it. Kept where this file is reloaded, as torch keeps them.
_entries: dict[str, tuple[type, list[Any]]] = globals().get("_entries") or {}
_lock: Lock = globals().get("_lock") or Lock()


def safe_load() -> bool:
    """Whether ``ULTRALYTICS_SAFE_LOAD`` asks for loading without running code, by the host's own rule.

    The host reads the variable on import; here it counts even if it is set later.
    """
    host = sys.modules.get("ultralytics.utils")
    if getattr(host, "SAFE_LOAD", False) is True:
        return True
    rule = getattr(host, "env_bool", None)
    if callable(rule):
        return bool(rule("ULTRALYTICS_SAFE_LOAD"))
    return os.environ.get("ULTRALYTICS_SAFE_LOAD", "").strip().lower() in {"1", "true", "yes", "on", "y", "t"}


def named() -> bool:
    """Whether torch accepts declarations under a chosen name: 2.6 and later, where ``weights_only`` is the default."""
    import torch

    major, minor = (int(x) for x in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 6)


def declare(classes: Iterable[type], aliases: Iterable[tuple[type, str]] = ()) -> list[Any]:
    """Declare classes under their own names and under aliases. Repeated calls have no further effect.

    A class replaces one of the same name that was declared before, such as by an earlier run of a notebook cell. An
    alias never replaces a class of that name.

    Args:
        classes: The classes.
        aliases: Pairs of a class and another full name of it in files.

    Returns:
        The declarations, to pass to :func:`withdraw`.
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
                # torch fills an instance only if its class is declared too: the class itself is declared under a
                # name that cannot be guessed
                entries = [(_stand_in(cls), name), (cls, secrets.token_hex(16))]
                _entries[name] = cls, entries
            added += entries
        torch.serialization.add_safe_globals(added)
    return added


def withdraw(declared: Iterable[Any]) -> None:
    """Remove declarations that :func:`declare` returned; all others stay."""
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
