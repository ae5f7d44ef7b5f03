"""Export detectors of classic YOLOv5 in the same form as those of ultralytics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..detectors.classic import quiet
from ..detectors.source import Source
from ..runtime.boxes import CONF, FAR, IOU, MAX_DET
from .one_module import tracing

__all__ = ["prepared", "write_onnx"]

OPSET = 17


def write_onnx(
    source: Source, draft: Path, size: tuple[int, int], dynamic: bool, opset: int | None, nms: bool, simplify: bool
) -> None:
    """Write a classic detector as ONNX into `draft`; output (B, N, 5 + classes), or (1, 300, 6) with NMS.

    For segmentation the columns end in the coefficients of masks, and a second output has the prototypes.
    """
    import onnx
    import torch

    wrapped, x = prepared(source, size, dynamic, nms)
    axes, names = None, ["output0", "output1"][: 2 if source.task == "segment" else 1]
    if dynamic:
        axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch"}}
        if not nms:
            axes["output0"][1] = "anchors"
        if len(names) > 1:
            axes["output1"] = {0: "batch", 2: "mask_height", 3: "mask_width"}
    with torch.no_grad():
        torch.onnx.export(
            wrapped,
            (x,),
            str(draft),
            opset_version=opset or OPSET,
            input_names=["images"],
            output_names=names,
            dynamic_axes=axes,
            **tracing(),
        )
    if simplify:
        import onnxslim

        onnx.save(onnxslim.slim(onnx.load(str(draft))), str(draft))


def prepared(source: Source, size: tuple[int, int], dynamic: bool, nms: bool = False) -> tuple[Any, Any]:
    """Return a fused copy of a classic network, ready to be traced, and an input for it.

    It has one output; of segmentation two, boxes with coefficients of masks and their prototypes.
    """
    from copy import deepcopy

    import torch

    model = deepcopy(source.model).eval()
    with quiet():
        model = model.fuse()
    head = model.model[-1]
    head.inplace = False  # slice assignments would be exported as scatter nodes
    for flag in ("dynamic", "onnx_dynamic"):  # renamed in v6.2
        if hasattr(head, flag):
            setattr(head, flag, dynamic)
    wrapped, x = _first_output(model, nms, source.task == "segment").eval(), torch.zeros(1, 3, *size)
    with torch.no_grad():
        wrapped(x)  # makes the head create its grid outside the trace
    return wrapped, x


def _first_output(model: Any, nms: bool, segment: bool = False) -> Any:
    """Wrap a network so that it returns what a file should have; heads before v6.2 return the raw maps too."""
    import torch
    from torch.nn import functional
    from torchvision.ops import nms as suppress

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Any) -> Any:
            return tuple(self.inner(x)[:2]) if segment else self.inner(x)[0]

    class Suppressed(First):
        """One image's detections, (1, MAX_DET, 6) x1 y1 x2 y2 confidence class, best first, padded with zeros."""

        def forward(self, x: Any) -> Any:
            p = super().forward(x)[0]
            score, number = (p[:, 5:] * p[:, 4:5]).max(1)
            p, score, number = (t[score > CONF] for t in (p, score, number.to(p.dtype)))
            box = torch.cat((p[:, :2] - p[:, 2:4] / 2, p[:, :2] + p[:, 2:4] / 2), 1)
            keep = suppress(box + number[:, None] * FAR, score, IOU)[:MAX_DET]
            found = torch.cat((box[keep], score[keep, None], number[keep, None]), 1)
            return functional.pad(found, (0, 0, 0, MAX_DET - found.shape[0]))[None]

    return Suppressed() if nms else First()
