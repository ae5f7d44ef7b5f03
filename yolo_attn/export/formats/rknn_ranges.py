"""The ranges of int8 maps in RKNN, chosen here: between rounding and cutting off, what loses least.

rknn-toolkit2 takes the smallest and the largest value of all pictures, so that one outlier coarsens a whole map; its
`kl_divergence` cuts off so much that boxes move, and its `mmse` takes minutes where the rest takes seconds, and wants the
pictures again when the network is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..spread import sides_of

__all__ = ["set_ranges"]

# what hands values on: its output has the range of its input, so that the processor need not round again
PASSING = ("MaxPool", "Resize", "Split", "Slice", "Reshape", "Transpose")


def set_ranges(told: dict[str, Any], network: Any, file: Path, pictures: Iterable[np.ndarray]) -> int:
    """Choose the ranges of all maps in int8 that the ONNX file has too, in place; return how many.

    The toolkit merges operators, and what it makes of attention or of the decoding has names of its own: those maps keep
    its ranges.

    Args:
        told: The compiler's list of ranges, ``quantize_parameters``.
        network: Its graph, whose maps have these names.
        file: The ONNX file that it was made of.
        pictures: Inputs, (1, 3, H, W) each.
    """
    sides = sides_of(file, _shared(told, network, file), pictures)
    for name, side in sides.items():
        _set(told[name], *side.limits())
    for node in network.graph.node:
        given = told.get(node.input[0]) if node.op_type in PASSING else None
        for name in node.output:
            if given and given["min"] and name in sides:
                _set(told[name], given["min"][0], given["max"][0])
    return len(sides)


def _shared(told: dict[str, Any], network: Any, file: Path) -> list[str]:
    import onnx

    made = {name for node in onnx.load(str(file)).graph.node for name in node.output}
    names = [name for node in network.graph.node for name in node.output if name in made]
    return [name for name in names if told.get(name, {}).get("dtype") == "int8"]


def _set(entry: dict[str, Any], low: float, high: float) -> None:
    entry["min"], entry["max"] = [float(low)], [float(high)]  # scale and zero point follow from these
