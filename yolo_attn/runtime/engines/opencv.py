"""OpenCV's dnn module: an ``.onnx`` file on the CPU. :mod:`..opencv` lists what it cannot run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError, YoloAttnError, first_line
from .network import Network, Options, in_pixels, refused

__all__ = ["describe", "open_network"]


def open_network(path: Path, options: Options) -> Network:
    """Open a file.

    Raises:
        FileError: OpenCV cannot open it.
    """
    import cv2

    meta, shape, outputs = describe(path)
    if options.threads > 0:
        cv2.setNumThreads(options.threads)
    if re.search(r"'nms': True", meta.get("args", "")):
        # OpenCV 5.0 divides by zero in native code on such a file, which would crash this process
        raise FileError(
            f"{path}: contains NMS, which OpenCV cannot run. Export without --nms; detect applies NMS itself."
        )
    try:
        # from bytes, since OpenCV opens only ASCII paths on Windows
        net = cv2.dnn.readNetFromONNX(np.fromfile(path, dtype=np.uint8))
    except Exception as exc:
        raise refused(path, f"OpenCV {cv2.__version__}", "load it", exc) from exc

    def run(x: np.ndarray) -> list[np.ndarray]:
        net.setInput(x)
        try:
            found = [np.asarray(net.forward())]
        except cv2.error as exc:
            raise refused(path, f"OpenCV {cv2.__version__}", "run it", exc) from exc
        return in_pixels(found, x, meta)

    return Network(run, meta, shape, outputs, "OpenCV", cv2.__version__)


def describe(path: str | os.PathLike[str]) -> tuple[dict[str, str], list[Any], list[list[Any]]]:
    """Return an ONNX file's metadata, the shape of its input and the shapes of its outputs; dynamic sizes are names.

    Raises:
        FileError: The file is not ONNX, or is damaged.
    """
    try:
        import onnx
    except ImportError as exc:
        raise YoloAttnError(
            "the package onnx is not installed; --runtime opencv reads a file's metadata with it"
        ) from exc
    try:
        model = onnx.load(str(path), load_external_data=False)
        inputs = [i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    except Exception as exc:
        told = (first_line(exc) or type(exc).__name__)[:300]
        raise FileError(f"{path}: is not an ONNX file, or it is damaged: {told}") from exc
    if not inputs:
        raise FileError(f"{path}: is not a detector: it has no input.")

    def shape(value: Any) -> list[Any]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    meta = {p.key: p.value for p in model.metadata_props}
    return meta, shape(inputs[0]), [shape(o) for o in model.graph.output]
