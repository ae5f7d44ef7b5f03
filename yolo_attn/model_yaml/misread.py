"""Find a detection head that reads the wrong rows, the usual result of inserting a row by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .graph import Graph, Node, is_block

__all__ = ["found", "misread"]

# No published head reads these; a block that fuses their result follows each.
_BETWEEN = ("Concat", "WeightedConcat", "Upsample")
_FURTHEST = 16  # rows; more are never inserted without shifting the numbers


def misread(d: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each row that the head probably reads by mistake, with the row that was probably meant.

    Args:
        d: A validated model dictionary.
    """
    return [sentence for *_, sentence in found(d)]


def found(d: Mapping[str, Any]) -> list[tuple[int, int | None, str]]:
    """Return each row that the head hardly means, the row that was probably meant, and a sentence of both.

    Args:
        d: A validated model dictionary.
    """
    graph = Graph.of(dict(d))
    head = graph.output
    if not head.listed:
        return []
    nodes, strides = graph.nodes, graph.strides()
    feeds = [nodes.index(e.target) for e in head.edges if e.target is not None]
    wrong = [i for i in feeds if nodes[i].module.rpartition(".")[2] in _BETWEEN]
    shift = _shift(feeds, nodes, strides) if wrong else 0
    told: list[tuple[int, int | None, str]] = []
    for i in wrong:
        meant = i + shift if shift else _next(i, nodes, strides)
        hint = f"; row {meant} ({nodes[meant].module}) was probably meant" if meant else ""
        told.append((i, meant, f"{head.module} reads row {i} ({nodes[i].module}){hint}"))
    return told


def _shift(feeds: list[int], nodes: list[Node], strides: dict[Node, float]) -> int:
    """The shift that makes all the head's inputs blocks at different strides, in rows; 0 if there is none."""
    for shift in range(1, _FURTHEST):
        meant = [nodes[i + shift] for i in feeds if i + shift < len(nodes) - 1]
        levels = {strides[n] for n in meant}
        if len(meant) == len(feeds) == len(levels) and all(map(is_block, meant)):
            return shift
    return 0


def _next(i: int, nodes: list[Node], strides: dict[Node, float]) -> int | None:
    """The next block at the same stride."""
    rows = range(i + 1, len(nodes) - 1)
    return next((j for j in rows if is_block(nodes[j]) and strides[nodes[j]] == strides[nodes[i]]), None)
