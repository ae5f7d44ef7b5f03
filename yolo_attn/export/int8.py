"""Int8 by onnxruntime's static quantization, calibrated on images and compared with the fp32 file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError, first_line
from ..files import publish, scratch
from ..runtime.image import blob, letterbox
from ..runtime.session import Detector
from .graph import set_metadata
from .proof import compare_detections

__all__ = ["quantize"]


def quantize(
    source: Path, target: Path, images: Sequence[np.ndarray], size: tuple[int, int], *, checked: int = 16
) -> dict[str, Any]:
    """Write an int8 version of a verified fp32 detector and compare their detections.

    Only convolutions are quantized, with one scale per output channel. A common scale of a head's boxes (0 to 640) and
    scores (0 to 1) would round every score to zero, and the few values of an attention gate affect whole maps.

    Args:
        source: The fp32 file.
        target: The int8 file.
        images: BGR images for calibration: dozens or more, similar to those of later use.
        size: Height and width of the network's input, in pixels.
        checked: Number of images on which detections are compared.

    Returns:
        ``found`` by fp32, the number of these that int8 finds too (``same_iou_0.9``, ``same_iou_0.5``), ``extra``
        detections of int8, ``calibrated_on`` images, and ``bytes``.

    Raises:
        ExportError: onnxruntime cannot quantize the file.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    blobs = (blob([letterbox(im, size)[0]]) for im in images)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            x = next(blobs, None)
            return None if x is None else {"images": x}

    full = Detector(source)
    try:
        with scratch(target.parent) as folder:
            ready, draft = folder / "ready.onnx", folder / target.name
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            others = [n.name for n in onnx.load(str(ready)).graph.node if n.op_type != "Conv"]
            quantize_static(
                str(ready),
                str(draft),
                Reader(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=others,
            )
            model = onnx.load(str(draft))
            set_metadata(model, {"precision": "int8"}, replace=True)
            onnx.save(model, str(draft))
            publish(draft, target)
        small = Detector(target)
    except Exception as exc:
        raise ExportError(
            f"{target}: onnxruntime cannot quantize: {type(exc).__name__}: {first_line(exc)[:300]}"
        ) from exc
    totals = {"found": 0, "same_iou_0.9": 0, "same_iou_0.5": 0, "extra": 0}
    for im in images[:checked]:
        x = blob([letterbox(im, size)[0]])
        a, b = full(x)[0], small(x)[0]
        for least, key in ((0.9, "same_iou_0.9"), (0.5, "same_iou_0.5")):
            got = compare_detections(a, b, full.layout or "", tolerance=1e-4, least_iou=least, untrained=False)
            totals[key] += got["compared"] - got["missing"]
        totals["found"] += got["compared"]
        totals["extra"] += got["extra"]
    return {**totals, "calibrated_on": len(images), "bytes": target.stat().st_size}
