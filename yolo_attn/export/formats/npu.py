"""Where the compiler of an NPU places each operator, read from what it prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..graph import within

__all__ = ["placement", "summed", "told"]

HEADING = "Network Layer Information Table"
# `D RKNN: [08:34:00.532] 19   ReduceMax   FLOAT16  CPU    (1,32,16,24),(1)   (1,1,16,24)   0/0/0   24   ReduceMax:/model.3/ReduceMax`
ROW = re.compile(r"RKNN: \[[\d:.]+\]\s+\d+\s+(?P<type>\w+)\s+\w+\s+(?P<target>CPU|GPU|NPU)\s.*?(?P<name>\S+)\s*$")
ENDS = ("InputOperator", "OutputOperator")  # copies between the application and the network; every network has them


def placement(printed: str, chip: str, attention: Sequence[str]) -> dict[str, Any] | None:
    """Return what does not run on the NPU, None where the compiler printed no table of layers.

    Args:
        printed: What rknn-toolkit2 printed; of several networks, the last one counts.
        chip: The processor.
        attention: Dotted paths of the attention layers; an operator is told to be theirs by its name.

    Returns:
        ``chip``, the number of ``operators``, and how many of each type are ``on_cpu``, ``on_cpu_in_attention`` among them.
    """
    _, heading, table = printed.rpartition(HEADING)
    rows = [found for line in table.splitlines() if heading and (found := ROW.search(line))]
    rows = [r for r in rows if r["type"] not in ENDS]
    if not rows:
        return None
    away = [r for r in rows if r["target"] != "NPU"]
    own = [r for r in away if within(r["name"].partition(":")[2], attention)]
    return {
        "chip": chip,
        "operators": len(rows),
        "on_cpu": dict(sorted(Counter(r["type"] for r in away).items())),
        "on_cpu_in_attention": dict(sorted(Counter(r["type"] for r in own).items())),
    }


def summed(counts: Mapping[str, int]) -> str:
    """Return counts in words, such as ``ReduceMax x2, Transpose``."""
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in counts.items())


def told(found: Mapping[str, Any] | None, used: Iterable[str]) -> str:
    """Return the line that tells the result of :func:`placement`; `used` are the attention modules of the network."""
    if found is None:
        return "the compiler did not print which operators run on the NPU"
    away = sum(found["on_cpu"].values())
    line = f"{found['chip']}: {found['operators'] - away} of {found['operators']} operators on the NPU"
    if away:
        line += f"; on the CPU: {summed(found['on_cpu'])}"
    if list(used):
        line += f"; of attention: {summed(found['on_cpu_in_attention']) or 'none'}" if away else ", all of attention among them"
    return line
