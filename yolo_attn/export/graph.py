"""Rewrites of an exported ONNX graph: what the exporters leave undone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

__all__ = ["decode_nodes", "fix_batch", "pool_means", "set_metadata", "to_half"]


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


def decode_nodes(model: Any) -> list[str]:
    """Return the names of the nodes that turn the head's last convolutions into boxes and scores (and do NMS).

    Found backwards from the outputs. The convolution of the distribution focal loss (Generalized Focal Loss,
    arXiv:2006.04388), of one output channel, is the expectation over a box side's bins and a part of the decoding.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    channels = {t.name: t.dims[0] for t in model.graph.initializer if t.dims}
    todo = [o.name for o in model.graph.output]
    found: dict[str, None] = {}
    while todo:
        node = made.get(todo.pop())
        if node is None or node.name in found:
            continue
        if node.op_type == "Conv" and channels.get(node.input[1]) != 1:
            continue
        found[node.name] = None
        todo += node.input
    return list(found)


def to_half(model: Any) -> Any:
    """Return the model in fp16 inside and fp32 at the input, the output and in the decoding.

    From 512 on, neighbouring fp16 numbers are half a pixel apart: boxes decoded in fp16 would be rounded to that.
    """
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights below fp16's smallest number become zero, as meant
        half = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=decode_nodes(model))
    _drop_round_trips(half)
    converted = OnnxModel(half)
    converted.topological_sort()  # the casts are appended behind the nodes that read them
    return converted.model


def _drop_round_trips(model: Any) -> None:
    """Take out casts from fp32 to fp16 and back, in place: the converter puts one pair between any two fp32 nodes."""
    from onnx import TensorProto

    def is_cast(node: Any, to: int) -> bool:
        return bool(node.op_type == "Cast" and node.attribute[0].i == to)

    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    direct = {}  # what comes back as fp32 -> what it was before
    for node in list(graph.node):
        down = made.get(node.input[0]) if is_cast(node, TensorProto.FLOAT) else None
        if down is not None and is_cast(down, TensorProto.FLOAT16):
            direct[node.output[0]] = down.input[0]
            graph.node.remove(node)
    outputs = {o.name for o in graph.output}
    name_of = {direct[o]: o for o in outputs & direct.keys()}  # a graph's output keeps its name
    for node in graph.node:
        node.output[:] = [name_of.get(name, name) for name in node.output]
        inputs = [direct.get(name, name) for name in node.input]
        node.input[:] = [name_of.get(name, name) for name in inputs]
    read = {name for node in graph.node for name in node.input} | outputs
    for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in read]:
        graph.node.remove(node)


def fix_batch(model: Any, batch: int = 1) -> None:
    """Write a fixed batch into the shapes of the inputs and outputs, in place."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch  # takes the place of the name
    del model.graph.value_info[:]  # these speak of the name still


def set_metadata(model: Any, entries: Mapping[str, str], *, replace: bool = False) -> None:
    """Add metadata, in place; what is there already stays unless `replace`."""
    have = {p.key: p for p in model.metadata_props}
    for key, value in entries.items():
        if key not in have:
            model.metadata_props.add(key=key, value=value)
        elif replace:
            have[key].value = value
