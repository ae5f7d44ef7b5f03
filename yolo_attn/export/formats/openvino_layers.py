"""What each int8 convolution of an OpenVINO network loses: its output beside that of the fp32 one on the same input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..int8_layers import shares

__all__ = ["LOSS", "counted", "losses"]

LOSS = "the int8 convolution beside the fp32 one on the same input, relative to its output"
KINDS = ("Convolution", "GroupConvolution")


def losses(full: Any, small: Any, blobs: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Return the convolutions of an int8 network that add most to the error, worst first.

    As :func:`yolo_attn.export.int8_layers.losses` for ONNX: beside each int8 convolution, the fp32 one is run on the
    input that it has there, before that input is rounded, so that what earlier layers lost is no part of the figure.

    Args:
        full: The fp32 ``openvino.Model``.
        small: What nncf made of it.
        blobs: Inputs, (1, 3, H, W) each.

    Returns:
        ``layer``, the convolution's name, its ``type``, and ``error``, the root mean square of the difference relative to that of the
        output.
    """
    import openvino as ov
    from openvino import opset8

    twins = dict(zip(KINDS, (opset8.convolution, opset8.group_convolution)))
    weights = {op.get_friendly_name(): op.input_value(1) for op in full.get_ordered_ops() if op.get_type_name() in twins}
    small = small.clone()
    pairs: list[tuple[tuple[str, str], Any, Any]] = []
    for op in small.get_ordered_ops():
        name, kind = op.get_friendly_name(), op.get_type_name()
        if kind not in twins or name not in weights:
            continue
        rounded = op.input_value(0).get_node()
        constant = _constant(weights[name].get_node())
        if rounded.get_type_name() != "FakeQuantize" or constant is None:
            continue
        how = op.get_attributes()
        sides = {k: how[k] for k in ("strides", "pads_begin", "pads_end", "dilations")}
        auto = str(how.get("auto_pad", "explicit"))
        twin = twins[kind](rounded.input_value(0), opset8.constant(constant), **sides, auto_pad=auto)
        pairs.append(((_path(name), kind), op.output(0), twin.output(0)))
    if not pairs or not blobs:
        return []
    network = ov.Model([out for _, *both in pairs for out in both], small.get_parameters(), "losses")
    run = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    share = shares(list(run(x).values()) for x in blobs)
    return [{**dict(zip(("layer", "type"), pairs[k][0])), "error": round(float(share[k]), 5)} for k in np.argsort(-share)]


def counted(full: Any, small: Any) -> dict[str, int]:
    """Return how many convolutions are in int8, ``quantized``, and how many stayed in ``fp32``."""
    total = sum(op.get_type_name() in KINDS for op in full.get_ordered_ops())
    n = sum(
        op.get_type_name() in KINDS and op.input_value(0).get_node().get_type_name() == "FakeQuantize"
        for op in small.get_ordered_ops()
    )
    return {"quantized": n, "fp32": total - n}


def _constant(node: Any) -> np.ndarray | None:
    """Return weights in fp32, whatever they are stored in; None where they are computed."""
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.array(node.data, np.float32) if node.get_type_name() == "Constant" else None


def _path(name: str) -> str:
    """Return a layer's path in the network: ``model.0.conv`` for ``__module.model.0.conv/aten::_convolution/Convolution``."""
    return name.partition("/")[0][len("__module.") :] if name.startswith("__module.") else name
