"""An int8 file beside a proved one: calibrated on pictures, and measured against it by its own runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import FileError, YoloAttnError
from ...evaluation.runs import maps
from ...files import read_text
from ...runtime.child import Apart
from ...system.drafts import scratch
from .. import report
from ..int8 import LOST, images_of, where
from . import npu
from .apart import convert_apart
from .base import Format, Job
from .int8_tasks import Opened, agreement_of, told
from .write import converted, move, placed

__all__ = ["add_int8"]

CHECKED = 16  # images on which detections are compared


def add_int8(
    format: Format, job: Job, target: Path, found: dict[str, Any], labelled: Any, log: Callable[[str], Any]
) -> Path:
    """Write the int8 file beside `target`, tell how near it comes, and add that to the report; return its path.

    Args:
        format: The format.
        job: What to convert, with the pictures to calibrate on.
        target: The file in fp32, or what the format has for it, proved.
        found: Its report, which is written again.
        labelled: Images with labels, on which both files' mAP is measured, or None.
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
    job = replace(job, proved=target.absolute())
    with scratch(target.parent) as folder:
        made = converted(format, job, folder)
        size = format.bytes_of(made)
        with Apart(target, format.runtime) as first, Apart(made, format.runtime) as second:
            near: dict[str, Any] = {
                **agreement_of(job.source, layout, first, second, pictures[:CHECKED], job.size),
                "calibrated_on": 0 if format.weights_only else len(pictures),
                "bytes": size,
            }
            if labelled is not None:
                runs = {k: Opened(net, layout, len(job.source.names)) for k, net in ((exact, first), ("int8", second))}
                near["map"] = {**maps(runs, labelled, job.size), **images_of(labelled)}
        about = folder / "work" / "about.json"  # of converters that tell how many operators are in int8
        near.update(json.loads(read_text(about, FileError)) if about.is_file() else {})
        if format.losses is not None and loses(near, exact):
            log("int8: it loses more than it should; each layer is tried alone in int8, some seconds for each")
            near["layers"] = _layers(format, job, folder, log)
        if format.chips:
            near["npu"] = placed(format, job, folder)
        report.path_of(place).unlink(missing_ok=True)  # of the file that is being replaced
        move(format, made, place)
    found["int8"] = {"path": str(place), **near}
    report.write(target, found)
    how = "weights alone, without calibration" if format.weights_only else f"calibrated on {len(pictures)} images"
    if "quantized" in near:
        how += f", {near['quantized']} operators in int8, {near['fp32']} in fp32"
    log(f"int8: {place} ({size / 1e6:.1f} MB, {how}). {told(near, exact)}")
    if format.chips:
        log(f"int8: {npu.told(near['npu'], found['attention'])}")
    if job.source.task != "detect":
        log("int8: its accuracy was not measured, which this does of detectors: measure it before using it")
    elif "map" not in near:
        log("int8: no labels of its classes beside these images: measure its mAP before using it")
    else:
        a, b = (near["map"][k]["mAP50-95"] or 0.0 for k in (exact, "int8"))
        log(f"int8: mAP50-95 {b:.3f}, {exact} {a:.3f}, {where(near['map'])}")
        if a - b > LOST:
            log(f"int8: {lost(format.name, exact)}")
    if near.get("layers") and loses(near, exact):
        most = ", ".join(f"{row['layer']} ({row['type']}, {row['error']:.3f})" for row in near["layers"][:3])
        how_measured = near.get("layers_by", f"alone in int8 (1 less the mean IoU with the boxes of {exact})")
        log(f"int8: what loses most, {how_measured}: {most}")
    return place


def loses(near: dict[str, Any], exact: str) -> bool:
    """Return whether an int8 file loses more mAP than :data:`LOST`, or, without labels, a tenth of the detections, or of the first classes."""
    if "compared" in near:
        return bool(near["same_first"] < 0.9 * near["compared"])
    if "map" not in near:
        return bool(near["same_iou_0.9"] < 0.9 * near["found"])
    full, small = (near["map"][k]["mAP50-95"] or 0.0 for k in (exact, "int8"))
    return bool(full - small > LOST)


def _layers(format: Format, job: Job, folder: Path, log: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Return the five layers that lose most, measured in a process of its own, as every conversion; none where that fails."""
    place, measure = folder / "layers", format.losses
    assert measure is not None
    place.mkdir()
    work = (folder / "work").absolute()
    try:
        made = convert_apart(measure, place, f"{format.title}'s quantizer", job, work)
    except YoloAttnError as exc:  # the file itself is made and measured
        log(f"int8: which layers lose most is not known: {exc}")
        return []
    return list(json.loads(read_text(made, FileError)))[:5]


def lost(name: str, exact: str = "fp32") -> str:
    """Return what to tell where int8 loses more than :data:`LOST`: what is known of the cause, and what to do.

    Args:
        name: The format.
        exact: The precision of the file that it is compared with.
    """
    known = {
        "rknn": "Attention, box decoding and, in classic YOLOv5, the rows that the head reads are in fp16, all other layers in int8",
        "tflite": "Attention, box decoding and the convolutions before it are in fp32, all other layers in int8",
        "ncnn": "Attention, box decoding and the convolutions before it are in fp32, all other convolutions in int8",
        "openvino": "Attention and box decoding are in fp32, all other layers in int8",
        "mnn": "The weights of every layer are in int8, what is computed is not",
    }
    remedies = ["calibrate on more images"] if name != "mnn" else []
    remedies += ["compare with --format openvino, whose attention and box decoding stay in fp32"] if name != "openvino" else []
    return f"it loses more than {LOST}: keep the {exact} file, or {' or '.join(remedies)}. {known[name]}"
