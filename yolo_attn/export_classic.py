"""Checkpoints of classic YOLOv5, a checkout's or the `yolov5` package's: opened by that host, exported the same way.

Such a checkpoint pickles the host's classes, so the host must be importable: its folder is named by `--host`, or is
the working folder, or the package is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import CheckpointError, YoloAttnError, first_line
from .loading import Source
from .runtime.boxes import CONF, FAR, IOU, MAX_DET

__all__ = ["is_classic", "open_classic", "use_host", "write_onnx"]

OPSET = 17


def is_classic(file: Path) -> str:
    """Return the package whose classes a checkpoint was pickled with, ``models`` or ``yolov5.models``; else nothing.

    Reads names out of the pickle without running it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            data = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    except (zipfile.BadZipFile, StopIteration, OSError):
        return ""
    return next((p for p in ("yolov5.models", "models") if f"c{p}.yolo\n".encode() in data), "")


def use_host(name: str) -> None:
    """Make a YOLOv5 checkout importable.

    Raises:
        HostError: No such folder, or no YOLOv5.
    """
    from .classic import find_host

    sys.path.insert(0, str(find_host(name)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the host prints, logs and warns of on its way from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def open_classic(file: Path) -> Source:
    """Open a classic checkpoint with its own host.

    Raises:
        CheckpointError: The host is not importable, or cannot load it.
    """
    package = is_classic(file) or "models"
    here = os.getcwd()
    if package == "models" and here not in sys.path and Path("models/yolo.py").is_file():
        sys.path.insert(0, here)
    try:
        with _quiet():
            importlib.import_module(f"{package}.yolo")
        loader = importlib.import_module(f"{package}.experimental").attempt_load
    except ImportError as exc:
        hint = "pip install yolov5" if package != "models" else "name its checkout with --host DIR"
        raise CheckpointError(
            f"{file}: is a checkpoint of classic YOLOv5, whose code is needed to open it: {hint}. ({exc})"
        ) from exc
    try:
        with _quiet():
            model = loader(str(file), fuse=False)
    except YoloAttnError:
        raise
    except Exception as exc:
        raise CheckpointError(f"{file}: YOLOv5 cannot load it: {type(exc).__name__}: {first_line(exc)[:300]}") from exc
    if not hasattr(model, "stride") or not hasattr(model.model[-1], "anchors"):
        raise CheckpointError(f"{file}: is a YOLOv5 checkpoint, but no detector's")
    return Source(file, "yolov5", model.float().eval())


def write_onnx(
    source: Source, draft: Path, size: tuple[int, int], dynamic: bool, opset: int | None, nms: bool, simplify: bool
) -> None:
    """Export a classic detector, output (B, N, 5 + classes), or (1, 300, 6) with NMS."""
    from copy import deepcopy

    import onnx
    import torch

    model = deepcopy(source.model).eval()
    with _quiet():
        model = model.fuse()
    head = model.model[-1]
    head.inplace = False  # slice assignments leave as scatter nodes
    for flag in ("dynamic", "onnx_dynamic"):  # the name changed in v6.2
        if hasattr(head, flag):
            setattr(head, flag, dynamic)
    # the TorchScript exporter, as the ultralytics host uses; the argument is younger than the oldest torch
    legacy: dict[str, Any] = {"dynamo": False} if "dynamo" in torch.onnx.export.__code__.co_varnames else {}
    x = torch.zeros(1, 3, *size)
    wrapped = _first_output(model, nms)
    axes = None
    if dynamic:
        axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch"}}
        if not nms:
            axes["output0"][1] = "anchors"
    with torch.no_grad():
        wrapped(x)  # lets the head make its grid outside the trace
        torch.onnx.export(
            wrapped,
            (x,),
            str(draft),
            opset_version=opset or OPSET,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes=axes,
            **legacy,
        )
    if simplify:
        import onnxslim

        onnx.save(onnxslim.slim(onnx.load(str(draft))), str(draft))


def _first_output(model: Any, nms: bool) -> Any:
    """Wrap a network so that it returns its first output alone; heads before v6.2 return the raw maps too."""
    import torch
    from torch.nn import functional
    from torchvision.ops import nms as suppress

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Any) -> Any:
            return self.inner(x)[0]

    class Suppressed(First):
        """One picture's detections, (1, MAX_DET, 6) x1 y1 x2 y2 confidence class, best first, filled up with zeros."""

        def forward(self, x: Any) -> Any:
            p = super().forward(x)[0]
            score, number = (p[:, 5:] * p[:, 4:5]).max(1)
            p, score, number = (t[score > CONF] for t in (p, score, number.to(p.dtype)))
            box = torch.cat((p[:, :2] - p[:, 2:4] / 2, p[:, :2] + p[:, 2:4] / 2), 1)
            keep = suppress(box + number[:, None] * FAR, score, IOU)[:MAX_DET]
            found = torch.cat((box[keep], score[keep, None], number[keep, None]), 1)
            return functional.pad(found, (0, 0, 0, MAX_DET - found.shape[0]))[None]

    return Suppressed() if nms else First()
