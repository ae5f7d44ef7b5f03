"""Choose the rows that a placement and `after` mean in a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError, did_you_mean
from ..hook.resolve import named
from ..words import option
from .graph import Graph, Node, is_block

__all__ = ["PLACEMENTS", "choose", "outline"]

PLACEMENTS = ("backbone", "backbone-last2", "P3", "P4", "P5", "head", "neck", "neck-P5", "before-detect", "inside")
_LEVEL = re.compile(r"(neck-)?P([1-7])", re.IGNORECASE)


def outline(d: Mapping[str, Any]) -> str:
    """Return, in one line, the rows of a model to insert attention after: types with row numbers, and stages."""
    graph = Graph.of(dict(d))
    words = []
    for part in ("backbone", "head"):
        rows: dict[str, list[int]] = {}
        for i, node in enumerate(graph.nodes):
            if node.part == part and node is not graph.output:
                rows.setdefault(node.module, []).append(i)
        words.append(part + " has " + ", ".join(f"{m} ({' '.join(map(str, r))})" for m, r in rows.items()))
    stages = ", ".join(f"P{k} is row {graph.nodes.index(n)}" for k, n in sorted(_stages(graph, d).items()))
    feeds = [graph.nodes.index(e.target) for e in graph.output.edges if e.target is not None]
    words += [stages] if stages else []
    words.append(f"{graph.output.module} is row {len(graph.nodes) - 1} and reads {' '.join(map(str, feeds))}")
    return "; ".join(words)


def choose(graph: Graph, d: dict[str, Any], name: str, place: str, after: list[str | int]) -> list[Node]:
    """Return the rows that satisfy both a placement and `after`.

    Args:
        graph: The model.
        d: Its dictionary.
        name: Its name, for messages.
        place: A placement; empty for any row.
        after: Module types and row numbers; empty for every row of the placement.

    Raises:
        UsageError: There is no such placement, type or row; the message lists those of the model.
    """
    nodes = _placed(graph, d, place, any(not _is_number(a) for a in after))
    if place == "inside" and after:
        nodes = graph.nodes[:-1]
    if after:
        asked = [n for a in after for n in _matching(graph, d, name, a)]
        nodes = [n for n in nodes if n in asked]
    if not nodes:
        what = " and ".join(
            ([option("where", place)] if place else [])
            + ([option("after", after if len(after) > 1 else after[0])] if after else [])
        )
        raise UsageError(f"{name}: no row matches {what}. The {outline(d)}.")
    return nodes


def _placed(graph: Graph, d: Mapping[str, Any], place: str, any_type: bool) -> list[Node]:
    """The rows of a placement: feature blocks, or rows of any type if `after` names a type."""
    inner = graph.nodes[:-1]
    fed = list(dict.fromkeys(e.target for e in graph.output.edges if e.target is not None))
    backbone = [n for n in inner if n.part == "backbone" and (any_type or _is_feature(n, d))]
    if place in ("", "inside-"):
        return inner
    if place == "inside":
        return backbone
    if place.startswith("inside-"):
        return _placed(graph, d, place[len("inside-") :], any_type)
    if place == "backbone":
        return backbone
    if place == "backbone-last2":
        return backbone[-2:]
    if place == "head":
        return [n for n in inner if n.part == "head" and (any_type or _is_feature(n, d))]
    if place in ("neck", "before-detect"):
        return fed
    match = _LEVEL.fullmatch(place)
    if match:
        stride, strides = 2.0 ** int(match.group(2)), graph.strides()
        if match.group(1):
            return [n for n in fed if strides[n] == stride]
        if any_type:
            return [n for n in backbone if strides[n] == stride]
        stage = _stages(graph, d).get(int(match.group(2)))
        return [stage] if stage is not None else []
    if place.isdigit():
        return [n for n in inner if n.old == int(place)]
    raise UsageError(
        f"no placement is called '{place}'.{did_you_mean(place, PLACEMENTS)} Placements: {', '.join(PLACEMENTS)}, "
        f"and the other levels."
    )


def _stages(graph: Graph, d: Mapping[str, Any]) -> dict[int, Node]:
    """The last feature block of the backbone at each stride 2^k, by k."""
    strides = graph.strides()
    return {
        int(strides[n]).bit_length() - 1: n
        for n in graph.nodes[:-1]
        if n.part == "backbone"
        and _is_feature(n, d)
        and n.old != 0
        and strides[n] > 1
        and strides[n] == int(strides[n])
    }


def _is_feature(node: Node, d: Mapping[str, Any]) -> bool:
    what = named(node.module, d)
    return is_block(node) and (what is None or not what.is_attention)


def _matching(graph: Graph, d: dict[str, Any], name: str, after: str | int) -> list[Node]:
    if _is_number(after):
        i, last = int(after), len(graph.nodes) - 1
        if i == last:
            raise UsageError(
                f"{name}: row {i} is {graph.output.module}, the model's output; nothing can follow it. "
                f"{option('where', 'before-detect')} inserts attention in front of it."
            )
        if not 0 <= i < last:
            raise UsageError(f"{name}: there is no row {i}; the rows are 0 to {last}. The {outline(d)}.")
        return [graph.nodes[i]]
    if str(after) == graph.output.module:
        raise UsageError(
            f"{name}: {after} is the model's output; nothing can follow it. "
            f"{option('where', 'before-detect')} inserts attention in front of it."
        )
    found = [n for n in graph.nodes[:-1] if n.module == after]
    if not found:
        hint = did_you_mean(str(after), {n.module for n in graph.nodes[:-1]})
        raise UsageError(f"{name}: no row is a {after}.{hint} The {outline(d)}.")
    return found


def _is_number(value: str | int) -> bool:
    return isinstance(value, int) or bool(re.fullmatch(r"-?\d+", value))
