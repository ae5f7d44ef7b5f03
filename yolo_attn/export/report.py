"""The report on an exported file, as JSON: what it is, and the comparison with PyTorch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from .._version import __version__
from ..detectors.drawn import drawn_images
from ..detectors.source import Source
from ..errors import ExportError, FileError, YoloAttnError, first_line
from ..files import read_text, write_text
from . import proof

if TYPE_CHECKING:
    # opens a file: yields a function from a batch to its outputs, and the layout of a detector's output
    Opened = Callable[[], contextlib.AbstractContextManager[tuple[Callable[[Any], list[Any]], str | None]]]

__all__ = [
    "LEAST_IOU",
    "TOLERANCES",
    "describe",
    "described",
    "failed_name",
    "path_of",
    "place_file",
    "prove",
    "proved",
    "write",
]


# By precision: the largest allowed difference from PyTorch, relative to the scale of the output, and the smallest
# allowed IoU of boxes. fp16 has 11 significant bits, and the rounding errors of some sixty layers add up: in the
# published YOLOv5n to 2e-2 of a score and to an IoU of 0.996, less for boxes that are a few pixels wide.
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-2}
LEAST_IOU = {"fp32": proof.MIN_IOU, "fp16": 0.95}


def path_of(model: Path) -> Path:
    """Return the path of a file's report, such as `best.onnx.json`."""
    return model.with_name(model.name + ".json")


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report beside its file.

    Raises:
        FileError: It cannot be written.
    """
    write_text(path_of(path), json.dumps(_plain(report), indent=2) + "\n")


def proved(model: Path) -> bool:
    """Whether a file exists whose report says that it matches PyTorch."""
    try:
        told = json.loads(read_text(path_of(model), ExportError))
        return model.is_file() and bool(told["proof"]["passed"])
    except (YoloAttnError, ValueError, KeyError, TypeError):
        return False


def describe(source: Source, path: Path, attention: dict[str, int]) -> dict[str, Any]:
    """Describe an exported ONNX file: its source, content, graph and the versions of the packages used."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    meta = {p.key: p.value for p in model.metadata_props}
    return {
        **described(source, path, attention, {m.__name__: m.__version__ for m in (onnx, onnxruntime)}),
        "end2end": meta.get("end2end") == "True",
        "graph": {
            "opset": next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
            "nodes": len(model.graph.node),
            "operators": dict(Counter(n.op_type for n in model.graph.node).most_common()),
        },
    }


def described(source: Source, path: Path, attention: dict[str, int], versions: dict[str, str]) -> dict[str, Any]:
    """Describe an exported file or folder: its source, its content, and the versions of the packages used.

    Args:
        source: The network.
        path: The file; of a folder, names and contents of its files are hashed in order.
        attention: Registered name to count.
        versions: Of the converter and the runtime.
    """
    import numpy
    import torch

    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    hashed = hashlib.sha256()
    for file in files:
        if file != path:
            hashed.update(f"{file.relative_to(path).as_posix()}\n".encode())
        hashed.update(file.read_bytes())
    known = {"yolo_attn": __version__, "python": platform.python_version(), "torch": torch.__version__}
    known["numpy"] = numpy.__version__
    if source.host == "ultralytics":
        import ultralytics

        known["ultralytics"] = ultralytics.__version__
    return {
        "path": str(path),
        "source": str(source.path),
        "host": source.host,
        "sha256": hashed.hexdigest(),
        "bytes": sum(file.stat().st_size for file in files),
        "names": source.names,
        "stride": source.stride,
        "task": source.task,
        "end2end": False,
        "attention": attention,
        "versions": {**known, **versions},
    }


def prove(
    path: Path,
    report: dict[str, Any],
    source: Source,
    *,
    images: Any,
    tolerance: float,
    log: Callable[[str], Any],
    publish: Callable[[Path, Path], None],
    target: Path,
    failed: Path,
    opened: Opened | None = None,
) -> None:
    """Compare an exported file with its source network, move it to its place, and write the report beside it.

    A file that differs is moved to another place, under a name that says so; an earlier one stays as it is. When the
    comparison is interrupted, nothing is moved.

    Args:
        path: The file, still in a temporary folder.
        report: The result of :func:`describe`, with ``imgsz``, ``dynamic``, ``nms`` and ``precision``; ``proof`` is added.
        source: The network.
        images: A list of BGR images; generated ones when absent.
        tolerance: Largest difference, relative to the scale of the output.
        log: Called with the result.
        publish: Moves a file to its place.
        target: The place of a file that equals PyTorch.
        failed: The place of one that does not.
        opened: Opens the file: yields a function from a batch to its outputs, and the layout of a detector's output;
            when absent, `path` is ONNX.

    Raises:
        ExportError: They differ, or the file is not valid.
        FileError: The file cannot be moved to its place.
    """
    began = time.perf_counter()
    pictures = drawn_images(2) if images is None else images
    evidence: dict[str, Any] = {
        "images": "drawn" if images is None else len(pictures),
        "tolerance": tolerance,
        "min_iou": LEAST_IOU[report["precision"]],
        "checker": "",
        "runs": [],
        "passed": False,
    }
    report["proof"] = evidence
    problem, verdict = "", f"does not match {source.path}"
    try:
        if opened is None:
            problem = _check(path, evidence)
        if not problem:
            problem = _compare(opened or (lambda: _opened(path, source, report["nms"])), report, source, pictures, tolerance)
    except proof.ReferenceFailed as exc:
        problem, verdict = str(exc), f"cannot be compared with {source.path} at every size"
    except YoloAttnError as exc:
        problem = str(exc)
    except Exception as exc:  # onnxruntime's errors share no base class
        problem = f"{type(exc).__name__}: {first_line(exc)}"
    problem = problem.replace(str(path), target.name)
    runs = evidence["runs"]
    largest = max((v for r in runs for v in r["difference"].values()), default=None)
    evidence.update(largest_difference=largest, passed=not problem)
    if problem:
        evidence["problem"] = problem
    report["seconds"]["proof"] = round(time.perf_counter() - began, 2)
    place = failed if problem else target
    place_file(path, place, report, publish)
    if problem:
        raise ExportError(
            f"{target}: {verdict}: {problem}. {_static_works(report, tolerance)}The file was kept for inspection as "
            f"{place.name}; do not deploy it. Details are in {path_of(place)}."
        )
    log(f"verified: equal to PyTorch. {_summary(runs, largest, tolerance, source.task)}")
    log(f"report: {path_of(place)}")


def place_file(path: Path, place: Path, report: dict[str, Any], publish: Callable[[Path, Path], None]) -> None:
    """Move a file to its place and write its report beside it.

    Raises:
        FileError: One of them cannot be written.
    """
    report["path"] = str(place)
    try:
        path_of(place).unlink(missing_ok=True)  # of the file that is being replaced
        publish(path, place)
    except OSError as exc:
        raise FileError(f"{place}: cannot be written: {exc.strerror or exc}") from exc
    write(place, report)


def failed_name(target: Path, suffix: str) -> Path:
    """Return the name under which a file is kept that differs from PyTorch, such as `best_failed.onnx`."""
    return target.with_name(f"{target.name[: -len(suffix)]}_failed{suffix}")


def _check(path: Path, evidence: dict[str, Any]) -> str:
    """Check that a file is valid ONNX; return what is wrong with it, or an empty string."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as exc:
        evidence["checker"] = str(exc).strip().splitlines()[0]
        return f"onnx.checker: {evidence['checker']}"
    evidence["checker"] = "passed"
    return ""


def _compare(
    opened: Opened, report: dict[str, Any], source: Source, pictures: list[Any], tolerance: float
) -> str:
    """Fill in the evidence and return the first problem, or an empty string."""
    evidence, nms = report["proof"], report["nms"]
    shapes = proof.shapes_to_try(
        tuple(report["imgsz"]), max(source.stride, 32), report["dynamic"], batch=1 if nms else 2
    )
    with opened() as (run, layout):
        network = reference(source, end2end=report["end2end"])
        limits = {"tolerance": tolerance, "least_iou": evidence["min_iou"]}
        for entry in proof.compare(network, run, pictures, shapes, layout=layout, nms=nms, **limits):
            evidence["runs"].append(entry)
    return _problem(evidence["runs"], tolerance)


@contextlib.contextmanager
def _opened(path: Path, source: Source, nms: bool) -> Iterator[tuple[Callable[[Any], list[Any]], str | None]]:
    """Open an ONNX file in this process."""
    from ..runtime.session import Detector

    if source.task == "detect":
        detector = Detector(path)
        yield lambda x: [detector(x)], source.layout if nms else detector.layout or source.layout
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    yield lambda x: session.run(None, {name: x}), None


def reference(source: Source, end2end: bool) -> Callable[[Any], list[Any]]:
    """Return the unchanged network as a function from images to its output tensors, the main one first."""
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


def _static_works(report: dict[str, Any], tolerance: float) -> str:
    """Return the remedy if a file with dynamic shapes is right at the shape of its export alone, else an empty string."""
    own = [1, 3, *report["imgsz"]]
    there = [r for r in report["proof"]["runs"] if r["shape"] == own]
    if not report["dynamic"] or not there or _problem(there, tolerance):
        return ""
    return f"At {'x'.join(map(str, own))} it equals PyTorch: export without --dynamic for that size. "


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


def _summary(runs: list[dict[str, Any]], largest: float | None, tolerance: float, task: str) -> str:
    parts = []
    if largest is not None:
        parts.append(f"Largest difference {largest:.1e} of the output's scale ({tolerance:.0e} is allowed)")
    if task == "detect":
        found, ties = (sum(r["detections"][k] for r in runs) for k in ("compared", "ties"))
        worst = min((r["detections"]["min_iou"] for r in runs), default=1.0)
        parts.append(
            f"{found} detections match, IoU >= {worst:.4f}{f' ({ties} ties in score)' if ties else ''}"
            if found
            else "neither detected anything"
        )
    shapes = dict.fromkeys("x".join(map(str, r["shape"])) for r in runs)
    return f"{'; '.join(parts)}; at {', '.join(shapes)}"


def _plain(value: Any) -> Any:
    """Convert a report to valid JSON: no NaN, no infinity, string keys."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
