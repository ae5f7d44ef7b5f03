"""What a config is made of: which attention, where, and how it starts; the check marks of an ablation table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..hook.resolve import named
from ..model_yaml.graph import Graph, Node
from ..model_yaml.recognise import inner

__all__ = ["Config", "of"]

PLACES = ("backbone", "neck", "head", "inside")


@dataclass(frozen=True)
class Config:
    """One config of a study.

    Args:
        modules: The attention in it, by the names of its rows, each once.
        places: Of ``backbone``, ``neck`` (what the detection head reads), ``head`` (elsewhere in the head) and ``inside``
            (within the units of a block).
        starts: Of ``identity`` and ``paper``; modules that know no start have none.
        known: Whether the model could be read; without, the rest says nothing.
    """

    modules: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    known: bool = field(default=True)


def of(d: Mapping[str, Any], *, start: str = "paper") -> Config:
    """Describe a model.

    Args:
        d: Its dictionary, as YAML or checkpoint has it.
        start: Of rows that name none.
    """
    modules: dict[str, None] = {}
    places: set[str] = set()
    starts: set[str] = set()
    try:
        graph = Graph.of(dict(d))
        fed = {e.target for e in graph.output.edges}
        for node in graph.nodes[:-1]:
            name, inside, options = _attention(node, d)
            if not name:
                continue
            modules[name] = None
            place = "inside" if inside else "backbone" if node.part == "backbone" else "neck" if node in fed else "head"
            places.add(place)
            if inside:
                places.add("backbone" if node.part == "backbone" else "neck")
            if "start" in options:
                given = node.args[-1] if node.args and isinstance(node.args[-1], dict) else {}
                starts.add(str(given.get("start") or d.get("start") or start))
    except Exception:  # a stranger's checkpoint may hold rows of any form; what they are is then not known, and said
        return Config(known=False)
    return Config(tuple(modules), tuple(p for p in PLACES if p in places), tuple(sorted(starts)))


def _attention(node: Node, d: Mapping[str, Any]) -> tuple[str, bool, Any]:
    """The attention of a row, whether it sits inside a block, and the options that it takes; empty without any."""
    what = named(node.module, d)
    if what is None or what.kind == "head":
        return "", False, ()
    if what.is_attention or what.kind == "fusion":
        return what.name, False, what.options
    within = inner(node, d)
    return ("", False, ()) if within is None else (within.name, True, within.options)
