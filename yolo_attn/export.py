"""Export a detector and prove the file: ONNX by the host's own exporter, compared with PyTorch before it is trusted.

:func:`export` writes ``best.onnx`` and ``best.onnx.json``, the report of the proof, beside each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from ._version import __version__
from .errors import ExportError, UsageError, YoloAttnError
from .loading import Source, attention_used, open_source, quiet_host
from .slim import pool_means

__all__ = ["FORMATS", "TOLERANCES", "ExportResult", "export"]

FORMATS = ("onnx", "engine", "bundle")

# Largest difference from PyTorch, relative to the output's scale, that a precision is allowed.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2}

MIN_OPSET = 11  # Resize with half-pixel coordinates, which every YOLO neck needs
MAX_OPSET = 20  # the last that torch's TorchScript exporter knows; later ones are not read by OpenCV either


@dataclass(frozen=True)
class ExportResult:
    """What an export gave: the file, and the report that stands beside it."""

    path: Path
    report: dict[str, Any]

    @property
    def report_path(self) -> Path:
        """`best.onnx.json`."""
        return self.path.with_name(self.path.name + ".json")


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
    pictures; the detections after NMS, same classes and IoU of at least 0.99. With `dynamic` at several shapes.
    Needs no network and installs nothing.

    Args:
        weights: A checkpoint (``.pt``), a bundle, or a model YAML (fresh weights).
        format: ``onnx``, ``engine`` (TensorRT) or ``bundle`` (see :mod:`yolo_attn.bundle`).
        imgsz: Side, or height and width, in pixels; what it was trained with when absent. Rounded up to the stride.
        dynamic: Let batch, height and width vary.
        half: Store and compute in fp16; compared with a tolerance of its own.
        opset: ONNX operator set; the host's choice when absent.
        nms: Put NMS into the file. OpenCV cannot run it.
        simplify: Slim the graph with onnxslim.
        output: The file to write; beside the checkpoint when absent.
        images: For the proof: a picture, a folder, or a list of either or of BGR arrays; drawn ones when absent.
        tolerance: Largest relative difference; 1e-4 when absent, more for `half`.
        int8: Pictures, as for `images`, to calibrate an int8 twin on, `best_int8.onnx`; how near it comes is printed
            and stands in the report.
        cfg: A model YAML to put the checkpoint's weights into.
        log: Is given each line of progress.

    Returns:
        The path and the report.

    Raises:
        ExportError: The export failed, or the file is not equal to the model. Nothing is deleted.
        CheckpointError: `weights` is no checkpoint of a detector.
        UsageError: A contradiction among the options, or a target that cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"no export format is called '{format}', only {', '.join(FORMATS)}")
    if int8 is not None and (half or nms or format == "bundle"):
        raise UsageError("int8 goes with neither --half, --nms nor --format bundle")
    if opset is not None and opset < MIN_OPSET:
        raise UsageError(f"opset {opset} is too old for a YOLO detector: it needs {MIN_OPSET} or later")
    if opset is not None and opset > MAX_OPSET:
        raise UsageError(f"opset {opset} is newer than torch's exporter writes: {MAX_OPSET} at most")
    source = open_source(weights, cfg)
    for note in source.notes:
        log(f"note: {note}")
    target = _target(source, output, format)
    if format == "bundle":
        from .bundle import save

        save(source, target)
        log(f"bundle: {target} ({target.stat().st_size / 1e6:.1f} MB)")
        return ExportResult(target, {"path": str(target), "format": "bundle"})
    size = _size(source, imgsz, log)
    if format == "engine":
        from .tensorrt import require

        require(target.with_suffix(".onnx"), size, dynamic, half)
    used = attention_used(source.model)
    log(f"{source.path}: {len(source.names)} classes, stride {source.stride}, attention: {_listed(used) or 'none'}")
    _warn_opencv(used, nms, half, log)
    onnx_target = target.with_suffix(".onnx")
    began = time.perf_counter()
    precision = "fp16" if half else "fp32"
    _write_onnx(source, onnx_target, size, dynamic=dynamic, half=half, opset=opset, nms=nms, simplify=simplify)
    report = _report(source, onnx_target, size, used, precision, dynamic, nms, simplify)
    report["seconds"] = {"export": round(time.perf_counter() - began, 2)}
    graph = report["graph"]
    log(
        f"onnx: {onnx_target} ({report['bytes'] / 1e6:.1f} MB, opset {graph['opset']}, {graph['nodes']} nodes, "
        f"{'dynamic shapes' if dynamic else 'x'.join(map(str, size))}, {precision})"
    )
    limit = TOLERANCES[precision] if tolerance is None else tolerance
    result = ExportResult(onnx_target, report)
    prove(result, source, size, images=images, tolerance=limit, dynamic=dynamic, nms=nms, log=log)
    if int8 is not None:
        _int8(result, size, int8, log)
    if format == "engine":
        from .tensorrt import build

        return ExportResult(build(onnx_target, target, size, dynamic, half, log), report)
    return result


def _int8(result: ExportResult, size: tuple[int, int], pictures: Any, log: Callable[[str], Any]) -> None:
    from . import proof
    from .int8 import quantize

    target = result.path.with_name(f"{result.path.stem}_int8.onnx")
    found = quantize(result.path, target, proof.read_images(pictures, limit=300), size)
    result.report["int8"] = {"path": str(target), **found}
    result.report_path.write_text(json.dumps(_plain(result.report), indent=2) + "\n", encoding="utf-8")
    log(
        f"int8: {target} ({found['bytes'] / 1e6:.1f} MB, calibrated on {found['calibrated_on']} pictures). Of "
        f"{found['found']} detections of the fp32 file it finds {found['same_iou_0.9']} with IoU 0.9 and up, "
        f"{found['same_iou_0.5']} with 0.5 and up, and {found['extra']} others. Measure its mAP before you use it."
    )


def prove(
    result: ExportResult,
    source: Source,
    size: tuple[int, int],
    *,
    images: Any,
    tolerance: float,
    dynamic: bool,
    nms: bool,
    log: Callable[[str], Any] = print,
) -> None:
    """Compare an ONNX file with the network that it came from and write the report beside it.

    Raises:
        ExportError: They differ, or the file is not valid ONNX; the file stays where it is.
    """
    import onnx

    from . import proof

    began = time.perf_counter()
    pictures = proof.drawn_images(2) if images is None else proof.read_images(images)
    report = result.report
    evidence: dict[str, Any] = {
        "images": "drawn" if images is None else len(pictures),
        "tolerance": tolerance,
        "min_iou": proof.MIN_IOU,
        "checker": "",
        "runs": [],
        "passed": False,
    }
    report["proof"] = evidence
    problem = ""
    try:
        onnx.checker.check_model(str(result.path), full_check=True)
        evidence["checker"] = "passed"
        run, layout = _opened(result.path, source, nms)
        shapes = proof.shapes_to_try(size, max(source.stride, 32), dynamic)
        reference = _reference(source, end2end=report["end2end"])
        for entry in proof.compare(reference, run, pictures, shapes, tolerance=tolerance, layout=layout):
            evidence["runs"].append(entry)
        problem = _problem(evidence["runs"], tolerance)
    except onnx.checker.ValidationError as exc:
        evidence["checker"] = str(exc).strip().splitlines()[0]
        problem = f"onnx.checker: {evidence['checker']}"
    except YoloAttnError as exc:
        problem = str(exc)
    except Exception as exc:  # onnxruntime's errors share no base class
        problem = f"{type(exc).__name__}: {(str(exc).strip().splitlines() or [''])[0]}"
    runs = evidence["runs"]
    evidence["largest_difference"] = max((v for r in runs for v in r["difference"].values()), default=None)
    evidence["passed"] = not problem
    report["seconds"]["proof"] = round(time.perf_counter() - began, 2)
    if problem:
        evidence["problem"] = problem
    result.report_path.write_text(json.dumps(_plain(report), indent=2) + "\n", encoding="utf-8")
    if problem:
        raise ExportError(
            f"{result.path}: is not equal to {source.path}: {problem}. The file was kept for you to look at; do not "
            f"deploy it. The numbers are in {result.report_path}."
        )
    log(f"proof: equal to PyTorch. {_summary(runs, evidence['largest_difference'], tolerance, source.task)}")
    log(f"report: {result.report_path}")


def _summary(runs: list[dict[str, Any]], largest: float | None, tolerance: float, task: str) -> str:
    parts = []
    if largest is not None:
        parts.append(f"Largest difference {largest:.1e} of the output's scale ({tolerance:.0e} is allowed)")
    if task == "detect":
        found, ties = (sum(r["detections"][k] for r in runs) for k in ("compared", "ties"))
        worst = min((r["detections"]["min_iou"] for r in runs), default=1.0)
        parts.append(
            f"{found} detections the same, IoU {worst:.4f} and up{f' ({ties} ties in score)' if ties else ''}"
            if found
            else "nothing detected by either"
        )
    shapes = dict.fromkeys("x".join(map(str, r["shape"])) for r in runs)
    return f"{'; '.join(parts)}; at {', '.join(shapes)}"


def _problem(runs: list[dict[str, Any]], tolerance: float) -> str:
    for run in runs:
        shape = "x".join(map(str, run["shape"]))
        for name, value in run["difference"].items():
            if not value <= tolerance:
                return f"at {shape} the {name} differ by {value:.1e} of their scale, {tolerance:.0e} is allowed"
        d = run["detections"]
        if d["missing"] or d["extra"]:
            return f"at {shape}, of {d['compared']} detections {d['missing']} are missing and {d['extra']} are new"
    return ""


def _target(source: Source, output: str | os.PathLike[str] | None, format: str) -> Path:
    """Return the file to write, after making sure that it can be written."""
    suffix = f".{format}"
    if output is None:
        folder = Path() if source.path.suffix in (".yaml", ".yml", "") else source.path.parent
        target = folder / (source.path.stem + suffix)
    else:
        target = Path(os.path.expanduser(str(output)))
        if target.is_dir():
            target = target / (source.path.stem + suffix)
        elif target.suffix.lower() != suffix:
            raise UsageError(f"{target}: a file of the format '{format}' ends in {suffix}")
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".yolo_attn"):
            pass
        if target.exists():
            with target.open("r+b"):
                pass
    except OSError as exc:
        raise UsageError(
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
        wanted = wanted * 2 if len(wanted) == 1 else wanted
    s = source.stride
    rounded = [-(-v // s) * s for v in wanted]
    if rounded != wanted:
        log(f"image size {wanted[0]}x{wanted[1]} rounded up to {rounded[0]}x{rounded[1]}: multiples of the stride {s}")
    return rounded[0], rounded[1]


def _write_onnx(
    source: Source,
    target: Path,
    size: tuple[int, int],
    *,
    dynamic: bool,
    half: bool,
    opset: int | None,
    nms: bool,
    simplify: bool,
) -> None:
    """Let the host export into a folder of its own, add the kit's metadata, and put the file in its place at once."""
    import onnx

    # a folder on the same disk, so that moving the file is atomic
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".yolo_attn") as folder:
        draft = Path(folder) / target.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the tracer's and the exporter's, addressed to the host's authors
                if source.host == "ultralytics":
                    _by_ultralytics(source, draft, size, dynamic, opset, nms, simplify)
                else:
                    from .export_classic import write_onnx

                    write_onnx(source, draft, size, dynamic, opset, nms, simplify)
        except YoloAttnError:
            raise
        except Exception as exc:
            line = (str(exc).strip().splitlines() or [""])[0]
            raise ExportError(f"{source.path}: the export failed: {type(exc).__name__}: {line[:400]}") from exc
        model = onnx.load(str(draft))
        if simplify:
            pool_means(model)
        if half:
            model = _to_half(model)
        _add_metadata(model, source, half)
        onnx.save(model, str(draft))
        os.replace(draft, target)


def _by_ultralytics(
    source: Source, draft: Path, size: tuple[int, int], dynamic: bool, opset: int | None, nms: bool, simplify: bool
) -> None:
    model = source.model
    before = getattr(model, "pt_path", None)
    # The host names its output after the checkpoint: beside it, or in the working folder for a YAML.
    model.pt_path = str(draft.with_suffix(".pt"))
    options: dict[str, Any] = {"format": "onnx", "imgsz": list(size), "dynamic": dynamic, "simplify": simplify}
    if opset is not None:
        options["opset"] = opset
    if nms:
        options["nms"] = True
    try:
        with quiet_host(), _no_gradients(model):
            written = Path(source.handle.export(**options, device="cpu"))
    finally:
        model.pt_path = before
    if written != draft:
        os.replace(written, draft)


@contextlib.contextmanager
def _no_gradients(model: Any) -> Iterator[None]:
    """Give the flags back that the host's exporter sets on its way."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    names, end2end = model.names, getattr(model, "end2end", None)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
        model.names = names
        if end2end is not None:
            with contextlib.suppress(AttributeError):
                model.end2end = end2end


def _to_half(model: Any) -> Any:
    """Convert to fp16 inside, fp32 at the input and output."""
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights below fp16's smallest number become zero, as meant
        converted = OnnxModel(float16.convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort()  # the casts are appended behind the nodes that read them
    return converted.model


def _add_metadata(model: Any, source: Source, half: bool) -> None:
    have = {p.key: p.value for p in model.metadata_props}
    extra = {
        "names": str(source.names),
        "stride": str(source.stride),
        "task": source.task,
        "yolo_attn": __version__,
        "attention": json.dumps(attention_used(source.model)),
        "precision": "fp16" if half else "fp32",
    }
    for key, value in extra.items():
        if key not in have:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value


def _report(
    source: Source,
    path: Path,
    size: tuple[int, int],
    used: dict[str, int],
    precision: str,
    dynamic: bool,
    nms: bool,
    simplify: bool,
) -> dict[str, Any]:
    import hashlib
    from collections import Counter

    import numpy
    import onnx
    import onnxruntime
    import torch

    model = onnx.load(str(path))
    meta = {p.key: p.value for p in model.metadata_props}
    ops = Counter(n.op_type for n in model.graph.node)
    data = path.read_bytes()
    versions = {"yolo_attn": __version__, "python": platform.python_version(), "torch": torch.__version__}
    versions |= {m.__name__: m.__version__ for m in (numpy, onnx, onnxruntime)}
    if source.host == "ultralytics":
        import ultralytics

        versions["ultralytics"] = ultralytics.__version__
    return {
        "path": str(path),
        "source": str(source.path),
        "host": source.host,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "imgsz": list(size),
        "dynamic": dynamic,
        "precision": precision,
        "nms": nms,
        "simplified": simplify,
        "names": source.names,
        "stride": source.stride,
        "task": source.task,
        "end2end": meta.get("end2end") == "True",
        "attention": used,
        "graph": {
            "opset": next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
            "nodes": len(model.graph.node),
            "operators": dict(ops.most_common()),
        },
        "versions": versions,
    }


def _opened(path: Path, source: Source, nms: bool) -> tuple[Callable[[Any], list[Any]], str | None]:
    """Open an ONNX file for the proof: a function from a blob to its outputs, and the layout of a detector's."""
    from .runtime.session import Detector

    if source.task == "detect":
        detector = Detector(path)
        return lambda x: [detector(x)], "nms" if nms else detector.layout or source.layout
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x}), None


def _reference(source: Source, end2end: bool) -> Callable[[Any], list[Any]]:
    """Return the untouched network as a function from pictures to its output tensors, the main one first."""
    from copy import deepcopy

    model = deepcopy(source.model).float().eval()
    if source.host == "ultralytics" and hasattr(model, "end2end"):
        with contextlib.suppress(AttributeError):
            model.end2end = end2end

    def flat(y: Any) -> list[Any]:
        if isinstance(y, dict):
            y = list(y.values())
        return [t for part in y for t in flat(part)] if isinstance(y, (tuple, list)) else [y]

    def run(x: Any) -> list[Any]:
        return [t for t in flat(model(x)) if hasattr(t, "numpy")]

    return run


def _warn_opencv(used: dict[str, int], nms: bool, half: bool, log: Callable[[str], Any]) -> None:
    from .runtime.opencv import obstacles

    for line in obstacles(used, nms=nms, half=half):
        log(f"note: {line}")


def _listed(used: dict[str, int]) -> str:
    return ", ".join(f"{n} x {name}" if n > 1 else name for name, n in used.items())


def _plain(value: Any) -> Any:
    """Make a report JSON: no NaN, no infinity, keys as text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    if isinstance(value, float) and value != value:
        return "nan"
    return value
