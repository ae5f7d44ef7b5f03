"""Every format by its name."""

from __future__ import annotations

from pathlib import Path

from ...errors import UsageError, did_you_mean
from . import coreml, executorch, litert, mnn, ncnn, openvino, rknn, torchscript
from .base import Format

__all__ = ["ALIASES", "FORMATS", "NAMES", "check_host", "named", "suffix_of"]

FORMATS: dict[str, Format] = {
    m.FORMAT.name: m.FORMAT for m in (openvino, ncnn, mnn, litert, executorch, rknn, coreml, torchscript)
}
# As --format lists them; the first and the last two are of the kit itself.
NAMES = ("onnx", *FORMATS, "engine", "bundle")
# Names by which users know a format.
ALIASES = {"litert": "tflite", "tensorrt": "engine", "trt": "engine", "pte": "executorch", "mlpackage": "coreml"}


def named(text: str) -> str:
    """Return the name of a format that a user named.

    Raises:
        UsageError: There is none; the message lists what there is.
    """
    name = ALIASES.get(text.lower(), text.lower())
    if name not in NAMES:
        raise UsageError(
            f"unknown export format '{text}', choose from {', '.join(NAMES)}.{did_you_mean(name, [*NAMES, *ALIASES])}"
        )
    return name


def suffix_of(name: str) -> str:
    """Return how a file or folder of a format is called behind the stem, such as `.onnx` or `_openvino_model`."""
    return FORMATS[name].suffix if name in FORMATS else f".{name}"


def check_host(name: str, path: Path, classic: bool) -> None:
    """Refuse a format that detectors of classic YOLOv5 are not converted to.

    Args:
        name: Name of the format.
        path: The checkpoint.
        classic: Whether it is of classic YOLOv5.

    Raises:
        UsageError: The message lists the formats that there are for it.
    """
    if classic and name in FORMATS and not FORMATS[name].classic:
        able = ", ".join(n for n in NAMES if n not in FORMATS or FORMATS[n].classic)
        raise UsageError(
            f"{path}: --format {name} is for detectors of ultralytics, this one is of classic YOLOv5. Export it to one of {able}."
        )
