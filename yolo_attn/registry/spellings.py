"""Spellings of blocks with attention inside: ``C3_GC``, ``C2f_iRMB``, ``ECAC3``, ``Conv_CBAM``, ``ResBlock_CBAM``.

One rule for every attention module instead of a list: a block's name and a module's name side by side, in either
order, with or without an underscore, are that block with ``module:`` set to that module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["BLOCKS", "split"]

# The block's name in public forks: the kit's block, and options that the forks' block implies.
BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "C2PSA": ("C2PSAAttention", {}),
    "C3k2": ("C3k2Attention", {}),
    "C3": ("C3Attention", {}),
    "C2f": ("C2fAttention", {}),
    "Conv": ("ConvAttention", {}),
    "Bottleneck": ("BottleneckAttention", {}),
    "ResBlock": ("SEBottleneck", {"e": 1.0}),  # the forks' block does not narrow
}
# The hosts' own blocks whose names the rule would split.
HOSTS_OWN = ("A2C2f",)


def split(name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what a name may mean: the kit's block, the module's name as spelled, and options of the block.

    Args:
        name: The module's name in a row, without the kit's prefix.
    """
    if name in HOSTS_OWN:
        return
    for spelling, (block, options) in BLOCKS.items():
        for module in (
            name[len(spelling) :].lstrip("_") if name.startswith(spelling) else "",
            name[: -len(spelling)].rstrip("_") if name.endswith(spelling) else "",
        ):
            if module:
                yield block, module, options
