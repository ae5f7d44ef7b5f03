"""Int8 by onnxruntime's static quantization, calibrated on images and compared with the fp32 file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..detectors.source import Source
from ..errors import DataError, ExportError, YoloAttnError, first_line
from ..evaluation.runs import Run, maps
from ..files import publish
from ..runtime.image import blob, letterbox
from ..runtime.session import Detector
from ..weights.attention import attention_in
from . import report
from .graph import decode_nodes, last_convolutions, set_metadata, within
from .int8_layers import losses
from .proof import compare_detections
from .spread import sides_of
from .target import no_room, scratch_beside

__all__ = ["LOST", "add_int8", "agreement", "few_images", "images_of", "labelled_images", "quantize", "told", "where"]

LOST = 0.01  # a loss of mAP50-95 above which the layers that lose most are named
CALIBRATION = "images"  # the split that consists of images that int8 is calibrated on
# Fewer images are warned of. YOLOv5n with SE on BCCD: of the images that were left out, 99 % leave the range of some layer
# by a tenth of it where 1 was calibrated on, 54 % with 8, 19 % with 32, 9 % with 64.
FEW = 32
MEASURED = 300  # most labelled images that mAP is measured on


def quantize(
    source: Path,
    target: Path,
    images: Sequence[np.ndarray],
    size: tuple[int, int],
    *,
    attention: Sequence[str] = (),
    head: bool = False,
    symmetric: bool = False,
    labelled: Any = None,
    checked: int = 16,
) -> dict[str, Any]:
    """Write an int8 version of a verified fp32 detector and compare their detections.

    Only convolutions are quantized, weights with one scale per output channel. What decodes the boxes stays in fp32, the
    distribution focal loss's convolution of one output channel with it: its weights are the bins 0, 1, 2 ..., which 8
    bits would move; and a common scale of a head's boxes (0 to 640) and scores (0 to 1) would round every score to zero.

    A map's range is the one that loses least to rounding and cutting off; from its least to its greatest value, one outlier
    coarsens all (YOLOv5n (v7.0) with SE: mAP50-95 of fp32 0.290, of int8 0.270, with ranges chosen so 0.284).

    Activations are signed. The products of unsigned activations and signed weights saturate in the kernels that
    onnxruntime has for processors without VNNI (AVX2), and the same file then finds other boxes on another processor.

    Args:
        source: The fp32 file.
        target: The int8 file.
        images: BGR images for calibration: dozens or more, similar to those of later use.
        size: Height and width of the network's input, in pixels.
        attention: Names of layers, as in the state dict, whose convolutions stay in fp32.
        head: Keep the head's last convolutions in fp32 too.
        symmetric: Give activations a zero point of 0, as TensorRT wants.
        labelled: Images with labels, a :class:`yolo_attn.evaluation.figures.Split`, on which the mAP of both is measured.
        checked: Number of images on which detections are compared.

    Returns:
        ``found`` by fp32, the number of these that int8 finds too (``same_iou_0.9``, ``same_iou_0.5``), ``extra``
        detections of int8, ``calibrated_on`` images, ``bytes``, ``quantized`` and ``fp32`` convolutions by number,
        ``layers``: those that lose most, with what each adds relative to its output, and ``map``, where there are labels:
        mAP50 and mAP50-95 of both and the number of images.

    Raises:
        ExportError: onnxruntime cannot quantize the file.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    blobs = (blob([letterbox(im, size)[0]]) for im in images[:1])  # it finds ranges too, and ours take their place

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            x = next(blobs, None)
            return None if x is None else {"images": x}

    full = Detector(source)
    with scratch_beside(target) as folder:
        try:
            ready, draft = folder / "ready.onnx", folder / target.name
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            graph = onnx.load(str(ready))
            convolutions = [n.name for n in graph.graph.node if n.op_type == "Conv"]
            spared = {*decode_nodes(graph), *(last_convolutions(graph) if head else ())}
            kept = [n for n in convolutions if n in spared or within(n, attention)]
            others = [n.name for n in graph.graph.node if n.op_type != "Conv"]
            sides = sides_of(ready, _rounded(graph, kept), (blob([letterbox(im, size)[0]]) for im in images))
            limits = {name: side.limits() for name, side in sides.items()}
            limits["images"] = 0.0, 1.0  # of the colours
            ranges = {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in limits.items()}
            quantize_static(
                str(ready),
                str(draft),
                Reader(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=[*others, *kept],
                extra_options={"ActivationSymmetric": symmetric, "TensorQuantOverrides": ranges},
            )
            lost = losses(ready, draft, [blob([letterbox(im, size)[0]]) for im in images[:4]])
            model = onnx.load(str(draft))
            set_metadata(model, {"precision": "int8"}, replace=True)
            onnx.save(model, str(draft))
            small = Detector(draft)
            out: dict[str, Any] = {
                **agreement(full, small, images[:checked], size),
                "calibrated_on": len(images),
                "bytes": draft.stat().st_size,
                "quantized": len(convolutions) - len(kept),
                "fp32": len(kept),
                "symmetric": symmetric,
                "layers": lost[:5],
            }
            if labelled is not None:
                out["map"] = {**maps({"fp32": full, "int8": small}, labelled, size), **images_of(labelled)}
            # measured before it has its name: one that is stopped leaves no file of which nothing is known
            report.path_of(target).unlink(missing_ok=True)  # of the file that is being replaced
            publish(draft, target)
        except YoloAttnError:
            raise
        except Exception as exc:
            told = f"{type(exc).__name__}: {first_line(exc)[:300]}"
            raise ExportError(f"{target}: onnxruntime cannot quantize: {told}{no_room(folder)}") from exc
    return out


def _rounded(model: Any, kept: Sequence[str]) -> list[str]:
    """Return the maps that the convolutions take and make, but for these convolutions and for the network's input."""
    known = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
    nodes = [n for n in model.graph.node if n.op_type == "Conv" and n.name not in kept]
    return sorted({name for n in nodes for name in (n.input[0], *n.output)} - known)


def agreement(full: Run, small: Run, images: Sequence[np.ndarray], size: tuple[int, int]) -> dict[str, int]:
    """Count the detections of `full` that `small` makes too, and its others."""
    totals = {"found": 0, "same_iou_0.9": 0, "same_iou_0.5": 0, "extra": 0}
    for im in images:
        x = blob([letterbox(im, size)[0]])
        a, b = full(x)[0], small(x)[0]
        for least, key in ((0.9, "same_iou_0.9"), (0.5, "same_iou_0.5")):
            got = compare_detections(a, b, full.layout or "", tolerance=1e-4, least_iou=least, untrained=False)
            totals[key] += got["compared"] - got["missing"]
        totals["found"] += got["compared"]
        totals["extra"] += got["extra"]
    return totals


def add_int8(
    source: Source,
    path: Path,
    found: dict[str, Any],
    images: Sequence[np.ndarray],
    labelled: Any,
    symmetric: bool,
    log: Callable[[str], Any],
) -> None:
    """Write `best_int8.onnx` beside a verified file, tell how near it comes, and add that to the file's report.

    Attention stays in fp32. Its layers are few and small, so that int8 makes them slower where it shows at all, and a gate
    that is off by one step scales a whole map. So do the head's last convolutions of classic YOLOv5: one map holds boxes,
    objectness and scores, before whose sigmoids 8 bits are coarse (mAP50-95 of fp32 0.290, of int8 0.281, with them in int8 0.274).

    Args:
        source: The detector.
        path: The fp32 file.
        found: Its report, which is written again.
        images: BGR images for calibration.
        labelled: Images with labels, as for :func:`quantize`.
        symmetric: As for :func:`quantize`.
        log: Called with each line of progress.
    """
    target = path.with_name(f"{path.stem}_int8.onnx")
    h, w = found["imgsz"]
    near = quantize(
        path,
        target,
        images,
        (h, w),
        attention=list(attention_in(source.model)),
        head=source.host == "yolov5",
        symmetric=symmetric,
        labelled=labelled,
    )
    found["int8"] = {"path": str(target), **near}
    report.write(path, found)
    first, *rest = told(near)
    log(f"int8: {target} ({near['bytes'] / 1e6:.1f} MB, {first})")
    for line in rest:
        log(f"int8: {line}")


def few_images(count: int) -> str | None:
    """Return what to tell of a calibration on so few images, None where they are enough.

    Args:
        count: Number of images.
    """
    if count >= FEW:
        return None
    these = "1 image: its values are" if count == 1 else f"{count} images: their values are"
    return (
        f"calibrated on only {these} all that int8 can tell apart, larger ones in other images are cut off, and what is counted "
        f"on {'it' if count == 1 else 'them'} tells little of others. Use 100 images or more, as different as those of later use"
    )


def labelled_images(asked: Any, source: Source) -> Any:
    """Return the labelled images among those that a user named as a folder or files, None where none can be used or has an object of its classes."""
    from ..evaluation.dataset import image_files, label_file
    from ..evaluation.figures import Split

    places = [asked] if isinstance(asked, (str, Path)) else list(asked)
    files = [f for p in places if isinstance(p, (str, Path)) for f in image_files(Path(p))]
    files = [f for f in files if label_file(f).is_file()][:MEASURED]
    names = list(source.names.values()) if isinstance(source.names, dict) else list(source.names)
    split = Split(CALIBRATION, files, [str(n) for n in names])
    try:  # labels of other classes, or of no object, measure nothing
        return split if files and any(0 <= c < len(names) for c in split.classes()) and next(split.images()) else None
    except DataError:  # each is left out, as one that is tiny; the calibration takes it all the same
        return None


def images_of(labelled: Any) -> dict[str, Any]:
    """Return what a report says of the images that mAP was measured on."""
    return {"images": len(labelled.files) - len(labelled.left_out), "split": labelled.name}


def where(measured: dict[str, Any]) -> str:
    """Return which images mAP was measured on, in words."""
    what = "labelled images among them" if measured["split"] == CALIBRATION else f"images of '{measured['split']}'"
    return f"on the {measured['images']} {what}"


def told(near: dict[str, Any]) -> list[str]:
    """Return what to tell of the result of :func:`quantize`, in lines."""
    lines = [
        f"calibrated on {near['calibrated_on']} images, {near['quantized']} convolutions in int8, {near['fp32']} in fp32. "
        f"Of {near['found']} detections of the fp32 file it finds {near['same_iou_0.9']} with IoU >= 0.9 and "
        f"{near['same_iou_0.5']} with IoU >= 0.5, and {near['extra']} others"
    ]
    measured = near.get("map")
    if measured is None:
        lines.append("no labels of its classes beside these images: measure its mAP before using it")
        names_most = near["same_iou_0.9"] < 0.9 * near["found"]
    else:
        a, b = (measured[k]["mAP50-95"] or 0.0 for k in ("fp32", "int8"))
        lines.append(f"mAP50-95 {b:.3f}, fp32 {a:.3f}, {where(measured)}")
        names_most = a - b > LOST
    if names_most and near["layers"]:
        most = ", ".join(f"{row['layer']} ({row['error']:.1%})" for row in near["layers"][:3])
        lines.append(f"what loses most, relative to its own output: {most}")
    return lines
