"""MNN's ``model.mnn``, converted from ONNX; its int8 is of the weights alone.

Two things are traced in another form, for the same numbers, since MNN 3.6 computes the usual one less exactly than fp32
allows: GELU, for which its converter has an operator of its own, wrong by 4e-5 of the output; and convolutions with square
kernels of 7 and more, which its Winograd algorithm gets wrong by 4e-4 to 8e-4. Weights for fp16 are rounded before it has
them: it cuts the digits off, which is twice as far from fp32 as the nearest number may be, and all to one side.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ExportError
from .base import Format, Job, Need
from .host import STEM, by_ultralytics
from .mnn_layers import SMALL, losses

__all__ = ["FORMAT"]

WINOGRAD = 7  # kernels from this size on are kept from it


def convert(job: Job) -> Path:
    """Write ``model.mnn``."""
    path = _converted(job)
    if job.pictures is not None:
        shutil.copyfile(path, SMALL)  # which layers lose most is measured with it, where it lies now
    return path


def _converted(job: Job) -> Path:
    keep_quiet()
    if job.source.host == "ultralytics":
        with exact_forms(), nearest_halves():
            return by_ultralytics(job, "mnn")
    from MNN.tools import mnnconvert

    from ..classic import write_onnx

    graph, path = Path(f"{STEM}.onnx"), Path(f"{STEM}.mnn")
    with exact_forms():
        write_onnx(job.source, graph, job.size, job.dynamic, job.opset, False, True)
    told = ["", "-f", "ONNX", "--modelFile", str(graph), "--MNNModel", str(path), "--bizCode", json.dumps(job.metadata)]
    told += ["--fp16"] if job.half else ["--weightQuantBits", "8"] if job.pictures is not None else []
    with nearest_halves():
        mnnconvert.convert(told)
    if not path.is_file():
        raise ExportError("MNN's converter reported success and wrote nothing")
    return path


@contextlib.contextmanager
def exact_forms() -> Iterator[None]:
    """Have PyTorch's GELU and its convolutions with large kernels trace in forms that MNN computes exactly."""
    import torch
    from torch.nn import functional

    gelu, conv2d = functional.gelu, functional.conv2d

    def exact_gelu(x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
        return gelu(x, approximate=approximate) if approximate != "none" else 0.5 * (x + x * (x * 0.5**0.5).erf())

    def exact_conv2d(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> torch.Tensor:  # fmt: skip
        (high, broad), pad = weight.shape[2:], (padding, padding) if isinstance(padding, int) else padding
        plain = all(v in (1, (1, 1)) for v in (stride, dilation)) and groups == 1 and not isinstance(pad, str)
        if plain and high == broad >= WINOGRAD:  # with a column of zeros the kernel is no square
            x = functional.pad(x, (pad[1], pad[1] + 1, 0, 0))
            weight, padding = torch.cat((weight, torch.zeros_like(weight[..., :1])), 3), (pad[0], 0)
        return conv2d(x, weight, bias, stride, padding, dilation, groups)

    functional.gelu, functional.conv2d = exact_gelu, exact_conv2d  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.gelu, functional.conv2d = gelu, conv2d


@contextlib.contextmanager
def nearest_halves() -> Iterator[None]:
    """Have MNN's converter round weights to the nearest fp16 where it is asked for fp16."""
    import onnx
    from MNN.tools import mnnconvert

    own = mnnconvert.convert

    def convert_rounded(told: list[str]) -> Any:
        if "--fp16" in told:
            path = told[told.index("--modelFile") + 1]
            model = onnx.load(path)
            if round_weights(model):
                onnx.save(model, path)
        return own(told)

    mnnconvert.convert = convert_rounded
    try:
        yield
    finally:
        mnnconvert.convert = own


def round_weights(model: Any) -> int:
    """Round the weights of convolutions and products to the nearest fp16, in place and still as fp32; return how many.

    Biases are left: MNN keeps those of convolutions in fp32.
    """
    import numpy as np
    from onnx import numpy_helper

    of = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
    names = {n.input[k] for n in model.graph.node for k in of.get(n.op_type, ())}
    done = 0
    for tensor in model.graph.initializer:
        if tensor.name in names and tensor.data_type == tensor.FLOAT:
            value = numpy_helper.to_array(tensor)
            most = float(np.finfo(np.float16).max)
            rounded = value.clip(-most, most).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
            done += 1
    return done


def keep_quiet() -> None:
    """Keep MNN's converter from what its Python wrapper does when it is imported: run pip, and call the maker's server.

    It does without the module for that where this cannot be imported.
    """
    sys.modules.setdefault("MNN.tools.utils.log", types.ModuleType("MNN.tools.utils.log"))


FORMAT = Format(
    "mnn", "MNN", ".mnn", "mnn", (Need("MNN", "MNN", "2.9.6"),), convert, "mnn", half=True, int8=True, dynamic=True,
    onnx=True, weights_only=True, losses=losses,
)
