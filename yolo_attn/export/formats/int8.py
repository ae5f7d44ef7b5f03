"""An int8 file beside a proved one: calibrated on pictures, and measured against it by its own runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...files import scratch
from ...runtime.child import Apart
from .. import report
from ..int8 import LOST, agreement, labelled_images, maps
from . import npu
from .base import Format, Job
from .write import converted, move, placed

__all__ = ["add_int8"]

CHECKED = 16  # images on which detections are compared


class _Opened:
    """A file in a process of its own, as what compares detectors wants it."""

    def __init__(self, network: Apart, layout: str) -> None:
        self.network = network
        self.layout: str | None = layout

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the main output."""
        return self.network(x)[0]


def add_int8(
    format: Format, job: Job, target: Path, found: dict[str, Any], asked: Any, log: Callable[[str], Any]
) -> Path:
    """Write the int8 file beside `target`, tell how near it comes, and add that to the report; return its path.

    Args:
        format: The format.
        job: What to convert, with the pictures to calibrate on.
        target: The file in fp32, or what the format has for it, proved.
        found: Its report, which is written again.
        asked: Where the pictures are from; with labels beside them, both files' mAP is measured.
        log: Called with each line of progress.

    Raises:
        ExportError: The conversion failed.
    """
    place = target.with_name(f"{target.name[: -len(format.suffix)]}_int8{format.suffix}")
    pictures = job.pictures or []
    layout = "final" if found["end2end"] else job.source.layout
    exact = found["precision"]
    if not format.weights_only:
        log(f"int8: calibrating on {len(pictures)} images")
    with scratch(target.parent) as folder:
        made = converted(format, job, folder)
        size = format.bytes_of(made)
        with Apart(target, format.runtime) as first, Apart(made, format.runtime) as second:
            full, small = _Opened(first, layout), _Opened(second, layout)
            near: dict[str, Any] = {
                **agreement(full, small, pictures[:CHECKED], job.size),
                "calibrated_on": 0 if format.weights_only else len(pictures),
                "bytes": size,
            }
            labelled = labelled_images(asked, job.source)
            if labelled is not None:
                both = maps(full, small, labelled, job.size)
                near["map"] = {exact: both["fp32"], "int8": both["int8"], "images": len(labelled.files)}
        if format.chips:
            near["npu"] = placed(format, job, folder)
        report.path_of(place).unlink(missing_ok=True)  # of the file that is being replaced
        move(format, made, place)
    found["int8"] = {"path": str(place), **near}
    report.write(target, found)
    how = "weights alone, without calibration" if format.weights_only else f"calibrated on {len(pictures)} images"
    log(
        f"int8: {place} ({size / 1e6:.1f} MB, {how}). Of {near['found']} detections of the "
        f"{exact} file it finds {near['same_iou_0.9']} with IoU >= 0.9 and {near['same_iou_0.5']} with IoU >= 0.5, and "
        f"{near['extra']} others"
    )
    if format.chips:
        log(f"int8: {npu.told(near['npu'], found['attention'])}")
    if "map" not in near:
        log("int8: no labels beside these images: measure its mAP before using it")
    else:
        a, b = (near["map"][k]["mAP50-95"] or 0.0 for k in (exact, "int8"))
        log(f"int8: mAP50-95 {b:.3f}, {exact} {a:.3f}, on the {near['map']['images']} labelled images among them")
        if a - b > LOST:
            log(f"int8: {lost(format.name, format.title, exact)}")
    return place


def lost(name: str, title: str, exact: str = "fp32") -> str:
    """Return what to tell where int8 loses more than :data:`LOST` of a file in precision `exact`: what is known, what to do."""
    known = {
        "rknn": "Attention and box decoding are in fp16, all other layers in int8",
        "tflite": "The host's converter quantizes every layer, attention and box decoding among them",
        "openvino": "Attention and box decoding are in fp32, all other layers in int8",
        "mnn": "The weights of every layer are in int8, what is computed is not",
    }
    remedies = ["calibrate on more images"] if name != "mnn" else []
    remedies += ["compare with --format openvino, whose attention and box decoding stay in fp32"] if name != "openvino" else []
    return (
        f"it loses more than {LOST}: keep the {exact} file, or {' or '.join(remedies)}. {known[name]}; which of them loses it "
        f"is not measured in {title}. --format onnx --int8 names the layers that lose most there"
    )
