"""Watch the operations of a forward pass, and say which line of the module's file ran one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .blame import Sources
from .verdict import Line

__all__ = ["LEARNED", "SHORTCUT", "Overflow", "Seen", "Watch"]

# Operations that overflow where a host's own layer does as well: sums over channels with learned weights.
LEARNED = frozenset({"convolution", "addmm", "mm", "bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu", "mkldnn_convolution"})
SHORTCUT = "add"  # as in a Bottleneck of the host


@dataclass(frozen=True)
class Seen:
    """An operation: its name, where it ran, and the types of the floating-point tensors that went in and came out."""

    op: str
    line: Line | None
    read: tuple[Any, ...] = ()
    made: tuple[Any, ...] = ()


class Watch(TorchDispatchMode):
    """Notes every operation.

    Attributes:
        seen: The operations in order.
        random: Those that draw random numbers.
    """

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self.sources = sources
        self.seen: list[Seen] = []
        self.random: list[Seen] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note it."""
        out = func(*args, **(kwargs or {}))
        self.note(func, [*floats(args), *floats(kwargs or {})], floats(out))
        return out

    def note(self, func: Any, read: list[Any], made: list[Any]) -> None:
        """Note an operation with its floating-point inputs and outputs."""
        found = Seen(
            name_of(func), self.sources.of_frames(), tuple(t.dtype for t in read), tuple(t.dtype for t in made)
        )
        self.seen.append(found)
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            self.random.append(found)


class Overflow(Watch):
    """Finds the first operation that makes a number that is not finite out of finite ones."""

    first: Seen | None = None

    def note(self, func: Any, read: list[Any], made: list[Any]) -> None:
        """Note it if it is the first."""
        if self.first is None and not finite(made) and finite(read) and "empty" not in name_of(func):
            self.first = Seen(name_of(func), self.sources.of_frames())


def name_of(func: Any) -> str:
    """Return an operation's name without its overload: ``aten.sum.dim_IntList`` is ``sum``."""
    return str(func).split(".")[1] if str(func).count(".") else str(func)


def floats(value: Any) -> list[Any]:
    """Return the floating-point tensors in arguments or results."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [t for v in value for t in floats(v)]


def finite(tensors: list[Any]) -> bool:
    """Whether every number is finite."""
    return all(bool(t.isfinite().all()) for t in tensors)
