"""What cannot be exported: options that a detector or a format has nothing for, and what is known to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..detectors.source import Source
from ..errors import ExportError, FileError, UsageError
from ..registry import registry
from .asked import Asked
from .deployment import faults_of, formats_for, version_here
from .formats.base import check_options
from .formats.table import FORMATS, check_host

__all__ = ["check_known", "check_offered"]


def check_offered(source: Source, asked: Asked) -> None:
    """Refuse options that there is nothing for.

    Raises:
        UsageError: The message names the option.
        DataError: The data set is of other classes than the detector.
    """
    kind, data = FORMATS.get(asked.format), asked.accuracy
    given = {"--half": asked.half, "--dynamic": asked.dynamic, "--nms": asked.nms, "--int8": asked.int8 is not None, "--data": data is not None}
    for option in ("--nms", "--int8", "--data"):  # their result is verified by its boxes
        if source.task != "detect" and given[option]:
            raise UsageError(f"{option} is for detectors only; {source.path} is a model for '{source.task}'")
    if asked.normalize_boxes and (source.host != "ultralytics" or source.task != "detect"):
        raise UsageError(f"--normalize-boxes is for detectors of ultralytics, {source.path} is not one")
    if kind is not None:
        check_host(asked.format, source.path, source.host != "ultralytics")
        rest = {"opset": asked.opset is not None, "plain": not asked.simplify}
        check_options(kind, half=asked.half, int8=given["--int8"], dynamic=asked.dynamic, nms=asked.nms, **rest)
        if data is not None and not kind.runtime:
            raise UsageError(f"--format {kind.name} has no --data: its file runs on {kind.where} alone")
    if asked.format == "bundle":
        more = {"--opset": asked.opset is not None, "--no-simplify": not asked.simplify}
        wrong = " and ".join(option for option, wanted in {**given, **more}.items() if wanted)
        if wrong:
            raise UsageError(f"--format bundle has no {wrong}: it holds the weights as they are, for PyTorch")
    if data is not None:
        data.split(source)


def check_known(source: Source, used: dict[str, int], asked: Asked, log: Callable[[str], Any]) -> None:
    """Refuse what is known to fail with the runtime that is installed, and tell what failed with an older one.

    Raises:
        ExportError: The message has the reason, the formats that compute all of this detector's modules, and ``--force``.
    """
    kind = FORMATS.get(asked.format)
    precision = "int8" if asked.int8 is not None else "fp16" if asked.half else kind.precision if kind else "fp32"
    known = [name for name in used if (e := registry.find(name)) is None or e.owner.startswith("yolo_attn.modules.")]
    try:
        stops, notes = faults_of(known, asked.format, precision, version_here(asked.format))
    except FileError as exc:  # the proof finds what is wrong without it
        log(f"note: what is known to fail is not told beforehand: {exc}")
        return
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
