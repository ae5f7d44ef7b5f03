"""Compute each row's output channels, which a module inserted after it receives, as far as the rows tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..hook.resolve import Named, named
from .graph import Graph, Node

__all__ = ["Scale", "states_width", "widths"]

# Modules whose first argument is their width before scaling, in the hosts' parsers.
_SCALED = frozenset(
    "Conv ConvTranspose GhostConv Bottleneck GhostBottleneck SPP SPPF C2fPSA C2PSA DWConv Focus BottleneckCSP C1 C2 C2f "
    "C3k2 RepNCSPELAN4 ELAN1 ADown AConv SPPELAN C2fAttn C3 C3TR C3Ghost C3SPP C3x RepC3 PSA SCDown C2fCIB A2C2f CrossConv "
    "MixConv2d nn.ConvTranspose2d DWConvTranspose2d".split()
)
_KEEPING = ("nn.Upsample", "nn.MaxPool2d", "nn.AvgPool2d", "nn.Identity", "nn.BatchNorm2d", "nn.ZeroPad2d", "AIFI")


@dataclass(frozen=True)
class Scale:
    """The width rule of a model.

    Args:
        width: Factor on the stated channels.
        most: Largest number of channels, before the factor.
    """

    width: float = 1.0
    most: float = math.inf

    @classmethod
    def of(cls, d: Mapping[str, Any], letter: str = "") -> Scale:
        """Return the width rule of a validated model dictionary.

        Args:
            d: The model dictionary.
            letter: Scale letter; if empty, the model's own or the first of ``scales``.
        """
        scales = d.get("scales") or {}
        if not scales:
            return cls(float(d.get("width_multiple") or 1.0))
        letter = letter or d.get("scale") or ""
        _, width, *most = scales[letter] if letter in scales else next(iter(scales.values()))
        return cls(float(width), float(most[0]) if most else math.inf)

    def __call__(self, stated: Any) -> int:
        """Return the scaled channels, rounded up to a multiple of 8 as the hosts do."""
        return math.ceil(min(stated, self.most) * self.width / 8) * 8


def states_width(name: str, what: Named | None) -> bool:
    """Whether a row's output width stands in its arguments, whatever arrives.

    Args:
        name: The row's module.
        what: What the name stands for; None for the host's.
    """
    if what is not None:
        return what.binding is not None and what.binding.is_block and not what.is_attention
    return name in _SCALED or name in ("HGStem", "HGBlock")


def widths(graph: Graph, d: Mapping[str, Any], scale: Scale) -> dict[Node, int | None]:
    """Return each row's output channels; None where only building the model would tell.

    Args:
        graph: The rows.
        d: The model dictionary, for ``register:``.
        scale: The width rule.
    """
    found: dict[Node, int | None] = {}
    for node in graph.nodes:
        before = [3 if e.target is None else found[e.target] for e in node.edges]
        found[node] = _width(node, before, d, scale)
    return found


def _width(node: Node, before: list[int | None], d: Mapping[str, Any], scale: Scale) -> int | None:
    def number(position: int) -> int | None:
        value = node.args[position] if len(node.args) > position else None
        return value if type(value) is int and value > 0 else None

    name = node.module
    stated = number(0)
    if name in _SCALED:
        return scale(stated) if stated else None
    if name in _KEEPING:
        return before[0]
    if name == "Concat":
        known = [c for c in before if c is not None]
        return sum(known) if len(known) == len(before) else None
    if name in ("HGStem", "HGBlock", "HGBlockAttention"):
        return number(1)
    if name in ("ResNetLayer", "ResNetLayerAttention"):
        middle = number(1)
        return middle if middle is None or (len(node.args) > 3 and node.args[3] is True) else 4 * middle
    what = named(name, d)
    if what is None or what.kind in ("fusion", "head"):
        return None
    if what.binding is not None and what.binding.is_block:
        return scale(stated) if stated else before[0] if what.is_attention else None
    return before[0]
