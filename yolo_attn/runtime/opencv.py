"""Exported files that OpenCV's dnn module cannot run; tried with OpenCV 5.0 and checked by a test."""

from __future__ import annotations

__all__ = ["UNSUPPORTED", "obstacles"]

# registered name -> reason
UNSUPPORTED: dict[str, str] = {
    "BAM": "it adds a channel gate and a spatial gate of different shapes after a convolution, and OpenCV 5.0 fuses "
    "that sum into the convolution without broadcasting",
}


def obstacles(modules: dict[str, int], *, nms: bool = False, half: bool = False, int8: bool = False) -> list[str]:
    """Return one line per reason why a file will not run in OpenCV; none if it will run.

    Args:
        modules: Attention in the model, registered name to count.
        nms: The file contains NMS.
        half: The file is in fp16.
        int8: An int8 file is written as well.
    """
    lines = [f"OpenCV cannot run {name}: {UNSUPPORTED[name]}" for name in modules if name in UNSUPPORTED]
    if nms:
        lines.append("OpenCV cannot run a file that contains NMS: OpenCV 5.0 crashes the process")
    if half:
        lines.append("OpenCV cannot load fp16 files")
    if int8:
        lines.append("OpenCV cannot run the int8 file: its pooling rejects quantized inputs")
    return lines
