"""Small rewrites of an exported graph that the exporters do not make."""

from __future__ import annotations

from typing import Any

__all__ = ["pool_means"]


def pool_means(model: Any) -> int:
    """Turn means over height and width into global average pooling, in place; return how many.

    The same numbers, but onnxruntime keeps convolutions in a blocked memory layout that pooling understands and a
    general mean does not: the map would be copied to the plain layout and back for every attention module.
    ``benchmarks/onnx_latency.py`` measures it.
    """
    import onnx
    from onnx import numpy_helper

    try:
        shapes = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # a graph that ONNX cannot follow stays as it is
        return 0
    rank = {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in [*shapes.value_info, *shapes.input, *shapes.output]
        if v.type.tensor_type.HasField("shape")
    }
    constants = {t.name: t for t in model.graph.initializer}
    found = 0
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or rank.get(node.input[0]) != 4:
            continue
        given = {a.name: a for a in node.attribute}
        axes = list(given["axes"].ints) if "axes" in given else []
        if len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        if sorted(a % 4 for a in axes) != [2, 3] or ("keepdims" in given and given["keepdims"].i != 1):
            continue
        del node.input[1:]
        del node.attribute[:]
        node.op_type = "GlobalAveragePool"
        found += 1
    if found:
        used = {name for node in model.graph.node for name in node.input}
        for name in constants.keys() - used:
            model.graph.initializer.remove(constants[name])
    return found
