"""The ONNX graph of a single registered module, for the catalogue and the tests."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator
from typing import Any, Callable

from ..registry.registry import get_entry

__all__ = ["export_module", "make_module", "plain_attention", "tracing"]

OPSET = 18  # or the highest that an older torch or onnx has


def make_module(name: str, channels: int) -> tuple[Any, int]:
    """Build a registered module with `channels` input and output channels.

    Returns:
        The module in eval mode, and its number of inputs.
    """
    entry = get_entry(name)
    inputs = 2 if entry.kind == "fusion" else 1
    sides: Any = [channels] * 2 if inputs == 2 else channels
    call = entry.binding.bind([channels] if entry.binding.is_block else [], sides, 1, lambda c: c)
    return entry.cls(*call.args, **call.kwargs).eval(), inputs


def export_module(module: Any, x: list[Any], *, dynamic: bool, warned: Callable[..., None] | None = None) -> Any:
    """Export a module as ultralytics does, and simplify the graph.

    Args:
        module: The module, in eval mode.
        x: Its inputs, each (B, C, H, W).
        dynamic: Whether batch, height and width are dynamic.
        warned: Called with each warning of the tracer, as :func:`warnings.showwarning` is; they are dropped by default.

    Returns:
        The ``onnx.ModelProto``; its inputs are named ``x0``, ``x1``, its output ``y``.
    """
    import onnx
    import onnxslim
    import torch

    names = [f"x{i}" for i in range(len(x))]
    axes = {n: {0: "batch", 2: "height", 3: "width"} for n in [*names, "y"]} if dynamic else None
    buffer: Any = io.BytesIO()  # newer type stubs accept paths only
    opset = min(OPSET, onnx.defs.onnx_opset_version(), getattr(torch.onnx._constants, "ONNX_MAX_OPSET", OPSET))
    options: dict[str, Any] = {"opset_version": opset, "input_names": names, "output_names": ["y"], "dynamic_axes": axes}
    with warnings.catch_warnings(), plain_attention():
        warnings.simplefilter("ignore" if warned is None else "always")  # deprecation warnings of the tracer
        if warned is not None:
            warnings.showwarning = warned
        torch.onnx.export(module, (x,) if len(x) > 1 else (x[0],), buffer, **options, **tracing())
    return onnxslim.slim(onnx.load_from_string(buffer.getvalue()))


def tracing() -> dict[str, Any]:
    """Return what selects torch's exporter by tracing, as ultralytics does: nothing where torch has no other."""
    import torch

    return {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Have ``nn.MultiheadAttention`` trace as its formula: its fused kernel in eval mode has no ONNX operator."""
    import torch

    mha = getattr(torch.backends, "mha", None)  # since torch 2.1
    if mha is None:
        yield
        return
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)
