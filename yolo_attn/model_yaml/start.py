"""Set how attention begins: the option `start` in the rows of a model dictionary.

With ``identity`` every gate begins at 1 and the model as the one without attention; with ``paper`` it begins as its
authors describe.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from ..errors import UsageError, did_you_mean, shown
from ..hook.resolve import named
from .graph import Graph, Node
from .recognise import inner

__all__ = ["STARTS", "check_start", "set_in", "with_start"]

STARTS = ("identity", "paper")


def check_start(start: Any) -> None:
    """Check a value of `start`.

    Raises:
        UsageError: It is neither ``identity`` nor ``paper``.
    """
    if start not in STARTS:
        hint = did_you_mean(start, STARTS) if isinstance(start, str) else ""
        raise UsageError(f"start is 'identity' or 'paper', got {shown(start)}.{hint}")


def with_start(d: dict[str, Any], start: str) -> tuple[dict[str, Any], list[str]]:
    """Set `start` in every row with attention.

    Args:
        d: A validated model dictionary; not changed.
        start: ``identity`` or ``paper``.

    Returns:
        The new model dictionary, and the modules that have no option ``start``, one entry a row.

    Raises:
        UsageError: `start` is neither.
    """
    graph = Graph.of(d)
    without = set_in(graph, d, start)
    return {**deepcopy(d), **deepcopy(graph.parts())}, without


def set_in(graph: Graph, d: Mapping[str, Any], start: str) -> list[str]:
    """Set `start` in the rows of a graph, in place.

    Args:
        graph: The graph.
        d: Its model dictionary, for ``register:``.
        start: ``identity`` or ``paper``.

    Returns:
        The modules that have no option ``start``, one entry a row.

    Raises:
        UsageError: `start` is neither.
    """
    check_start(start)
    without: list[str] = []
    for node in graph.nodes:
        name, has = _has_start(node, d)
        args = node.args
        given = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
        if has:
            node.tail[2] = [*args, {**given, "start": start}]
        elif name:
            without.append(name)
    return without


def _has_start(node: Node, d: Mapping[str, Any]) -> tuple[str, bool]:
    """The name of a row's attention, empty if it has none, and whether it has the option `start`."""
    what = named(node.module, d)
    if what is None or what.kind in ("fusion", "head"):
        return "", False
    if what.is_attention:
        return node.module, "start" in what.options
    within = inner(node, d)
    if within is None:
        return "", False
    return within.name, "start" in within.options
