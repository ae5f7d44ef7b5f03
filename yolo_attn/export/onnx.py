"""Export a detector with its host's own exporter and verify the file against PyTorch.

:func:`export` writes ``best.onnx`` and a report of the verification, ``best.onnx.json``.
"""

from __future__ import annotations

import errno
import json
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .._version import __version__
from ..detectors.opening import open_source
from ..detectors.source import Source, attention_used
from ..errors import ExportError, FileError, UsageError, YoloAttnError, first_line
from ..files import expand, publish, scratch
from ..runtime.image import round_up
from ..runtime.opencv import obstacles
from . import graph, proof, report
from .one_module import plain_attention

__all__ = ["FORMATS", "ExportResult", "export"]

FORMATS = ("onnx", "engine", "bundle")

MIN_OPSET = 11  # Resize with half-pixel coordinates, which every YOLO neck needs
MIN_OPSET_INT8 = 13  # scales per channel
MAX_OPSET = 20  # the latest of torch's TorchScript exporter; OpenCV reads no later ones either


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
    cfg: str | os.PathLike[str] | None = None,
    log: Callable[[str], Any] = print,
) -> ExportResult:
    """Export a detector and verify the file against PyTorch.

    An ONNX file is verified with ``onnx.checker``, by comparing the outputs of onnxruntime and PyTorch element by
    element, and by comparing the detections after NMS (same class, IoU of at least 0.99); with `dynamic`, at several
    shapes. No network is needed and nothing is installed.

    Args:
        weights: A checkpoint (``.pt``), a bundle, or a model YAML (random weights).
        format: ``onnx``, ``engine`` (TensorRT) or ``bundle`` (see :mod:`yolo_attn.detectors.bundle`).
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
            detections that it preserves is logged and added to the report.
        cfg: A model YAML to load the checkpoint's weights into.
        log: Called with each line of progress.

    Returns:
        The path and the report.

    Raises:
        ExportError: The export failed, or the file does not match the model. The file is kept.
        CheckpointError: `weights` is not a detector's checkpoint.
        UsageError: Options contradict each other.
        FileError: The target cannot be written.
        DataError: The images cannot be read.
    """
    _check(format, half, opset, nms, int8)
    pictures = None if images is None else proof.read_images(images)
    calibration = None if int8 is None else proof.read_images(int8, limit=300)
    source = open_source(weights, cfg)
    for note in source.notes:
        log(f"note: {note}")
    _check_task(source, nms, int8)
    target = _target(source, output, format)
    if format == "bundle":
        from ..detectors.bundle import save

        save(source, target)
        log(f"bundle: {target} ({target.stat().st_size / 1e6:.1f} MB)")
        return ExportResult(target, {"path": str(target), "format": "bundle"})
    size = _size(source, imgsz, log)
    onnx_target = target.with_suffix(".onnx")
    if format == "engine":
        from .tensorrt import require

        require(onnx_target, size, dynamic, half)
    used = attention_used(source.model)
    listed = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in used.items())
    log(f"{source.path}: {len(source.names)} classes, stride {source.stride}, attention: {listed or 'none'}")
    for line in obstacles(used, nms=nms, half=half, int8=int8 is not None):
        log(f"note: {line}")
    if nms and dynamic:
        log("note: with NMS in the graph, height and width are dynamic and the batch size is 1")
    precision = "fp16" if half else "fp32"
    began = time.perf_counter()
    try:
        _write_onnx(source, onnx_target, size, dynamic, half, opset, nms, simplify)
    except ExportError as exc:
        if dynamic and _exports_static(source, size, half, opset, nms, simplify):
            raise ExportError(f"{exc} Without --dynamic the export works.") from exc
        raise
    found = {
        **report.describe(source, onnx_target, used),
        "imgsz": list(size),
        "dynamic": dynamic,
        "precision": precision,
        "nms": nms,
        "simplified": simplify,
        "seconds": {"export": round(time.perf_counter() - began, 2)},
    }
    graph = found["graph"]
    log(
        f"onnx: {onnx_target} ({found['bytes'] / 1e6:.1f} MB, opset {graph['opset']}, {graph['nodes']} nodes, "
        f"{'dynamic shapes' if dynamic else 'x'.join(map(str, size))}, {precision})"
    )
    limit = report.TOLERANCES[precision] if tolerance is None else tolerance
    report.prove(onnx_target, found, source, images=pictures, tolerance=limit, log=log)
    if calibration is not None:
        _int8(onnx_target, found, calibration, log)
    if format == "engine":
        from .tensorrt import build

        return ExportResult(build(onnx_target, target, size, dynamic, half, log), found)
    return ExportResult(onnx_target, found)


def _check(format: str, half: bool, opset: int | None, nms: bool, int8: Any) -> None:
    """Check the options for contradictions, before anything is opened."""
    if format not in FORMATS:
        raise UsageError(f"unknown export format '{format}', choose from {', '.join(FORMATS)}")
    if int8 is not None and (half or nms or format != "onnx"):
        raise UsageError("--int8 cannot be combined with --half, --nms or a format other than onnx")
    if opset is not None and opset < MIN_OPSET:
        raise UsageError(f"--opset {opset} is too old for a YOLO detector, which needs {MIN_OPSET} or later")
    if opset is not None and int8 is not None and opset < MIN_OPSET_INT8:
        raise UsageError(f"--opset {opset} is too old for int8, which needs {MIN_OPSET_INT8} or later")
    if opset is not None and opset > MAX_OPSET:
        raise UsageError(f"--opset {opset} is newer than torch's exporter supports: at most {MAX_OPSET}")


def _check_task(source: Source, nms: bool, int8: Any) -> None:
    """Refuse options whose result is verified by its boxes, for other tasks."""
    if source.task != "detect" and (nms or int8 is not None):
        option = "--nms" if nms else "--int8"
        raise UsageError(f"{option} is for detectors only; {source.path} is a model for '{source.task}'")


def _target(source: Source, output: str | os.PathLike[str] | None, format: str) -> Path:
    """Return the output file, after checking that it can be written."""
    suffix = f".{format}"
    if output is None:
        folder = Path() if source.path.suffix in (".yaml", ".yml", "") else source.path.parent
        target = folder / (source.path.stem + suffix)
    else:
        target = expand(output)
        if target.is_dir():
            target = target / (source.path.stem + suffix)
        elif target.suffix.lower() != suffix:
            raise UsageError(f"{target}: the name of a file of format '{format}' must end in {suffix}")
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch(folder):
            pass
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    except OSError as exc:
        raise FileError(
            f"{target}: cannot be written: {exc.strerror or exc}. Choose another with --output FILE."
        ) from exc
    return target


def _size(source: Source, imgsz: int | Sequence[int] | None, log: Callable[[str], Any]) -> tuple[int, int]:
    if imgsz is None:
        wanted = list(source.imgsz)
    else:
        wanted = [imgsz] if isinstance(imgsz, int) else [int(v) for v in imgsz]
        if len(wanted) not in (1, 2) or min(wanted, default=0) < 1:
            raise UsageError(f"the image size must be one side, or height and width, in pixels, got {wanted}")
    return round_up((wanted[0], wanted[-1]), source.stride, log)


def _write_onnx(
    source: Source,
    target: Path,
    size: tuple[int, int],
    dynamic: bool = False,
    half: bool = False,
    opset: int | None = None,
    nms: bool = False,
    simplify: bool = True,
) -> None:
    """Let the host export into a temporary folder, finish the graph, and move the file to its place."""
    import onnx

    try:
        # on the same file system, so that moving the file is atomic
        with scratch(target.parent) as folder:
            draft = folder / target.name
            with warnings.catch_warnings(), plain_attention():
                warnings.simplefilter("ignore")  # warnings of tracer and exporter that concern the host's code
                if source.host == "ultralytics":
                    from .ultralytics import write_onnx
                else:
                    from .classic import write_onnx
                write_onnx(source, draft, size, dynamic, opset, nms, simplify)
            model = onnx.load(str(draft))
            if simplify:
                graph.pool_means(model)
            if nms:
                graph.fix_batch(model)  # NMS was traced for one image
            if half:
                model = graph.to_half(model)
            entries = {
                "names": str(source.names),
                "stride": str(source.stride),
                "task": source.task,
                "imgsz": str(list(size)),
                "args": str({"nms": nms, "dynamic": dynamic}),  # in the form that ultralytics' predict reads
                "yolo_attn": __version__,
                "attention": json.dumps(attention_used(source.model)),
                "precision": "fp16" if half else "fp32",
            }
            graph.set_metadata(model, entries)
            onnx.save(model, str(draft))
            report.path_of(target).unlink(missing_ok=True)  # of the file that is being replaced
            publish(draft, target)
    except YoloAttnError:
        raise
    except Exception as exc:  # hosts and tracer may raise anything, also for a full disk
        raise ExportError(f"{source.path}: the export failed: {type(exc).__name__}: {first_line(exc)[:400]}") from exc


def _exports_static(source: Source, size: tuple[int, int], *how: Any) -> bool:
    """Whether a model whose export with dynamic shapes failed can be exported for one size."""
    try:
        with scratch() as folder:
            _write_onnx(source, folder / "static.onnx", size, False, *how)
    except YoloAttnError:
        return False
    return True


def _int8(path: Path, found: dict[str, Any], pictures: list[Any], log: Callable[[str], Any]) -> None:
    from .int8 import quantize

    target = path.with_name(f"{path.stem}_int8.onnx")
    h, w = found["imgsz"]
    near = quantize(path, target, pictures, (h, w))
    found["int8"] = {"path": str(target), **near}
    report.write(path, found)
    log(
        f"int8: {target} ({near['bytes'] / 1e6:.1f} MB, calibrated on {near['calibrated_on']} images). Of "
        f"{near['found']} detections of the fp32 file it finds {near['same_iou_0.9']} with IoU >= 0.9 and "
        f"{near['same_iou_0.5']} with IoU >= 0.5, and {near['extra']} others. Measure its mAP before using it."
    )
