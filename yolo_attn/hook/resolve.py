"""Resolve the module name of a row to the class that the parse hook would build.

That is the class of that name under the YAML's ``register:``, then the registry's, unless the host's parser has a class
of its own by that name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import PluginError
from ..registry import plugins, registry
from ..registry.binding import Binding

__all__ = ["Named", "named", "rival"]

NOT_GATES = ("block", "fusion", "head")


@dataclass(frozen=True)
class Named:
    """A module name of a row, resolved to a class that is not the host's.

    Args:
        name: The registered name, or the name under ``register:``.
        kind: Kind in the registry; empty for a class under ``register:``.
        cls: The class; None if it comes from a plug-in that is not loaded.
        binding: What the class takes from the graph; None likewise.
    """

    name: str
    kind: str = ""
    cls: type | None = None
    binding: Binding | None = None

    @property
    def is_attention(self) -> bool:
        """Whether it is attention to insert after a row; a plug-in that is not loaded counts as attention."""
        return self.kind not in NOT_GATES and (self.binding is None or "n" not in self.binding.takes)

    @property
    def plain(self) -> str | None:
        """The host's block that a block with attention inside replaces, such as C3 for C3SE, or None."""
        return getattr(self.cls, "stands_for", None) if self.kind == "block" else None

    @property
    def options(self) -> Iterable[str]:
        """The names of the constructor's parameters."""
        return self.binding.signature.parameters if self.binding is not None else ()


def named(name: str, d: Mapping[str, Any] | None = None) -> Named | None:
    """Resolve the module name of a row; return None if it is the host's.

    Args:
        name: Third column of the row.
        d: The model dictionary, for its ``register:``.
    """
    plain = registry.plain_name(name)
    own = (d or {}).get("register")
    if isinstance(own, Mapping) and plain in own:
        try:
            cls = plugins.from_yaml(plain, dict(d or {}), "register")
        except PluginError:  # not loaded, and nothing here runs code
            cls = None
        return Named(plain, "", cls, registry.binding_of(cls))
    entry = registry.find(plain)
    if entry is None or (plain == name and any(rival(c, entry.cls) for c in _hosts_classes(name))):
        return None
    return Named(entry.name, entry.kind, entry.cls, entry.binding)


def rival(found: Any, cls: type) -> bool:
    """Whether the host's parser finds a class other than `cls` under a name."""
    return isinstance(found, type) and found is not cls


def _hosts_classes(name: str) -> list[Any]:
    """What the parsers of imported hosts find under a name."""
    from ..patches import HOSTS

    parsers = [h.parser for h in HOSTS]
    return [vars(sys.modules[m]).get(name) for m in parsers if m in sys.modules]
