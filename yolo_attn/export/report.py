"""The report on an exported file, as JSON: what it is, and the comparison with PyTorch."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ..detectors.drawn import drawn_images
from ..detectors.source import Source
from ..errors import ExportError, FileError, YoloAttnError, first_line
from ..files import write_text
from ..runtime.child import Killed
from ..runtime.proved import digest, read_report
from ..runtime.proved import report_path as path_of
from ..system.signals import undisturbed
from . import proof
from .accuracy import Accuracy, told
from .described import describe, described

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
    "write_int8",
]


# By precision: the largest allowed difference from PyTorch, relative to the scale of the output, and the smallest
# allowed IoU of boxes. fp16 has 11 significant bits, and the rounding errors of some sixty layers add up: in the
# published YOLOv5n to 2e-2 of a score and to an IoU of 0.996, less for boxes that are a few pixels wide.
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-2}
LEAST_IOU = {"fp32": proof.MIN_IOU, "fp16": 0.95}


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report beside its file.

    Raises:
        FileError: It cannot be written.
    """
    write_text(path_of(path), json.dumps(_plain(report), indent=2) + "\n")


def proved(model: Path) -> bool:
    """Whether a file exists whose report says that it matches PyTorch."""
    told = read_report(model)
    proof = (told or {}).get("proof")
    return model.is_file() and isinstance(proof, dict) and bool(proof.get("passed"))


def write_int8(found: dict[str, Any]) -> None:
    """Write a report beside the int8 file that the report of its fp32 file tells of.

    Args:
        found: The report of the fp32 file.

    Raises:
        FileError: It cannot be written.
    """
    near = dict(found["int8"])
    path = Path(near.pop("path"))
    of_fp32 = ("path", "sha256", "bytes", "files", "precision", "graph", "seconds", "proof", "map", "int8")
    write(
        path,
        {
            "path": str(path),
            **{k: v for k, v in found.items() if k not in of_fp32},
            **digest(path).entries(),
            "precision": "int8",
            "fp32": Path(found["path"]).name,
            "measured": near,
        },
    )


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
    accuracy: Accuracy | None = None,
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
        accuracy: Measures mAP of both, which is added as ``map``.

    Raises:
        ExportError: They differ, or the file is not valid.
        Killed: The process that ran the file was ended from outside; nothing is moved.
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
            problem = _compare(opened or (lambda: _opened(path, source, report["nms"])), report, source, pictures, tolerance, accuracy)
    except proof.ReferenceFailed as exc:
        problem, verdict = str(exc), f"cannot be compared with {source.path} at every size"
    except Killed as exc:
        raise Killed(f"{target}: was not compared, and nothing was written: {exc}") from exc
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
            f"{target}: {verdict}: {problem.rstrip('.')}. {_static_works(report, tolerance)}The file was kept for inspection as "
            f"{place.name}; do not deploy it. Details are in {path_of(place)}."
        )
    log(f"verified: equal to PyTorch. {_summary(runs, largest, tolerance, source.task)}")
    for line in told(report["map"], report["precision"]) if "map" in report else ():
        log(line)
    log(f"report: {path_of(place)}")


def place_file(path: Path, place: Path, report: dict[str, Any], publish: Callable[[Path, Path], None]) -> None:
    """Move a file to its place and write its report beside it.

    Raises:
        FileError: One of them cannot be written.
    """
    report["path"] = str(place)
    with undisturbed():  # a file without its report would be one of which nothing is known
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
    opened: Opened,
    report: dict[str, Any],
    source: Source,
    pictures: list[Any],
    tolerance: float,
    accuracy: Accuracy | None,
) -> str:
    """Fill in the evidence and return the first problem, or an empty string; of a file without one, measure mAP."""
    evidence, nms = report["proof"], report["nms"]
    shapes = proof.shapes_to_try(
        tuple(report["imgsz"]), max(source.stride, 32), report["dynamic"], batch=1 if nms else 2
    )
    with opened() as (run, layout):
        network = reference(source, end2end=report["end2end"])
        limits = {"tolerance": tolerance, "least_iou": evidence["min_iou"]}
        for entry in proof.compare(network, run, pictures, shapes, layout=layout, nms=nms, **limits):
            evidence["runs"].append(entry)
        problem = _problem(evidence["runs"], tolerance)
        if accuracy is not None and not problem:
            report["map"] = accuracy.measure(run, network, layout or source.layout, source, report)
    return problem


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
    """Return the unchanged network as a function from images to the tensors that its exported file has, the main one first.

    For segmentation these are the boxes with the coefficients of their masks, and the prototypes of the masks.
    """
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
        main, *rest = [t for t in flat(model(x)) if hasattr(t, "numpy")]
        if source.task != "segment":
            return [main]
        # beside the raw maps of the levels, which stand in an order of the host's version
        return [main, max((t for t in rest if t.ndim == 4), key=lambda t: t.shape[2] * t.shape[3])]

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
