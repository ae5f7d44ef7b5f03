"""The options of an export, checked before a detector is opened."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ExportError, UsageError, did_you_mean
from . import proof
from .formats.base import check_installed, check_options
from .formats.table import FORMATS, named

if TYPE_CHECKING:
    from .accuracy import Accuracy

__all__ = ["Asked"]

MIN_OPSET = 11  # Resize with half-pixel coordinates, which every YOLO neck needs
MIN_OPSET_INT8 = 13  # scales per channel
MAX_OPSET = 20  # the latest of torch's TorchScript exporter; OpenCV reads no later ones either


@dataclass(frozen=True)
class Asked:
    """The options of :func:`export`, of the same names.

    `int8_from` is what `int8` was before its images were read, `accuracy` measures on `data`, and `lacking` says which
    packages are missing, where the detector may be one that `int8`, `nms` and `data` are not for: that is told first.
    """

    format: str = "onnx"
    imgsz: int | Sequence[int] | None = None
    dynamic: bool = False
    half: bool = False
    opset: int | None = None
    nms: bool = False
    simplify: bool = True
    output: str | os.PathLike[str] | None = None
    images: Any = None
    tolerance: float | None = None
    int8: Any = None
    int8_symmetric: bool = False
    normalize_boxes: bool = False
    chip: str = ""
    force: bool = False
    data: str | os.PathLike[str] | None = None
    int8_from: Any = None
    accuracy: Accuracy | None = None
    lacking: str = ""

    def measured(self) -> Asked:
        """Return them with the data set read, once for all formats.

        Raises:
            UsageError: There is nothing to measure on it.
            DataError: It cannot be used.
        """
        if self.data is None or self.accuracy is not None:
            return self
        if self.nms:
            raise UsageError("--data cannot be combined with --nms: such a file leaves out all below its threshold, and mAP counts them")
        from .accuracy import Accuracy

        return replace(self, accuracy=Accuracy(str(self.data)))

    def check_offered(self) -> None:
        """Refuse options that the format has not, whatever the detector.

        Raises:
            UsageError: The message names the option.
        """
        kind = FORMATS.get(self.format)
        given = {"--half": self.half, "--dynamic": self.dynamic, "--nms": self.nms, "--int8": self.int8 is not None, "--data": self.data is not None}
        rest = {"--opset": self.opset is not None, "--no-simplify": not self.simplify}
        if kind is not None:
            check_options(
                kind, half=self.half, int8=given["--int8"], dynamic=self.dynamic, nms=self.nms, opset=rest["--opset"], plain=rest["--no-simplify"]
            )
            if given["--data"] and not kind.runtime:
                raise UsageError(f"--format {kind.name} has no --data: its file runs on {kind.where} alone")
        if self.format == "bundle":
            wrong = " and ".join(option for option, wanted in {**given, **rest}.items() if wanted)
            if wrong:
                raise UsageError(f"--format bundle has no {wrong}: it holds the weights as they are, for PyTorch")

    def checked(self) -> Asked:
        """Return them with the images read, after checking what can be checked before a detector is opened.

        Packages come last: none makes up for an option that there is nothing for.

        Raises:
            UsageError: Options contradict each other, or the format does not have one of them.
            ExportError: A package that the format needs is missing.
            DataError: The images cannot be read.
        """
        format = named(self.format)
        _check(format, self.half, self.opset, self.nms, self.int8)
        if self.int8_symmetric and (self.int8 is None or format != "onnx"):
            raise UsageError("--int8-symmetric is a form of --int8 of ONNX, and goes with it")
        if self.normalize_boxes and (format != "onnx" or self.dynamic or self.nms):
            raise UsageError("--normalize-boxes is for ONNX, and cannot be combined with --dynamic or --nms")
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise UsageError(f"--tolerance must be a number above 0, got {self.tolerance}")
        _check_chip(format, self.chip)
        replace(self, format=format).check_offered()
        try:
            if format in FORMATS:
                check_installed(FORMATS[format])
        except ExportError as exc:
            if self.int8 is None and not self.nms and self.data is None:
                raise
            return replace(self, format=format, lacking=str(exc))
        pictures = None if self.images is None else proof.read_images(self.images)
        calibration = None if self.int8 is None else proof.read_images(self.int8, limit=300)
        return replace(self.measured(), format=format, chip=self.chip.lower(), images=pictures, int8=calibration, int8_from=self.int8)


def _check(format: str, half: bool, opset: int | None, nms: bool, int8: Any) -> None:
    """Check the options for contradictions, before anything is opened."""
    if int8 is not None and (half or nms or format in ("engine", "bundle")):
        raise UsageError("--int8 cannot be combined with --half, --nms or the formats engine and bundle")
    if opset is not None and opset < MIN_OPSET:
        raise UsageError(f"--opset {opset} is too old for a YOLO detector, which needs {MIN_OPSET} or later")
    if opset is not None and int8 is not None and opset < MIN_OPSET_INT8:
        raise UsageError(f"--opset {opset} is too old for int8, which needs {MIN_OPSET_INT8} or later")
    if opset is not None and opset > MAX_OPSET:
        raise UsageError(f"--opset {opset} is newer than torch's exporter supports: at most {MAX_OPSET}")


def _check_chip(format: str, chip: str) -> None:
    """Check that a processor is one of the format's."""
    chips = FORMATS[format].chips if format in FORMATS else ()
    if chip and not chips:
        able = ", ".join(name for name, f in FORMATS.items() if f.chips)
        raise UsageError(f"--format {format} has no --chip, only {able} has")
    if chip and chip.lower() not in chips:
        raise UsageError(f"--format {format} has no chip '{chip}', only {', '.join(chips)}.{did_you_mean(chip.lower(), chips)}")
