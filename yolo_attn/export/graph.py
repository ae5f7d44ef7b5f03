"""Rewrite an exported ONNX graph: optimizations and conversions that the exporters lack."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["decode_nodes", "fix_batch", "normalize_boxes", "pool_means", "scale_apart", "set_metadata", "split_grams", "to_half", "within"]

POOLED = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def pool_means(model: Any) -> int:
    """Replace means and maxima over height and width by global pooling, in place.

    The result is the same, but onnxruntime keeps convolutions in a blocked memory layout that pooling supports and a
    general mean does not: for every attention module, the map would be copied to the plain layout and back. NPUs leave
    a general maximum to the CPU. ``benchmarks/onnx_latency.py`` measures the means. The kit's own modules are traced
    so already; this is for plug-ins and the hosts' blocks.

    Returns:
        The number of nodes replaced.
    """
    import onnx
    from onnx import numpy_helper

    try:
        shapes = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # shape inference failed: leave the graph unchanged
        return 0
    shape = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*shapes.value_info, *shapes.input, *shapes.output]
        if v.type.tensor_type.HasField("shape")
    }
    constants = {t.name: t for t in model.graph.initializer}
    found = 0
    for node in model.graph.node:
        if node.op_type not in POOLED:  # of the others, Constant has no input
            continue
        of = shape.get(node.input[0], [])
        if len(of) != 4 or of[1] == 1:  # OpenCV 5.0 does not pool a map of one channel
            continue
        given = {a.name: a for a in node.attribute}
        axes = list(given["axes"].ints) if "axes" in given else []
        if len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        if sorted(a % 4 for a in axes) != [2, 3] or ("keepdims" in given and given["keepdims"].i != 1):
            continue
        del node.input[1:]
        del node.attribute[:]
        node.op_type = POOLED[node.op_type]
        found += 1
    if found:
        used = {name for node in model.graph.node for name in node.input}
        for name in constants.keys() - used:
            model.graph.initializer.remove(constants[name])
    return found


def split_grams(model: Any) -> int:
    """Compute each product of a matrix with its own transpose as two halves, in place; the numbers stay the same.

    For rknn-toolkit2: its compiler crashes (2.3.2, signal 11) on a product whose two factors are one tensor, and where it
    takes such a product, softmax and another product for attention of a tensor to itself.

    Returns:
        The number of products.
    """
    import onnx
    from onnx import helper, numpy_helper

    known = onnx.shape_inference.infer_shapes(model).graph
    last = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][-1:] for v in [*known.value_info, *known.input]}
    made = {name: node for node in model.graph.node for name in node.output}

    def origin(name: str) -> str:
        node = made.get(name)
        return node.input[0] if node is not None and node.op_type == "Transpose" else name

    nodes, found = [], 0
    for node in model.graph.node:
        columns = (last.get(node.input[1]) or [0])[0] if node.op_type == "MatMul" else 0
        if columns < 2 or origin(node.input[0]) != origin(node.input[1]):
            nodes.append(node)
            continue
        found += 1
        prefix, parts = f"{node.name or node.output[0]}/half", []
        for k, (start, end) in enumerate(((0, columns // 2), (columns // 2, columns))):
            names = [f"{prefix}{k}/{part}" for part in ("start", "end", "axis")]
            for name, value in zip(names, (start, end, -1)):
                model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
            nodes.append(helper.make_node("Slice", [node.input[1], *names], [f"{prefix}{k}/columns"], name=f"{prefix}{k}/Slice"))
            parts.append(f"{prefix}{k}/product")
            nodes.append(helper.make_node("MatMul", [node.input[0], f"{prefix}{k}/columns"], parts[-1:], name=f"{prefix}{k}/MatMul"))
        nodes.append(helper.make_node("Concat", parts, list(node.output), name=f"{prefix}/Concat", axis=-1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return found


def scale_apart(model: Any) -> int:
    """Give each of several maps that are scaled from one scaled and shifted map a scale and a shift of its own, in place.

    ``(g x + b) w`` becomes ``(g w) x + (b w)``: the same number of operators for each map, and the numbers stay the same
    but for rounding. For rknn-toolkit2: its compiler crashes for rk3566 (2.3.2, signal 11) where query, key and value are
    such maps, as behind a norm with one weight a channel.

    Returns:
        The number of maps that got their own.
    """
    from onnx import helper, numpy_helper

    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {o.name: [None] for o in model.graph.output}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def split(node: Any, kind: str) -> tuple[str, np.ndarray] | None:
        """Return a node's map and its constant."""
        if node is None or node.op_type != kind or len({*node.input} & constants.keys()) != 1:
            return None
        x, c = sorted(node.input, key=lambda name: name in constants)
        return x, constants[c]

    found = 0
    replaced: dict[str, list[Any]] = {}  # by the output of the node that they take the place of
    for shift in model.graph.node:
        shifted = split(shift, "Add")
        scaled = split(made.get(shifted[0]), "Mul") if shifted else None
        after = [(n, split(n, "Mul")) for n in readers.get(shift.output[0], [])]
        if shifted is None or scaled is None or len(readers[shifted[0]]) > 1 or len(after) < 2 or not all(s for _, s in after):
            continue
        replaced.update({made[shifted[0]].output[0]: [], shift.output[0]: []})
        for node, own in after:
            assert own is not None  # as looked at above
            names = [f"{node.name or node.output[0]}/{part}" for part in ("scale", "shift", "scaled")]
            for name, value in zip(names, (scaled[1] * own[1], shifted[1] * own[1])):
                model.graph.initializer.append(numpy_helper.from_array(value, name))
            replaced[node.output[0]] = [
                helper.make_node("Mul", [scaled[0], names[0]], names[2:], name=node.name),
                helper.make_node("Add", [names[2], names[1]], list(node.output), name=names[1]),
            ]
            found += 1
    nodes = [new for node in model.graph.node for new in replaced.get(node.output[0], [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return found


def decode_nodes(model: Any) -> list[str]:
    """Return the names of the nodes that decode the head's last convolutions into boxes and scores (and apply NMS).

    They are found backwards from the outputs. The convolution with one output channel of the distribution focal loss
    (Generalized Focal Loss, arXiv:2006.04388), an expectation over the bins of a box side, is a part of the decoding.
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


def last_convolutions(model: Any) -> list[str]:
    """Return the names of the head's last convolutions: those whose output is decoded."""
    decoding = set(decode_nodes(model))
    read = {name for node in model.graph.node if node.name in decoding for name in node.input}
    return [n.name for n in model.graph.node if n.op_type == "Conv" and n.name not in decoding and read.intersection(n.output)]


def within(node: str, layers: Sequence[str]) -> bool:
    """Return whether a node belongs to one of these layers by its name: `/model.6/m/m.0/attn/fc1/Conv` to `model.6.m.0.attn`.

    The exporters name a node after the modules that were called, a list's entries by the list's name and a number, with
    or without the list before them.
    """
    parts = node.strip("/").split("/")
    path = ".".join(p for p, after in zip(parts, [*parts[1:], ""]) if not after.startswith(f"{p}."))
    return any(f".{layer}." in f".{path}." for layer in layers)


def normalize_boxes(model: Any, size: tuple[int, int]) -> None:
    """Divide the boxes of an anchor-free detector by the image size, in place, before they join the scores.

    Toolchains that quantize with one scale for a tensor would otherwise round every score, 0 to 1, to zero beside boxes
    of 0 to 640.

    Args:
        model: A file whose output (B, 4 + classes, N) is a concatenation of boxes x y w h in pixels and scores.
        size: Height and width of the input.

    Raises:
        ValueError: The output is not such a concatenation.
    """
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    join = made.get(graph.output[0].name)
    known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shape = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known.value_info}
    if join is None or join.op_type != "Concat" or shape.get(join.input[0], [])[1:2] != [4]:
        raise ValueError("its output is not a concatenation of boxes and scores")
    h, w = size
    sides = np.array([1 / w, 1 / h, 1 / w, 1 / h], np.float32).reshape(1, 4, 1)
    graph.initializer.append(numpy_helper.from_array(sides, "relative/sides"))
    scaled = onnx.helper.make_node("Mul", [join.input[0], "relative/sides"], ["relative/boxes"], "relative/Mul")
    join.input[0] = "relative/boxes"
    graph.node.insert(list(graph.node).index(join), scaled)
    set_metadata(model, {"boxes": "relative"})


def to_half(model: Any) -> Any:
    """Convert a model to fp16, except for inputs, outputs and the decoding of boxes, which stay fp32.

    Above 512, neighbouring fp16 numbers are half a pixel apart, so decoding in fp16 would round boxes to that.

    Returns:
        The converted model.
    """
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights that underflow to zero in fp16
        half = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=decode_nodes(model))
    _drop_round_trips(half)
    converted = OnnxModel(half)
    converted.topological_sort()  # casts are appended after the nodes that read them
    return converted.model


def _drop_round_trips(model: Any) -> None:
    """Remove pairs of casts from fp32 to fp16 and back, which the converter adds between fp32 nodes, in place."""
    from onnx import TensorProto

    def is_cast(node: Any, to: int) -> bool:
        return bool(node.op_type == "Cast" and node.attribute[0].i == to)

    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    direct = {}  # output of a pair of casts -> its input
    for node in list(graph.node):
        down = made.get(node.input[0]) if is_cast(node, TensorProto.FLOAT) else None
        if down is not None and is_cast(down, TensorProto.FLOAT16):
            direct[node.output[0]] = down.input[0]
            graph.node.remove(node)
    outputs = {o.name for o in graph.output}
    name_of = {direct[o]: o for o in outputs & direct.keys()}  # outputs of the graph keep their names
    for node in graph.node:
        node.output[:] = [name_of.get(name, name) for name in node.output]
        inputs = [direct.get(name, name) for name in node.input]
        node.input[:] = [name_of.get(name, name) for name in inputs]
    read = {name for node in graph.node for name in node.input} | outputs
    for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in read]:
        graph.node.remove(node)


def fix_batch(model: Any, batch: int = 1) -> None:
    """Set a fixed batch size in the shapes of inputs and outputs, in place."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch  # replaces the symbolic name
    del model.graph.value_info[:]  # these refer to the name still


def set_metadata(model: Any, entries: Mapping[str, str], *, replace: bool = False) -> None:
    """Add metadata, in place; existing entries are kept unless `replace` is set."""
    have = {p.key: p for p in model.metadata_props}
    for key, value in entries.items():
        if key not in have:
            model.metadata_props.add(key=key, value=value)
        elif replace:
            have[key].value = value
