"""What OpenCV's dnn cannot run of what the kit exports; tried with OpenCV 5.0 and held true by a test."""

from __future__ import annotations

__all__ = ["UNSUPPORTED", "obstacles"]

# registered name -> what stands in the way
UNSUPPORTED: dict[str, str] = {
    "BAM": "it adds a channel gate and a spatial gate of different shapes behind a convolution, and OpenCV 5.0 fuses "
    "that sum into the convolution without broadcasting",
}


def obstacles(modules: dict[str, int], *, nms: bool = False, half: bool = False, int8: bool = False) -> list[str]:
    """Return one line for each thing that keeps a file from running in OpenCV; none where it will run.

    Args:
        modules: Attention used, registered name to count.
        nms: NMS is inside the file.
        half: It is in fp16.
        int8: An int8 file is made as well.
    """
    lines = [f"OpenCV cannot run {name}: {UNSUPPORTED[name]}" for name in modules if name in UNSUPPORTED]
    if nms:
        lines.append("OpenCV cannot run a file with NMS inside: OpenCV 5.0 ends the process")
    if half:
        lines.append("OpenCV cannot load fp16 files")
    if int8:
        lines.append("OpenCV cannot run the int8 file: its pooling refuses what the quantized layers give")
    return lines
