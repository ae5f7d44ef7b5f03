"""The rows of a model YAML as a graph: which row reads which, and at which stride.

Rows name each other by number, so every insertion renumbers the rows after it. Here a row refers to its producers
themselves, and numbers are computed when the rows are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..registry import registry

__all__ = ["Edge", "Graph", "Node", "is_block", "stride_factor"]

# Rows that are not feature blocks: down- and upsampling, joins, pooling pyramids, and the hosts' own attention.
_PLUMBING = frozenset(
    [
        "Conv",
        "Conv2",
        "LightConv",
        "DWConv",
        "GhostConv",
        "RepConv",
        "Focus",
        "HGStem",
        "ADown",
        "AConv",
        "SCDown",
        "SPP",
        "SPPF",
        "SPPELAN",
        "SPPCSPC",
        "SPPFCSPC",
        "Concat",
        "Upsample",
        "CBLinear",
        "CBFuse",
        "Index",
        "Contract",
        "Expand",
        "DWConvTranspose2d",
        "ConvTranspose",
        "PSA",
        "C2PSA",
        "C2fPSA",
        "AIFI",
        "ImagePoolingAttn",
        "SEConv",
        "ConvAttention",
        "RFAConv",
        "RFCAConv",
        "RFCBAMConv",
        "CAConv",
        "C2PSAAttention",
        "AIFIAttention",
        "ResNetStem",
        "WeightedConcat",
        "WeightedFusion",
        "AFF",
        "iAFF",
    ]
)
_STRIDED = frozenset(
    [
        *("Conv", "Conv2", "LightConv", "DWConv", "GhostConv", "RepConv", "SCDown", "CrossConv", "GhostBottleneck"),
        *("SEConv", "ConvAttention", "RFAConv", "RFCAConv", "RFCBAMConv", "CAConv"),
    ]
)
_HALVING = frozenset(["Focus", "ADown", "AConv", "Contract"])
_STAGES = frozenset(["SEResNetLayer", "ECAResNetLayer", "ResNetAttention", "SEBasicBlock", "SEBottleneck"])


@dataclass(eq=False)
class Edge:
    """One entry of a row's `from`.

    Args:
        target: The producer; None for the image.
        relative: Whether the row writes it as a negative number.
    """

    target: Node | None
    relative: bool


@dataclass(eq=False)
class Node:
    """One row.

    Args:
        edges: Its producers, in the order of `from`.
        listed: Whether `from` is a list.
        tail: The row without its `from`: number, module, arguments.
        part: ``backbone`` or ``head``.
        old: The row's number in the file that was read; None for an inserted row.
    """

    edges: list[Edge]
    listed: bool
    tail: list[Any]
    part: str
    old: int | None = None

    @property
    def module(self) -> str:
        """The name in the row's third column."""
        return str(self.tail[1])

    @property
    def args(self) -> list[Any]:
        """The row's fourth column."""
        return list(self.tail[2])


@dataclass(eq=False)
class Graph:
    """The rows of one model, in order."""

    nodes: list[Node] = field(default_factory=list)

    @classmethod
    def of(cls, d: dict[str, Any]) -> Graph:
        """Read a validated model dictionary."""
        graph = cls()
        for part in ("backbone", "head"):
            for f, n, m, args in d[part]:
                i = len(graph.nodes)
                edges = [
                    Edge(graph.nodes[x] if x >= 0 else graph.nodes[i + x], x < 0) if i else Edge(None, True)
                    for x in (f if isinstance(f, list) else [f])
                ]
                graph.nodes.append(Node(edges, isinstance(f, list), [n, m, args], part, i))
        return graph

    def rows(self) -> list[list[Any]]:
        """Return the rows with their current numbers in `from`; relative entries stay relative."""
        at = {node: i for i, node in enumerate(self.nodes)}
        out = []
        for i, node in enumerate(self.nodes):
            f = [-1 if e.target is None else at[e.target] - i if e.relative else at[e.target] for e in node.edges]
            out.append([f if node.listed else f[0], *node.tail])
        return out

    def parts(self) -> dict[str, list[list[Any]]]:
        """Return ``{"backbone": rows, "head": rows}``."""
        rows = self.rows()
        return {p: [r for r, n in zip(rows, self.nodes) if n.part == p] for p in ("backbone", "head")}

    @property
    def output(self) -> Node:
        """The detection head: the last row."""
        return self.nodes[-1]

    def readers(self, node: Node) -> list[Edge]:
        """Return every edge that reads `node`."""
        return [e for n in self.nodes for e in n.edges if e.target is node]

    def insert(self, node: Node, tail: list[Any], at: Node, edges: Iterable[Edge]) -> Node:
        """Insert a row that reads `node`.

        Args:
            node: The row that it reads.
            tail: The row without its `from`.
            at: The row to insert it after.
            edges: Edges that read the new row from now on, instead of `node`.
        """
        place = self.nodes.index(at)
        new = Node([Edge(node, at is node)], False, tail, at.part)
        for edge in edges:
            edge.target = new
        self.nodes.insert(place + 1, new)
        return new

    def drop(self, node: Node) -> None:
        """Remove a row with one input; its readers then read that input."""
        (source,) = node.edges
        for edge in self.readers(node):
            edge.target = source.target
        self.nodes.remove(node)

    def strides(self) -> dict[Node, float]:
        """Return each row's output stride in pixels of the image, as far as the rows determine it."""
        strides: dict[Node, float] = {}
        for node in self.nodes:
            source = node.edges[0].target
            before = 1.0 if source is None else strides[source]
            strides[node] = before * stride_factor(node.module.rpartition(".")[2], node.args)
        return strides


def is_block(node: Node) -> bool:
    """Whether a row is a feature block (C3, C2f, HGBlock, ...) rather than plumbing."""
    return not {node.module, _kits_name(node.module)} & _PLUMBING and not node.module.startswith(("nn.", "torch"))


def _kits_name(module: str) -> str:
    """The registered name of a row's module, also for an alias or a spelling such as ``Conv_CBAM``."""
    entry = registry.find(registry.plain_name(module))
    return module if entry is None or (entry.implied and not entry.binding.sets) else entry.name


def stride_factor(module: str, args: list[Any]) -> float:
    """Return the factor by which a row multiplies the stride.

    Args:
        module: The module's name.
        args: The row's arguments.
    """
    module = _kits_name(module)

    def number(position: int, default: float) -> float:
        value = args[position] if len(args) > position else default
        if isinstance(value, (list, tuple)) and value:
            value = value[0]
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else 1.0

    if module in _STRIDED:
        return number(2, 1)
    if module in _HALVING:
        return 2.0
    if module == "HGStem":
        return 4.0
    if module in ("MaxPool2d", "AvgPool2d"):
        return number(1, number(0, 1))
    if module in ("ResNetLayer", "ResNetLayerAttention"):
        return 4.0 if len(args) > 3 and args[3] is True else number(2, 1)
    if module == "ResNetStem":  # width, kernel, stride, pooling
        return number(2, 2) * (1.0 if len(args) > 3 and args[3] is False else 2.0)
    if module in _STAGES:
        return number(1, 1)
    if module == "Upsample":
        return 1 / number(1, 2)
    if module in ("ConvTranspose2d", "ConvTranspose", "DWConvTranspose2d"):
        return 1 / number(2, 1)
    if module == "Expand":
        return 0.5
    return 1.0
