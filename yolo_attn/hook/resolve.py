"""What a row's module name resolves to: the class that the parse hook would build for it.

That is the YAML's own under ``register:``, then the registry's, unless the host's parser has a class of its own by
that name, which then is the host's row.
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
    from ..patches import HOSTS

    parsers = [h.parser for h in HOSTS]
    return [vars(sys.modules[m]).get(name) for m in parsers if m in sys.modules]
