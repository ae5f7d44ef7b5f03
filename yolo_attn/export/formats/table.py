"""Every format by its name."""

from __future__ import annotations

from ...errors import UsageError, did_you_mean
from . import coreml, executorch, litert, mnn, ncnn, openvino, rknn, torchscript
from .base import Format

__all__ = ["ALIASES", "FORMATS", "NAMES", "named", "suffix_of"]

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
