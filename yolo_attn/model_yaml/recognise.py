"""Recognise attention in the rows of a model YAML: rows that keep the width, and attention inside a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..hook.resolve import Named, named
from .graph import Node

__all__ = ["inner", "keeps_width"]


def keeps_width(node: Node, what: Named) -> bool:
    """Whether a row with attention keeps the number of channels, as far as the row tells.

    A class that takes its output channels, such as ``CoordAtt(inp, oup)``, keeps it if the row states no width, or the
    width of the row that it reads.

    Args:
        node: The row.
        what: Its module.
    """
    if what.binding is None or not what.binding.is_block:
        return True
    stated = node.args[0] if node.args and not isinstance(node.args[0], dict) else None
    source = node.edges[0].target
    return stated is None or (source is not None and bool(source.args) and source.args[0] == stated)


def inner(node: Node, d: Mapping[str, Any] | None = None) -> Named | None:
    """Return the attention inside a block's row; None if the row is not such a block or has no attention.

    Args:
        node: The row.
        d: The model dictionary, for its ``register:``.
    """
    block = named(node.module, d)
    if block is None or block.kind != "block" or "options" not in block.options:
        return None
    last = node.args[-1] if node.args and isinstance(node.args[-1], dict) else {}
    parameter = block.binding.signature.parameters.get("module") if block.binding is not None else None
    default = _fixed(block.cls) if parameter is None else parameter.default
    module = last.get("module", default)
    return named(module, d) if isinstance(module, str) else None


def _fixed(cls: Any) -> str:
    """The attention of a block without an option `module`: the class names it."""
    return str(getattr(cls, "attention", "SEAttention"))
