"""What the gate of a module is, said once beside its formula, so that tools can read it in a forward pass.

Every registered module has the class attribute ``gates``. It changes nothing in ``forward``, in a state dict, a pickle
or a graph: whoever wants the gates sets hooks. Three ways to say it:

* :func:`over_input`: the module returns its input times one gate, which is then output over input;
* :func:`layer`: a layer of the module returns the gate, or the score that it is made of; modules with several gates name
  one for each;
* a string: there is none, with the reason in words for the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Union

import torch
from torch import Tensor

from ._base import Gate

__all__ = [
    "ADDS", "CHANNEL", "HOLDS", "MIXES", "SPATIAL", "VALUE", "Depends", "Gated", "Gates", "gated_by", "layer",
    "over_input", "sigmoid", "softmax", "times",
]  # fmt: skip

CHANNEL, SPATIAL, VALUE = "channel", "spatial", "value"  # a number a channel, a position, or each channel and position

MIXES = "it mixes positions: what comes out is a sum over many inputs, no input times a gate"
ADDS = "it adds a term to its input, no gate multiplies it"
HOLDS = "it holds its attention as a layer of its own, which says what its gate is"

Ends = Union["tuple[float, float]", "Callable[[Any], tuple[float, float] | None]", None]


@dataclass(frozen=True)
class Gated:
    """One gate of a module.

    Args:
        axes: What it has a number for: ``channel`` (B, C, 1, 1), ``spatial`` (B, 1, H, W) or ``value`` (B, C, H, W),
            where H or W may be 1 (a gate for each row, or each column).
        name: Its name, where the module has several.
        at: The layer of the module whose output shows it; empty for output over input.
        call: Which call of that layer in a forward pass, from 0; None for all of them, joined along the channels.
        read: From the module and the layer's output to the gate.
        back: From the module and a gate to the layer's output that means it.
        ends: The least and the greatest number that it can be, or None where there is no bound.
    """

    axes: str
    name: str = ""
    at: str = ""
    call: int | None = 0
    read: Callable[[Any, Tensor], Tensor] = lambda module, y: y
    back: Callable[[Any, Tensor], Tensor] = lambda module, gate: gate
    ends: Ends = None

    def bounds(self, module: Any) -> tuple[float, float] | None:
        """Return the ends of this gate in a module, after its blend with the input where it has one."""
        ends = self.ends(module) if callable(self.ends) else self.ends
        blend = getattr(module, "blend", None)
        if ends is None or self.at or blend is None:
            return ends
        w = float(blend.weight.detach())
        low, high = sorted(1 + w * (end - 1) for end in ends)
        return low, high


@dataclass(frozen=True)
class Depends:
    """What the gates are where an option of the constructor decides: a function of the module."""

    on: Callable[[Any], Any]


Gates = Union["tuple[Gated, ...]", str, Depends]  # a string is the reason why there is none


def by_gate(module: Any) -> tuple[float, float] | None:
    """The ends of a module whose gate is its layer ``gate``: 0 and 1, or 0 and 2 under the identity start."""
    gate = getattr(module, "gate", None)
    return (0.0, gate.scale) if isinstance(gate, Gate) else None


def times(factor: float, shift: float = 0.0) -> Callable[[Any], tuple[float, float] | None]:
    """The ends of `factor` such gates in a sum, and `shift`."""

    def ends(module: Any) -> tuple[float, float] | None:
        found = by_gate(module)
        return None if found is None else (shift, factor * found[1] + shift)

    return ends


def over_input(axes: str, ends: Ends = by_gate) -> tuple[Gated, ...]:
    """The module returns its input times a gate."""
    return (Gated(axes, ends=ends),)


def layer(
    axes: str,
    at: str = "gate",
    name: str = "",
    *,
    call: int | None = 0,
    through: tuple[Callable[..., Tensor], Callable[..., Tensor]] | None = None,
    ends: Ends = by_gate,
) -> Gated:
    """A layer's output is the gate, or by `through` (there and back) the score that it is made of."""
    if through is None:
        return Gated(axes, name, at, call, ends=ends)
    return Gated(axes, name, at, call, *through, ends=(0.0, 1.0))


LEAST = 1e-6  # of a gate whose score is asked for; a sigmoid never reaches 0


def _logit(module: Any, gate: Tensor) -> Tensor:
    return torch.logit(gate, LEAST)


sigmoid = (lambda module, y: y.sigmoid(), _logit)


def softmax(
    parts: Callable[[Any], int], *, outer: bool
) -> tuple[Callable[[Any, Tensor], Tensor], Callable[[Any, Tensor], Tensor]]:
    """The gates are a softmax over `parts` of the channels, which lie as (parts, C) with `outer`, else as (C, parts)."""

    def read(module: Any, y: Tensor) -> Tensor:
        n, rest = parts(module), y.shape[2:]
        shape = (y.shape[0], n, -1, *rest) if outer else (y.shape[0], -1, n, *rest)
        return y.float().reshape(shape).softmax(1 if outer else 2).reshape(y.shape)

    return read, lambda module, gate: gate.clamp(min=LEAST).log()


def gated_by(module: Any) -> tuple[Gated, ...] | str | None:
    """Return the gates of a module, the reason why it has none, or None where its class does not say.

    What a class says holds for its own ``forward``: a subclass with another one has not said anything.
    """
    for base in type(module).__mro__:
        own = vars(base)
        if "gates" in own:
            said = own["gates"]
            said = said.on(module) if isinstance(said, Depends) else said
            if isinstance(said, str) or (isinstance(said, tuple) and said and all(isinstance(g, Gated) for g in said)):
                return said
            return None
        if "forward" in own:
            return None
    return None


def names_of(gates: tuple[Gated, ...]) -> list[str]:
    """Return the name of each gate of a module: its own, else what it has a number for."""
    return [g.name or g.axes for g in gates]
