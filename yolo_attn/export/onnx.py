"""Write ONNX by the host's own exporter, finish the graph, and prove it."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._version import __version__
from ..detectors.source import Source, attention_used
from ..errors import ExportError, YoloAttnError, first_line
from ..files import publish
from ..runtime.image import round_up
from ..runtime.opencv import obstacles
from ..system.drafts import scratch
from . import graph, report
from .asked import Asked
from .one_module import plain_attention
from .target import no_room, scratch_beside

__all__ = ["count_nodes", "export_onnx", "write_onnx"]

# The same picture gives other boxes in another shape; a comparison of a checkpoint with its file has to know.
FIXED = (
    "the input has one shape, and images are padded to it. The host's predict of a checkpoint pads to a rectangle: compare "
    "with rect=False, or export with --dynamic"
)


def export_onnx(
    source: Source, asked: Asked, size: tuple[int, int], target: Path, used: dict[str, int], log: Callable[[str], Any]
) -> dict[str, Any]:
    """Write and prove ONNX, and return its report.

    Args:
        source: The detector; it is left as it was.
        asked: The options.
        size: Height and width of the input, in pixels.
        target: The place of the file.
        used: Attention in it, registered name to count.
        log: Called with each line of progress.

    Raises:
        ExportError: The export failed, or the file differs from PyTorch.
        FileError: The file cannot be written.
    """
    dynamic, half, nms, opset = asked.dynamic, asked.half, asked.nms, asked.opset
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
    with scratch_beside(target) as folder:
        draft = folder / target.name
        try:
            write_onnx(source, draft, size, dynamic, half, opset, nms, asked.simplify, asked.normalize_boxes)
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
            f"onnx: {target} ({found['bytes'] / 1e6:.1f} MB, opset {graph['opset']}, {graph['nodes']} nodes, "
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
            target=target,
            failed=report.failed_name(target, ".onnx"),
            accuracy=asked.accuracy,
        )
    return found


def write_onnx(
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

    # on the same file system, so that moving the file is atomic
    with scratch_beside(target) as folder:
        try:
            draft = folder / target.name
            with warnings.catch_warnings(), plain_attention():
                warnings.simplefilter("ignore")  # warnings of tracer and exporter that concern the host's code
                if source.host == "ultralytics":
                    from .ultralytics import write_onnx as by_host
                else:
                    from .classic import write_onnx as by_host
                by_host(source, draft, size, dynamic, opset, nms, simplify)
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
            told = f"{type(exc).__name__}: {first_line(exc)[:400]}"
            raise ExportError(f"{source.path}: the export failed: {told}{no_room(folder)}") from exc


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
        write_onnx(source, file, size)
        return len(onnx.load(str(file)).graph.node)


def _exports_static(source: Source, size: tuple[int, int], *how: Any) -> bool:
    """Whether a model whose export with dynamic shapes failed can be exported for one size."""
    try:
        with scratch() as folder:
            write_onnx(source, folder / "static.onnx", size, False, *how)
    except YoloAttnError:
        return False
    return True
