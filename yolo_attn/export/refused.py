"""What cannot be exported of a detector: options that it has nothing for, and what is known to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..detectors.source import Source
from ..errors import ExportError, FileError, UsageError
from ..registry import registry
from .asked import Asked
from .deployment import faults_of, formats_for, installed, packages_of
from .formats.table import FORMATS, check_host

__all__ = ["check_known", "check_offered"]


def check_offered(source: Source, asked: Asked) -> None:
    """Refuse options that there is nothing for in this detector, and then packages that are missing.

    Raises:
        UsageError: The message names the option.
        ExportError: A package that the format needs is missing.
        DataError: The data set is of other classes than the detector.
    """
    given = {"--nms": asked.nms, "--int8": asked.int8 is not None, "--data": asked.data is not None}
    kind = FORMATS.get(asked.format)
    for option, wanted in given.items():  # their result is verified by its boxes
        if source.task == "detect" or not wanted or (option == "--int8" and kind is not None and kind.int8_tasks):
            continue
        able = [name for name, f in FORMATS.items() if f.int8_tasks]
        others = f". With --format {' or '.join(able)} it takes other tasks" if option == "--int8" else ""
        raise UsageError(f"{option} is for detectors only; {source.path} is a model for '{source.task}'{others}")
    if asked.normalize_boxes and (source.host != "ultralytics" or source.task != "detect"):
        raise UsageError(f"--normalize-boxes is for detectors of ultralytics, {source.path} is not one")
    check_host(asked.format, source.path, source.host != "ultralytics")
    if asked.lacking:
        raise ExportError(asked.lacking)
    if asked.accuracy is not None:
        asked.accuracy.split(source)


def check_known(source: Source, used: dict[str, int], asked: Asked, log: Callable[[str], Any]) -> None:
    """Refuse what is known to fail with the runtime that is installed, and tell what failed with an older one.

    Raises:
        ExportError: The message has the reason, the formats that compute all of this detector's modules, and ``--force``.
    """
    kind = FORMATS.get(asked.format)
    precision = "int8" if asked.int8 is not None else "fp16" if asked.half else kind.precision if kind else "fp32"
    known = [name for name in used if (e := registry.find(name)) is None or e.owner.startswith("yolo_attn.modules.")]
    try:
        stops, notes = faults_of(known, asked.format, precision, installed(packages_of(asked.format, precision)))
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
