"""What each int8 convolution loses: its output beside that of the fp32 convolution on the same input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["losses", "shares"]


def losses(full: Path, small: Path, blobs: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Return the convolutions of an int8 file that add most to the error, worst first.

    Beside each int8 convolution, the fp32 one is run on the input that it has there, before that input is rounded. What
    earlier layers lost is thus no part of the figure. Kernels are left out: the graph is run as it is written, so that
    the figures are the file's, on any processor.

    Args:
        full: The fp32 file that was quantized.
        small: The int8 file.
        blobs: Inputs, (1, 3, H, W) each.

    Returns:
        ``layer``, the convolution's name, and ``error``, the root mean square of the difference relative to that of the
        output.
    """
    import onnx
    import onnxruntime

    exact = onnx.load(str(full))
    weights = {t.name: t for t in exact.graph.initializer}
    convolutions = {n.name: n for n in exact.graph.node if n.op_type == "Conv"}
    model = onnx.load(str(small))
    made = {name: node for node in model.graph.node for name in node.output}
    pairs: list[tuple[str, str, str]] = []
    for node in list(model.graph.node):
        given = made.get(node.input[0]) if node.op_type == "Conv" else None
        plain = convolutions.get(node.name)
        if given is None or given.op_type != "DequantizeLinear" or plain is None:
            continue
        rounded = made.get(given.input[0])
        if rounded is None or any(name not in weights for name in plain.input[1:]):
            continue
        twin = onnx.NodeProto()
        twin.CopyFrom(plain)
        k = len(pairs)
        twin.name = f"exact/{k}"
        twin.output[0] = f"exact/{k}"
        twin.input[0] = rounded.input[0]
        for j, name in enumerate(plain.input[1:], 1):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(weights[name])
            tensor.name = twin.input[j] = f"exact/{k}/{j}"
            model.graph.initializer.append(tensor)
        model.graph.node.append(twin)
        pairs.append((node.name, node.output[0], twin.output[0]))
    if not pairs or not blobs:
        return []
    for _, *names in pairs:
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = [name for _, *names in pairs for name in names]
    share = shares(session.run(wanted, {session.get_inputs()[0].name: x}) for x in blobs)
    return [{"layer": pairs[k][0], "error": round(float(share[k]), 5)} for k in np.argsort(-share)]


def shares(runs: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    """Return the root mean square of each int8 output's difference, relative to that of the fp32 output.

    Args:
        runs: Of each input the outputs: int8, fp32, int8, fp32, and so on.
    """
    error, scale = [], []
    for values in runs:
        pairs = list(zip(values[::2], values[1::2]))
        error.append([float(np.square(got - want, dtype=np.float64).mean()) for got, want in pairs])
        scale.append([float(np.square(want, dtype=np.float64).mean()) for _, want in pairs])
    found: np.ndarray = np.sqrt(np.sum(error, 0) / np.maximum(np.sum(scale, 0), 1e-30))
    return found
