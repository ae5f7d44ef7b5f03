"""Which layers lose most in MNN's int8, which is of weights alone: each in turn has them, and all others are exact.

MNN runs a part of a file between any tensors that are named. So a layer is run from the int8 file, on what the exact
file gives to it, and what it makes goes through the rest of the exact file: its own weights, as MNN itself reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ExportError
from .alone import Boxes, write_losses
from .base import Job

__all__ = ["SMALL", "losses", "module_of"]

SMALL = "small.mnn"  # the int8 file, in the folder that it was converted in
KINDS = ("Convolution", "ConvolutionDepthwise", "Deconvolution", "DeconvolutionDepthwise", "InnerProduct")


def losses(job: Job, work: Path) -> Path:
    """Write ``losses.json``: of each layer with weights in int8 what these alone lose, the greatest first.

    ``error`` is the mean of 1 - IoU over the detections of the exact file, with the box of their class that comes
    nearest; 1 where there is none.

    Args:
        job: The conversion; `pictures` and `proved` are set.
        work: The folder that holds :data:`SMALL`.

    Raises:
        ExportError: The two files do not consist of the same layers.
    """
    import MNN
    from MNN import expr, nn

    assert job.proved is not None
    config: dict[str, Any] = {"precision": "high", "backend": "CPU", "numThread": 1}
    manager = nn.create_runtime_manager((config,))

    def part(file: Path, given: list[str], made: list[str]) -> Any:
        return nn.load_module_from_file(str(file), given, made, runtime_manager=manager)

    def computed(net: Any, *values: np.ndarray) -> list[np.ndarray]:
        arrays = [np.ascontiguousarray(v, np.float32) for v in values]
        given = [expr.const(v.ctypes.data, list(v.shape), expr.NCHW) for v in arrays]
        return [np.array(expr.convert(v, expr.NCHW).read()) for v in net.forward(given)]

    small = work / SMALL
    weighing = [v for v in expr.load_as_dict(str(small)).values() if v.op_type in KINDS and len(v.inputs) == 1]
    rows = [(v.name, v.inputs[0].name, v.op_type) for v in weighing]
    if {name for row in rows for name in row[:2]} - set(expr.load_as_dict(str(job.proved))):
        raise ExportError(f"MNN {MNN.version()} gave the layers of the int8 file other names than those of the fp32 file")
    about = part(job.proved, [], []).get_info()
    (image,), outputs = about["inputNames"], list(about["outputNames"])[:1]
    whole = part(job.proved, [image], outputs)
    boxes = Boxes(job, lambda x: computed(whole, x), job.source.layout or "")
    inner = sorted({taken for _, taken, _ in rows})
    before = part(job.proved, [image], inner)
    values = [dict(zip(inner, computed(before, x))) for x in boxes.inputs]
    numbers = {id(x): k for k, x in enumerate(boxes.inputs)}
    found = []
    for name, taken, kind in rows:
        one, rest = part(small, [taken], [name]), part(job.proved, [image, name], outputs)

        def alone(x: np.ndarray, one: Any = one, rest: Any = rest, taken: str = taken) -> list[np.ndarray]:
            return computed(rest, x, computed(one, values[numbers[id(x)]][taken])[0])

        layer, cls = module_of(job.source.model, name) or (name, kind)
        found.append({"layer": layer, "type": cls, "error": boxes.error(alone)})
    return write_losses(found)


def module_of(network: Any, tensor: str) -> tuple[str, str] | None:
    """Return the path and the class of the module that made a tensor of an ONNX file, None where there is none.

    The exporters name a tensor after the modules that were called, a list's entries by the list's name and a number,
    with or without the list before them: ``/inner/model.2/m/m.0/cv1/conv/Conv_output_0``.
    """
    parts = tensor.strip("/").split("/")[:-1]
    names = [p for p, after in zip(parts, [*parts[1:], ""]) if not after.startswith(f"{p}.")]
    for path in (".".join(names), ".".join(names[1:])):  # a classic detector is wrapped
        try:
            return (path, type(network.get_submodule(path)).__name__) if path else None
        except AttributeError:
            continue
    return None
