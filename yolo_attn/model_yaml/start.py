"""How attention begins: `start` written into the rows of a model dictionary.

With ``identity`` every gate begins at 1 and a model as the one without attention; with ``paper`` as its authors say.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from ..errors import UsageError, did_you_mean
from ..hook.resolve import named
from .graph import Graph, Node
from .recognise import inner

__all__ = ["STARTS", "check_start", "set_in", "with_start"]

STARTS = ("identity", "paper")


def check_start(start: Any) -> None:
    """Refuse any word for `start` but the two that there are.

    Raises:
        UsageError: It is another one.
    """
    if start not in STARTS:
        hint = did_you_mean(start, STARTS) if isinstance(start, str) else ""
        raise UsageError(f"start is 'identity' or 'paper', got {start!r}.{hint}")


def with_start(d: dict[str, Any], start: str) -> tuple[dict[str, Any], list[str]]:
    """Return a model dictionary with a start in every row with attention, and the modules that know no start.

    Raises:
        UsageError: Another word for `start`.
    """
    graph = Graph.of(d)
    without = set_in(graph, d, start)
    return {**deepcopy(d), **deepcopy(graph.parts())}, without


def set_in(graph: Graph, d: Mapping[str, Any], start: str) -> list[str]:
    """Write a start into the rows of a graph, in place; return the modules that know no start, one entry a row.

    Raises:
        UsageError: Another word for `start`.
    """
    check_start(start)
    without: list[str] = []
    for node in graph.nodes:
        name, knows = _knows_start(node, d)
        args = node.args
        given = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
        if knows:
            node.tail[2] = [*args, {**given, "start": start}]
        elif name:
            without.append(name)
    return without


def _knows_start(node: Node, d: Mapping[str, Any]) -> tuple[str, bool]:
    """The attention that a row has, by name, and whether it knows `start`; the name is empty where it has none."""
    what = named(node.module, d)
    if what is None or what.kind in ("fusion", "head"):
        return "", False
    if what.is_attention:
        return node.module, "start" in what.options
    within = inner(node, d)
    if within is None:
        return "", False
    return within.name, "start" in within.options
