"""The ranges of int8 maps in RKNN, chosen here: between rounding and cutting off, what loses least.

rknn-toolkit2 takes the smallest and the largest value of all pictures, so that one outlier coarsens a whole map; its
`kl_divergence` cuts off so much that boxes move, and its `mmse` takes minutes where the rest takes seconds, and wants the
pictures again when the network is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ExportError
from .spread import Sides

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
    sides = {name: Sides() for name in _shared(told, network, file)}
    for values in _computed(file, list(sides), pictures):
        for (name, side), value in zip(sides.items(), values):
            side.add(value, name)
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


def _computed(file: Path, names: list[str], pictures: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield the maps of each picture."""
    import onnx
    import onnxruntime

    model = onnx.load(str(file))
    outputs = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    empty = True
    for x in pictures:
        empty = False
        yield list(session.run(names, {given.name: x}))
    if empty:
        raise ExportError("int8 needs pictures to calibrate on")
