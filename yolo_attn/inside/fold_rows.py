"""The rows of a detector that have attention, and the model without some of them: as dictionary and as YAML."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ..detectors.attaching import BEFORE
from ..detectors.bundle import plain
from ..hook.resolve import Named, named
from ..model_yaml.graph import Graph, Node
from ..model_yaml.recognise import inner, keeps_width
from ..model_yaml.text import flow
from ..registry import registry
from ..weights.attention import attention_in

__all__ = ["Row", "as_yaml", "rows_of", "without"]

_NAMED = ("module", "place", "start")  # options of a block that are about its attention


@dataclass(frozen=True)
class Row:
    """A row with attention.

    Args:
        index: Its number.
        name: Its module.
        layers: Names of its attention layers in the network: ``model.4``, or ``model.6.m.0.attn``.
        tail: The number, module and arguments that it has without attention; None where it goes altogether.
        why: Why there is no such form of it; empty where there is one.
    """

    index: int
    name: str
    layers: tuple[str, ...]
    tail: list[Any] | None
    why: str

    @property
    def location(self) -> str:
        """For messages."""
        return f"row {self.index} ({self.name})"


def rows_of(network: Any, d: Mapping[str, Any]) -> list[Row]:
    """Return the rows with attention of a network, in their order; joins of several layers are none.

    Args:
        network: The detector.
        d: Its model dictionary.
    """
    layers: dict[int, list[str]] = {}
    for path, name in attention_in(network).items():
        entry = registry.find(name)
        if entry is None or entry.kind != "fusion":
            layers.setdefault(int(path.split(".")[1]), []).append(path)
    graph = Graph.of(dict(d))
    return [_row(graph.nodes[i], i, tuple(found), d) for i, found in sorted(layers.items())]


def _row(node: Node, i: int, layers: tuple[str, ...], d: Mapping[str, Any]) -> Row:
    what = named(node.module, d)
    if what is not None and what.is_attention:
        why = "" if len(node.edges) == 1 and keeps_width(node, what) else "it changes the number of channels"
        return Row(i, node.module, layers, None, why)
    if what is None or not what.plain or inner(node, d) is None:
        return Row(i, node.module, layers, None, f"{node.module} has no form without attention")
    try:
        return Row(i, node.module, layers, [node.tail[0], what.plain, _plain_args(node, what)], "")
    except LookupError as exc:
        return Row(i, node.module, layers, None, f"{what.plain} has no option {exc.args[0]}")


def _plain_args(node: Node, what: Named) -> list[Any]:
    """The arguments of a block without its attention; options of the block by name become positional.

    Raises:
        LookupError: One cannot.
    """
    args = list(node.args)
    options = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
    assert what.cls is not None and what.binding is not None
    own = [
        p
        for p in inspect.signature(what.cls).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in ("c1", "n")
    ]
    given = {k: v for k, v in options.items() if k not in _NAMED and k in what.binding.signature.parameters}
    names = [p.name for p in own]
    for key in given:
        if key not in names:
            raise LookupError(key)
    last = max((names.index(k) for k in given), default=-1)
    for p in own[len(args) : last + 1]:
        if p.name not in given and p.default is p.empty:
            raise LookupError(p.name)
        args.append(given.get(p.name, p.default))
    return args


def without(d: Mapping[str, Any], rows: Collection[Row], left: bool) -> dict[str, Any]:
    """Return a model dictionary without the attention of some rows.

    Args:
        d: The model dictionary.
        rows: The rows.
        left: Whether the model has other attention.
    """
    graph = Graph.of(dict(d))
    nodes = list(graph.nodes)
    for row in rows:
        if row.tail is None:
            graph.drop(nodes[row.index])
        else:
            nodes[row.index].tail[:] = deepcopy(row.tail)
    new = {**deepcopy(dict(d)), **deepcopy(graph.parts())}
    if not left:
        new.pop(BEFORE, None)
        new.pop("register", None)
    return new


def as_yaml(d: Mapping[str, Any], head: str) -> str:
    """Return a model dictionary as the text of a model YAML, one row a line.

    Args:
        d: The model dictionary.
        head: Its first comment.
    """
    d = dict(plain(dict(d)))
    scales, scale = d.get("scales"), d.pop("scale", "")
    if isinstance(scales, dict) and scales:  # the file's name tells no scale
        d["scales"] = {scale or "n": scales[scale] if scale in scales else next(iter(scales.values()))}
    lines, i = [f"# {head}"], 0
    for key, value in d.items():
        if key in ("backbone", "head"):
            lines += ["", f"{key}:", "  # [from, number, module, args]"]
            for row in value:
                lines.append(f"  - {flow(row)} # {i}")
                i += 1
        elif key not in (BEFORE, "yaml_file", "ch"):
            lines.append(f"{key}: {flow(value)}")
    return "\n".join(lines) + "\n"
