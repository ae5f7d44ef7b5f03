"""Export a detector and prove the file: ONNX by the host's own exporter, compared with PyTorch before it is trusted.

:func:`export` writes ``best.onnx`` and ``best.onnx.json``, the report of the proof, beside each other.
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

__all__ = ["FORMATS", "ExportResult", "export"]

FORMATS = ("onnx", "engine", "bundle")

MIN_OPSET = 11  # Resize with half-pixel coordinates, which every YOLO neck needs
MIN_OPSET_INT8 = 13  # a scale for each channel
MAX_OPSET = 20  # the last that torch's TorchScript exporter knows; later ones are not read by OpenCV either


@dataclass(frozen=True)
class ExportResult:
    """What an export gave: the file, and the report that stands beside it."""

    path: Path
    report: dict[str, Any]

    @property
    def report_path(self) -> Path:
        """`best.onnx.json`."""
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
    """Export a checkpoint and prove the file equal to it.

    The proof: ``onnx.checker``; onnxruntime against PyTorch, element by element relative to the output's scale, on
    images; the detections after NMS, same classes and IoU of at least 0.99. With `dynamic` at several shapes.
    Needs no network and installs nothing.

    Args:
        weights: A checkpoint (``.pt``), a bundle, or a model YAML (fresh weights).
        format: ``onnx``, ``engine`` (TensorRT) or ``bundle`` (see :mod:`yolo_attn.detectors.bundle`).
        imgsz: Side, or height and width, in pixels; what it was trained with when absent. Rounded up to the stride.
        dynamic: Let batch, height and width vary.
        half: Store and compute in fp16; compared with a tolerance of its own.
        opset: ONNX operator set; the host's choice when absent.
        nms: Put NMS into the file, which then takes one image a run. OpenCV cannot run it.
        simplify: Slim the graph with onnxslim.
        output: The file to write; beside the checkpoint when absent.
        images: For the proof: an image, a folder, or a list of either or of BGR arrays; drawn ones when absent.
        tolerance: Largest relative difference; 1e-4 when absent, 5e-2 for `half`.
        int8: Images, as for `images`, to calibrate an int8 twin on, `best_int8.onnx`; how near it comes is printed
            and stands in the report.
        cfg: A model YAML to put the checkpoint's weights into.
        log: Is given each line of progress.

    Returns:
        The path and the report.

    Raises:
        ExportError: The export failed, or the file is not equal to the model. Nothing is deleted.
        CheckpointError: `weights` is no checkpoint of a detector.
        UsageError: A contradiction among the options, or a target that cannot be written.
        DataError: There are no such images.
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
        log("note: with NMS inside, height and width vary and the batch is 1")
    precision = "fp16" if half else "fp32"
    began = time.perf_counter()
    _write_onnx(source, onnx_target, size, dynamic, half, opset, nms, simplify)
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
    """Refuse options that contradict each other, before anything is opened."""
    if format not in FORMATS:
        raise UsageError(f"no export format is called '{format}', only {', '.join(FORMATS)}")
    if int8 is not None and (half or nms or format != "onnx"):
        raise UsageError("int8 goes with neither --half, --nms nor another format than onnx")
    if opset is not None and opset < MIN_OPSET:
        raise UsageError(f"opset {opset} is too old for a YOLO detector: it needs {MIN_OPSET} or later")
    if opset is not None and int8 is not None and opset < MIN_OPSET_INT8:
        raise UsageError(f"opset {opset} is too old for int8: it needs {MIN_OPSET_INT8} or later")
    if opset is not None and opset > MAX_OPSET:
        raise UsageError(f"opset {opset} is newer than torch's exporter writes: {MAX_OPSET} at most")


def _check_task(source: Source, nms: bool, int8: Any) -> None:
    """Refuse what could not be proved: both are compared by their boxes alone."""
    if source.task != "detect" and (nms or int8 is not None):
        option = "--nms" if nms else "--int8"
        raise UsageError(f"{option} is for detectors; {source.path} is a model for '{source.task}'. Leave it out.")


def _target(source: Source, output: str | os.PathLike[str] | None, format: str) -> Path:
    """Return the file to write, after making sure that it can be written."""
    suffix = f".{format}"
    if output is None:
        folder = Path() if source.path.suffix in (".yaml", ".yml", "") else source.path.parent
        target = folder / (source.path.stem + suffix)
    else:
        target = expand(output)
        if target.is_dir():
            target = target / (source.path.stem + suffix)
        elif target.suffix.lower() != suffix:
            raise UsageError(f"{target}: a file of the format '{format}' ends in {suffix}")
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch(folder):
            pass
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    except OSError as exc:
        raise FileError(
            f"{target}: cannot be written: {exc.strerror or exc}. Choose another place with --output FILE."
        ) from exc
    return target


def _size(source: Source, imgsz: int | Sequence[int] | None, log: Callable[[str], Any]) -> tuple[int, int]:
    if imgsz is None:
        wanted = list(source.imgsz)
    else:
        wanted = [imgsz] if isinstance(imgsz, int) else [int(v) for v in imgsz]
        if len(wanted) not in (1, 2) or min(wanted, default=0) < 1:
            raise UsageError(f"the image size is one side or height and width, in pixels, got {wanted}")
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
    """Let the host export into a folder of its own, finish the graph, and put the file in its place at once."""
    import onnx

    try:
        # a folder on the same disk, so that moving the file is atomic
        with scratch(target.parent) as folder:
            draft = folder / target.name
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the tracer's and the exporter's, addressed to the host's authors
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
                "args": str({"nms": nms, "dynamic": dynamic}),  # as the ultralytics host writes it, for its predict
                "yolo_attn": __version__,
                "attention": json.dumps(attention_used(source.model)),
                "precision": "fp16" if half else "fp32",
            }
            graph.set_metadata(model, entries)
            onnx.save(model, str(draft))
            report.path_of(target).unlink(missing_ok=True)  # it speaks of the file that goes now
            publish(draft, target)
    except YoloAttnError:
        raise
    except Exception as exc:  # the hosts and the tracer raise everything, a full disk among it
        raise ExportError(f"{source.path}: the export failed: {type(exc).__name__}: {first_line(exc)[:400]}") from exc


def _int8(path: Path, found: dict[str, Any], pictures: list[Any], log: Callable[[str], Any]) -> None:
    from .int8 import quantize

    target = path.with_name(f"{path.stem}_int8.onnx")
    h, w = found["imgsz"]
    near = quantize(path, target, pictures, (h, w))
    found["int8"] = {"path": str(target), **near}
    report.write(path, found)
    log(
        f"int8: {target} ({near['bytes'] / 1e6:.1f} MB, calibrated on {near['calibrated_on']} images). Of "
        f"{near['found']} detections of the fp32 file it finds {near['same_iou_0.9']} with IoU 0.9 and up, "
        f"{near['same_iou_0.5']} with 0.5 and up, and {near['extra']} others. Measure its mAP before you use it."
    )
