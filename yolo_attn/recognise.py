"""What is attention: the one answer for a YAML's row, a class, and the layers of a built model.

A row's name means the class that the parse hook would build for it: the YAML's own under ``register:``, then the
registry's, unless the host's parser has a class of its own by that name, which then is the host's row.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import checkpoint, plugins, registry
from .binding import Binding
from .errors import PluginError
from .graph import Node

__all__ = ["Named", "attention_in", "attention_used", "inner", "keeps_width", "name_of", "named", "rival"]

NOT_GATES = ("block", "fusion", "head")


@dataclass(frozen=True)
class Named:
    """What a row's module name stands for, where it is no module of the host.

    Args:
        name: The registered name, or the one under ``register:``.
        kind: The registry's word; empty for a user's class.
        cls: The class; None where a plug-in is named whose code is not loaded.
        binding: What the class takes from the graph; None likewise.
    """

    name: str
    kind: str = ""
    cls: type | None = None
    binding: Binding | None = None

    @property
    def is_attention(self) -> bool:
        """Whether it is attention that stands behind a row; code that is not loaded is taken at its word."""
        return self.kind not in NOT_GATES and (self.binding is None or "n" not in self.binding.takes)

    @property
    def plain(self) -> str | None:
        """The host's block that a block with attention inside stands for: C3 for C3SE; None if there is none."""
        return getattr(self.cls, "stands_for", None) if self.kind == "block" else None

    @property
    def options(self) -> Iterable[str]:
        """The names of the constructor's parameters."""
        return self.binding.signature.parameters if self.binding is not None else ()


def named(name: str, d: Mapping[str, Any] | None = None) -> Named | None:
    """Return what a row's module name stands for; None where it is the host's.

    Args:
        name: The third column of a row.
        d: The model dictionary, whose ``register:`` comes first.
    """
    plain = registry.plain_name(name)
    own = (d or {}).get("register")
    if isinstance(own, Mapping) and plain in own:
        try:
            cls = plugins.from_yaml(plain, dict(d or {}), "register")
        except PluginError:  # not loaded: nothing here runs code
            cls = None
        return Named(plain, "", cls, registry.binding_of(cls))
    entry = registry.find(plain)
    if entry is None or (plain == name and any(rival(c, entry.cls) for c in _hosts_classes(name))):
        return None
    return Named(entry.name, entry.kind, entry.cls, entry.binding)


def rival(found: Any, cls: type) -> bool:
    """Whether what a host's parser finds under a name is a class of its own, and not `cls`."""
    return isinstance(found, type) and found is not cls


def _hosts_classes(name: str) -> list[Any]:
    """What the parsers of the hosts that are imported find under a name."""
    from .patches import HOSTS

    parsers = [h.parser for h in HOSTS]
    return [vars(sys.modules[m]).get(name) for m in parsers if m in sys.modules]


def keeps_width(node: Node, what: Named) -> bool:
    """Whether a row with attention gives the channels that it takes, as far as the row says it.

    A user's class that is given its output channels, such as ``CoordAtt(inp, oup)``, does so where the row states no
    number, or that of the row which it reads.
    """
    if what.binding is None or not what.binding.is_block:
        return True
    stated = node.args[0] if node.args and not isinstance(node.args[0], dict) else None
    source = node.edges[0].target
    return stated is None or (source is not None and bool(source.args) and source.args[0] == stated)


def inner(node: Node, d: Mapping[str, Any] | None = None) -> Named | None:
    """Return the attention inside a block's row; None where the row is no such block or holds none."""
    block = named(node.module, d)
    if block is None or block.kind != "block" or "options" not in block.options:
        return None
    last = node.args[-1] if node.args and isinstance(node.args[-1], dict) else {}
    parameter = block.binding.signature.parameters.get("module") if block.binding is not None else None
    default = _fixed(block.cls) if parameter is None else parameter.default
    module = last.get("module", default)
    return named(module, d) if isinstance(module, str) else None


def _fixed(cls: Any) -> str:
    """The attention of a block that has no `module`: the class says which."""
    return str(getattr(cls, "attention", "SEAttention"))


# -- built models --------------------------------------------------------------------------------------------------


def name_of(cls: type) -> str | None:
    """Return the registered name of an attention class, also of the inert stand-in for one; None for any other."""
    if issubclass(cls, checkpoint.Inert):
        if cls.__module__.startswith(("torch.", "ultralytics.")):
            return None
        if not cls.__module__.startswith(f"{registry.KIT}.plugins."):
            return _gate(registry.find(cls.__name__))
        live = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
        binding = registry.binding_of(live)
        return cls.__name__ if binding is None or "n" not in binding.takes else None
    entry = registry.entry_of(cls)
    if entry is not None:
        return _gate(entry)
    binding = registry.binding_of(cls)
    return cls.__name__ if binding is not None and "n" not in binding.takes else None


def _gate(entry: registry.Entry | None) -> str | None:
    if entry is None or entry.kind in ("block", "head") or "n" in entry.binding.takes:
        return None
    return entry.name


def attention_in(module: Any) -> dict[str, str]:
    """Return the path and name of each attention module within a module tree, live or inert.

    That is every registered module and every one named by ``register:``, as a row of its own or inside a block.
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
    """Return how often each attention module occurs in a model, by its name, sorted.

    Args:
        model: The model.
        joins: Whether weighted joins of several rows count.
    """
    found = attention_in(model).values()
    kinds = {n: entry.kind for n in set(found) if (entry := registry.find(n)) is not None}
    return dict(sorted(Counter(n for n in found if joins or kinds.get(n) != "fusion").items()))
