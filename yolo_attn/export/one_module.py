"""The ONNX graph that one registered module leaves, alone: what the catalogue counts and the tests look at."""

from __future__ import annotations

import io
import warnings
from typing import Any

from ..registry.registry import get_entry

__all__ = ["export_module", "make_module"]


def make_module(name: str, channels: int) -> tuple[Any, int]:
    """Build a registered module for `channels` in and out.

    Returns:
        The module in evaluation mode, and how many inputs it takes.
    """
    entry = get_entry(name)
    inputs = 2 if entry.kind == "fusion" else 1
    sides: Any = [channels] * 2 if inputs == 2 else channels
    call = entry.binding.bind([channels] if entry.binding.is_block else [], sides, 1, lambda c: c)
    return entry.cls(*call.args, **call.kwargs).eval(), inputs


def export_module(module: Any, x: list[Any], *, dynamic: bool) -> Any:
    """Export as the ultralytics host does, and slim the graph.

    Args:
        module: The module, in evaluation mode.
        x: Its inputs, each (B, C, H, W).
        dynamic: Whether batch, height and width vary.

    Returns:
        The ``onnx.ModelProto``; inputs are called ``x0``, ``x1``, the output ``y``.
    """
    import onnx
    import onnxslim
    import torch

    names = [f"x{i}" for i in range(len(x))]
    axes = {n: {0: "batch", 2: "height", 3: "width"} for n in [*names, "y"]} if dynamic else None
    buffer: Any = io.BytesIO()  # newer stubs name only paths
    options: dict[str, Any] = {"opset_version": 18, "input_names": names, "output_names": ["y"], "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on its own future
        torch.onnx.export(module, (x,) if len(x) > 1 else (x[0],), buffer, dynamo=False, **options)
    return onnxslim.slim(onnx.load_from_string(buffer.getvalue()))
