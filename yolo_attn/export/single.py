"""Export a detector to one format, and verify the file against PyTorch.

:func:`export` writes ``best.onnx`` and a report of the verification, ``best.onnx.json``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..detectors.classic import is_classic
from ..detectors.opening import open_source
from ..detectors.source import Source, attention_used
from . import report
from .asked import Asked
from .beside import of_other_weights
from .formats.base import Job
from .formats.table import FORMATS, check_host, named
from .formats.write import write
from .onnx import export_onnx
from .refused import check_known, check_offered
from .target import size_of, target_of

__all__ = ["ExportResult", "export", "export_source"]


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Args:
        path: The exported file.
        report: The content of the report beside it.
    """

    path: Path
    report: dict[str, Any]

    @property
    def report_path(self) -> Path:
        """Path of the report, such as `best.onnx.json`."""
        return report.path_of(self.path)


def export(
    weights: str | os.PathLike[str],
    *,
    format: str = "onnx",
    imgsz: int | Sequence[int] | None = None,
    dynamic: bool = False,
    half: bool = False,
    opset: int | None = None,
    nms: bool = False,
    simplify: bool = True,
    output: str | os.PathLike[str] | None = None,
    images: Any = None,
    tolerance: float | None = None,
    int8: Any = None,
    int8_symmetric: bool = False,
    normalize_boxes: bool = False,
    chip: str = "",
    force: bool = False,
    data: str | os.PathLike[str] | None = None,
    cfg: str | os.PathLike[str] | None = None,
    log: Callable[[str], Any] = print,
) -> ExportResult:
    """Export a detector and verify the file against PyTorch.

    A file is verified by comparing the outputs of its runtime and of PyTorch element by element, and by comparing the
    detections after NMS (same class, IoU of at least 0.99); with `dynamic`, at several shapes. A file that differs is
    kept under another name (`best_failed.onnx`). No network is needed and nothing is installed.

    Args:
        weights: A checkpoint (``.pt``), a bundle, or a model YAML (random weights).
        format: ``onnx``, ``openvino``, ``ncnn``, ``mnn``, ``tflite``, ``executorch``, ``rknn``, ``coreml``,
            ``torchscript``, ``engine`` (TensorRT) or ``bundle`` (see :mod:`yolo_attn.detectors.bundle`).
        imgsz: Side, or height and width, in pixels, rounded up to multiples of the stride; as trained when absent.
        dynamic: Make batch, height and width dynamic.
        half: Store weights and compute in fp16.
        opset: ONNX opset version; the host's when absent.
        nms: Add NMS to the graph, which then has batch size 1. OpenCV cannot run such a file.
        simplify: Simplify the graph with onnxslim.
        output: Output file; beside the checkpoint when absent.
        images: Images to verify with: a file, a folder, or a list of files, folders or BGR arrays; generated ones
            when absent.
        tolerance: Largest difference, relative to the scale of the output; by default 1e-4, with `half` 5e-2.
        int8: Images, as for `images`, on which an additional int8 file, `best_int8.onnx`, is calibrated. The share of
            detections that it preserves is logged and added to the report, where they are labelled also the mAP.
        int8_symmetric: Give its activations a zero point of 0, as TensorRT wants.
        normalize_boxes: Divide boxes by the image size, for toolchains that quantize with one scale for a tensor; ONNX
            of ultralytics with fixed shapes only.
        chip: The processor that an NPU's format is for, such as `rk3566`; RKNN's default is `rk3588`.
        force: Try what is known to fail with this version of the runtime (:mod:`.deployment`); the file is proved all the
            same.
        data: A data set YAML: mAP50 and mAP50-95 of the file and of PyTorch on its validation images are logged and added to
            the report, and measured of the int8 file in place of its calibration images. For detectors.
        cfg: A model YAML to load the checkpoint's weights into.
        log: Called with each line of progress.

    Returns:
        The path and the report.

    Raises:
        ExportError: The export failed, a package that the format needs is missing, or the file differs from the model.
        CheckpointError: `weights` is not a detector's checkpoint.
        UsageError: Options contradict each other.
        FileError: The target cannot be written.
        DataError: The images or the data set cannot be read.
    """
    check_host(named(format), Path(weights), cfg is None and bool(is_classic(Path(weights))))
    asked = Asked(
        format, imgsz, dynamic, half, opset, nms, simplify, output, images, tolerance, int8, int8_symmetric,
        normalize_boxes, chip, force, data,
    ).checked()
    source = open_source(weights, cfg)
    for note in source.notes:
        log(f"note: {note}")
    result = export_source(source, asked, log)
    for line in of_other_weights([(result.path, result.report)]):
        log(f"note: {line}")
    return result


def export_source(source: Source, asked: Asked, log: Callable[[str], Any] = print) -> ExportResult:
    """Export an opened detector; see :func:`export`.

    Args:
        source: The detector; it is left as it was.
        asked: What :meth:`Asked.checked` returned.
        log: Called with each line of progress.
    """
    check_offered(source, asked)
    target = target_of(source, asked.output, asked.format)
    if asked.format == "bundle":
        from ..detectors.bundle import save

        save(source, target)
        log(f"bundle: {target} ({target.stat().st_size / 1e6:.1f} MB)")
        return ExportResult(target, {"path": str(target), "format": "bundle"})
    kind = FORMATS.get(asked.format)
    size = size_of(source, asked.imgsz, log)
    onnx_target = target.with_suffix(".onnx")
    if asked.format == "engine":
        from .tensorrt import require

        require(onnx_target, size, asked.dynamic, asked.half)
    used = attention_used(source.model)
    listed = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in used.items())
    log(f"{source.path}: {len(source.names)} classes, stride {source.stride}, attention: {listed or 'none'}")
    check_known(source, used, asked, log)
    if asked.int8 is not None and not (kind is not None and kind.weights_only):
        from .int8 import few_images

        if few := few_images(len(asked.int8)):
            log(f"warning: int8: {few}")
    job = Job(source, size, asked.dynamic, asked.half, asked.opset, chip=asked.chip)
    if kind is not None:
        found = write(
            kind, job, target, used, images=asked.images, tolerance=asked.tolerance, log=log, accuracy=asked.accuracy
        )
        if asked.int8 is not None:
            from .formats.int8 import add_int8

            add_int8(kind, replace(job, pictures=asked.int8), target, found, _labelled(source, asked), log)
            report.write_int8(found)
        return ExportResult(target, found)
    found = export_onnx(source, asked, size, onnx_target, used, log)
    if asked.int8 is not None:
        from . import int8

        int8.add_int8(source, onnx_target, found, asked.int8, _labelled(source, asked), asked.int8_symmetric, log)
        report.write_int8(found)
    if asked.format == "engine":
        from .formats.elsewhere import engine_report
        from .tensorrt import build

        build(onnx_target, target, size, asked.dynamic, asked.half, log)
        return ExportResult(target, engine_report(job, target, found, asked.images, asked.tolerance, log))
    return ExportResult(onnx_target, found)


def _labelled(source: Source, asked: Asked) -> Any:
    """Return the images that mAP of an int8 file is measured on: of the data set, or labelled ones it is calibrated on."""
    from .int8 import labelled_images

    if source.task != "detect":  # labels of other tasks are no boxes
        return None
    return asked.accuracy.split(source) if asked.accuracy is not None else labelled_images(asked.int8_from, source)
