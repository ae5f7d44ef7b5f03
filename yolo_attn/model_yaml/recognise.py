"""What a row of a model YAML says of its attention: whether it keeps the width, and what it holds inside a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..hook.resolve import Named, named
from .graph import Node

__all__ = ["inner", "keeps_width"]


def keeps_width(node: Node, what: Named) -> bool:
    """Whether a row with attention gives the channels that it takes, as far as the row says it.

    A user's class that is given its output channels, such as ``CoordAtt(inp, oup)``, does so where the row states no
    number, or that of the row which it reads.
    """
    if what.binding is None or not what.binding.is_block:
        return True
    stated = node.args[0] if node.args and not isinstance(node.args[0], dict) else None
    source = node.edges[0].target
    return stated is None or (source is not None and bool(source.args) and source.args[0] == stated)


def inner(node: Node, d: Mapping[str, Any] | None = None) -> Named | None:
    """Return the attention inside a block's row; None where the row is no such block or holds none."""
    block = named(node.module, d)
    if block is None or block.kind != "block" or "options" not in block.options:
        return None
    last = node.args[-1] if node.args and isinstance(node.args[-1], dict) else {}
    parameter = block.binding.signature.parameters.get("module") if block.binding is not None else None
    default = _fixed(block.cls) if parameter is None else parameter.default
    module = last.get("module", default)
    return named(module, d) if isinstance(module, str) else None


def _fixed(cls: Any) -> str:
    """The attention of a block that has no `module`: the class says which."""
    return str(getattr(cls, "attention", "SEAttention"))
