"""Export a detector with its host's own exporter and verify the file against PyTorch.

:func:`export` writes ``best.onnx`` and a report of the verification, ``best.onnx.json``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from .._version import __version__
from ..detectors.opening import open_source
from ..detectors.source import Source, attention_used
from ..errors import ExportError, FileError, UsageError, YoloAttnError, first_line
from ..files import expand, publish, scratch
from ..registry import registry
from ..runtime.image import round_up
from ..runtime.opencv import obstacles
from . import graph, report
from .asked import Asked
from .beside import of_other_weights
from .deployment import faults_of, formats_for, version_here
from .formats.base import Job, check_options
from .formats.table import FORMATS as RUNTIME_FORMATS
from .formats.table import NAMES, check_host, suffix_of
from .formats.write import write
from .one_module import plain_attention

__all__ = ["FORMATS", "Asked", "ExportResult", "count_nodes", "export", "export_source"]

FORMATS = NAMES


# The same picture gives other boxes in another shape; a comparison of a checkpoint with its file has to know.
FIXED = (
    "the input has one shape, and images are padded to it. The host's predict of a checkpoint pads to a rectangle: compare "
    "with rect=False, or export with --dynamic"
)


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
    format, dynamic, half, nms, opset = asked.format, asked.dynamic, asked.half, asked.nms, asked.opset
    _check_task(source, {"--nms": nms, "--int8": asked.int8 is not None, "--data": asked.accuracy is not None})
    if asked.normalize_boxes and (source.host != "ultralytics" or source.task != "detect"):
        raise UsageError(f"--normalize-boxes is for detectors of ultralytics, {source.path} is not one")
    kind = RUNTIME_FORMATS.get(format)
    if kind is not None:
        rest = {"opset": opset is not None, "plain": not asked.simplify}
        check_host(format, source.path, source.host != "ultralytics")
        check_options(kind, half=half, int8=asked.int8 is not None, dynamic=dynamic, nms=nms, **rest)
        if asked.accuracy is not None and not kind.runtime:
            raise UsageError(f"--format {format} has no --data: its file runs on {kind.where} alone")
    if asked.accuracy is not None:
        asked.accuracy.split(source)  # the right data set, before anything is written
    target = _target(source, asked.output, format)
    if format == "bundle":
        given = {"--half": half, "--dynamic": dynamic, "--nms": nms, "--opset": opset is not None, "--no-simplify": not asked.simplify, "--data": asked.accuracy is not None}
        if any(given.values()):
            wrong = " and ".join(option for option, wanted in given.items() if wanted)
            raise UsageError(f"--format bundle has no {wrong}: it holds the weights as they are, for PyTorch")
        from ..detectors.bundle import save

        save(source, target)
        log(f"bundle: {target} ({target.stat().st_size / 1e6:.1f} MB)")
        return ExportResult(target, {"path": str(target), "format": "bundle"})
    size = _size(source, asked.imgsz, log)
    onnx_target = target.with_suffix(".onnx") if kind is None else target
    if format == "engine":
        from .tensorrt import require

        require(onnx_target, size, dynamic, half)
    used = attention_used(source.model)
    listed = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in used.items())
    log(f"{source.path}: {len(source.names)} classes, stride {source.stride}, attention: {listed or 'none'}")
    _check_known(source, used, asked, log)
    if kind is not None:
        job = Job(source, size, dynamic, half, opset, chip=asked.chip)
        found = write(
            kind, job, target, used, images=asked.images, tolerance=asked.tolerance, log=log, accuracy=asked.accuracy
        )
        if asked.int8 is not None:
            from .formats.int8 import add_int8

            add_int8(kind, replace(job, pictures=asked.int8), target, found, _labelled(source, asked), log)
            report.write_int8(found)
        return ExportResult(target, found)
    return _export_onnx(source, asked, size, onnx_target, target, used, log)


def _export_onnx(
    source: Source,
    asked: Asked,
    size: tuple[int, int],
    onnx_target: Path,
    target: Path,
    used: dict[str, int],
    log: Callable[[str], Any],
) -> ExportResult:
    """Write and prove ONNX; from it, what was asked for besides: an int8 file, an engine."""
    format, dynamic, half, nms, opset = asked.format, asked.dynamic, asked.half, asked.nms, asked.opset
    for line in obstacles(used, nms=nms, half=half, int8=asked.int8 is not None):
        log(f"note: {line}")
    if nms and dynamic:
        log("note: with NMS in the graph, height and width are dynamic and the batch size is 1")
    if not dynamic:
        log(f"note: {FIXED}")
    if asked.normalize_boxes:
        log("note: boxes are divided by the image size. yolo-attn detect multiplies them again; the host's predict does not")
    precision = "fp16" if half else "fp32"
    began = time.perf_counter()
    with _scratch_beside(onnx_target) as folder:
        draft = folder / onnx_target.name
        try:
            _write_onnx(source, draft, size, dynamic, half, opset, nms, asked.simplify, asked.normalize_boxes)
        except ExportError as exc:
            if dynamic and _exports_static(source, size, half, opset, nms, asked.simplify):
                raise ExportError(f"{exc} Without --dynamic the export works.") from exc
            raise
        found = {
            **report.describe(source, draft, used),
            "imgsz": list(size),
            "dynamic": dynamic,
            "precision": precision,
            "nms": nms,
            "simplified": asked.simplify,
            "boxes": "relative" if asked.normalize_boxes else "pixels",
            "padding": "as the input" if dynamic else FIXED,
            "seconds": {"export": round(time.perf_counter() - began, 2)},
        }
        graph = found["graph"]
        log(
            f"onnx: {onnx_target} ({found['bytes'] / 1e6:.1f} MB, opset {graph['opset']}, {graph['nodes']} nodes, "
            f"{'dynamic shapes' if dynamic else 'x'.join(map(str, size))}, {precision})"
        )
        report.prove(
            draft,
            found,
            source,
            images=asked.images,
            tolerance=report.TOLERANCES[precision] if asked.tolerance is None else asked.tolerance,
            log=log,
            publish=publish,
            target=onnx_target,
            failed=report.failed_name(onnx_target, ".onnx"),
            accuracy=asked.accuracy,
        )
    if asked.int8 is not None:
        from .int8 import add_int8

        add_int8(source, onnx_target, found, asked.int8, _labelled(source, asked), asked.int8_symmetric, log)
        report.write_int8(found)
    if format == "engine":
        from .formats.elsewhere import engine_report
        from .tensorrt import build

        build(onnx_target, target, size, dynamic, half, log)
        job = Job(source, size, dynamic, half, opset)
        return ExportResult(target, engine_report(job, target, found, asked.images, asked.tolerance, log))
    return ExportResult(onnx_target, found)


def _labelled(source: Source, asked: Asked) -> Any:
    """Return the images that mAP of an int8 file is measured on: of the data set, or labelled ones it is calibrated on."""
    from .int8 import labelled_images

    return asked.accuracy.split(source) if asked.accuracy is not None else labelled_images(asked.int8_from, source)


def _check_known(source: Source, used: dict[str, int], asked: Asked, log: Callable[[str], Any]) -> None:
    """Refuse what is known to fail with the runtime that is installed, and tell what failed with an older one.

    Raises:
        ExportError: The message has the reason, the formats that compute all of this detector's modules, and ``--force``.
    """
    kind = RUNTIME_FORMATS.get(asked.format)
    precision = "int8" if asked.int8 is not None else "fp16" if asked.half else kind.precision if kind else "fp32"
    known = [name for name in used if (e := registry.find(name)) is None or e.owner.startswith("yolo_attn.modules.")]
    stops, notes = faults_of(known, asked.format, precision, version_here(asked.format))
    for line in notes:
        log(f"note: {line}")
    for line in stops if asked.force else ():
        log(f"note: {line} It is tried, since --force was given, and the proof decides")
    if stops and not asked.force:
        good = [f for f in formats_for(used, precision) if f != asked.format]
        way = f"Export to {' or '.join(good)}, where it was proved, or add" if good else "Add"
        raise ExportError(
            f"{source.path}: {' '.join(stops)} Nothing was written. {way} --force: the file is then made, proved, and "
            f"called failed if it differs."
        )


def _check_task(source: Source, given: dict[str, bool]) -> None:
    """Refuse options whose result is verified by its boxes, for other tasks."""
    options = [option for option, wanted in given.items() if wanted]
    if source.task != "detect" and options:
        raise UsageError(f"{options[0]} is for detectors only; {source.path} is a model for '{source.task}'")


def _target(source: Source, output: str | os.PathLike[str] | None, format: str) -> Path:
    """Return the output file, after checking that it can be written."""
    suffix = suffix_of(format)
    if output is None:
        folder = Path() if source.path.suffix in (".yaml", ".yml", "") else source.path.parent
        target = folder / (source.path.stem + suffix)
    else:
        target = expand(output)
        if target.is_dir() and not target.name.lower().endswith(suffix):
            target = target / (source.path.stem + suffix)
        elif not target.name.lower().endswith(suffix):
            raise UsageError(f"{target}: the name of a file of format '{format}' must end in {suffix}")
    kind = RUNTIME_FORMATS.get(format)
    folders = kind is not None and bool(kind.parts)
    if target.exists() and target.is_dir() != folders:
        raise FileError(f"{target}: is in the way: it is {'no' if folders else 'a'} folder. Move it away, or choose another place.")
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


@contextlib.contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary folder on the file system of `target`."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch(target.parent))
        except OSError as exc:
            raise FileError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
        yield folder


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
    normalize_boxes: bool = False,
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
            if normalize_boxes:
                graph.normalize_boxes(model, size)
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
            publish(draft, target)
    except YoloAttnError:
        raise
    except Exception as exc:  # hosts and tracer may raise anything, also for a full disk
        raise ExportError(f"{source.path}: the export failed: {type(exc).__name__}: {first_line(exc)[:400]}") from exc


def count_nodes(source: Source) -> int:
    """Return the number of nodes of a detector's simplified ONNX graph, at the size that it was trained with.

    Args:
        source: The detector; its file is not touched.

    Raises:
        ExportError: It cannot be exported.
    """
    import onnx

    size = round_up(source.imgsz, source.stride, lambda line: None)
    with scratch() as folder:
        file = folder / "counted.onnx"
        _write_onnx(source, file, size)
        return len(onnx.load(str(file)).graph.node)


def _exports_static(source: Source, size: tuple[int, int], *how: Any) -> bool:
    """Whether a model whose export with dynamic shapes failed can be exported for one size."""
    try:
        with scratch() as folder:
            _write_onnx(source, folder / "static.onnx", size, False, *how)
    except YoloAttnError:
        return False
    return True
