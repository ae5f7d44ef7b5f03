"""Find the attention in a built model, for everything that counts, changes or loads it."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import Any

from .._name import PACKAGE
from ..errors import RegistryError
from ..registry import registry
from ..registry.binding import Binding
from .pickles import Inert

__all__ = ["attention_in", "attention_used", "name_of"]


def name_of(cls: type) -> str | None:
    """Return the registered name of an attention class or of its inert stand-in; None for other classes."""
    if issubclass(cls, Inert):
        if cls.__module__.startswith(("torch.", "ultralytics.")):
            return None
        if not cls.__module__.startswith(f"{PACKAGE}.plugins."):
            return _gate(registry.find(cls.__name__))
        live = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
        binding = registry.binding_of(live)
        return cls.__name__ if binding is None or "n" not in binding.takes else None
    entry = registry.entry_of(cls)
    if entry is not None:
        return _gate(entry)
    binding = registry.binding_of(cls)
    if binding is None and cls.__module__.startswith(f"{PACKAGE}.plugins."):  # out of a checkpoint, no YAML was read
        with contextlib.suppress(RegistryError):
            binding = Binding.of(cls)
    return cls.__name__ if binding is not None and "n" not in binding.takes else None


def _gate(entry: registry.Entry | None) -> str | None:
    if entry is None or entry.kind in ("block", "head") or "n" in entry.binding.takes:
        return None
    return entry.name


def attention_in(module: Any) -> dict[str, str]:
    """Return the attention modules in a module tree, live or inert: path to name.

    These are all registered modules and those named under ``register:``, as layers of their own or inside a block.
    """
    found: dict[str, str] = {}

    def walk(m: Any, path: str) -> None:
        name = name_of(type(m))
        if name is not None:
            found[path] = name
            return
        for n, child in (getattr(m, "_modules", None) or {}).items():
            if child is not None:
                walk(child, f"{path}.{n}" if path else n)

    walk(module, "")
    return found


def attention_used(model: Any, *, joins: bool = True) -> dict[str, int]:
    """Return how often each attention module occurs in a model, by name, sorted.

    Args:
        model: The model.
        joins: Whether to count weighted joins of several layers.
    """
    found = attention_in(model).values()
    kinds = {n: entry.kind for n in set(found) if (entry := registry.find(n)) is not None}
    return dict(sorted(Counter(n for n in found if joins or kinds.get(n) != "fusion").items()))
