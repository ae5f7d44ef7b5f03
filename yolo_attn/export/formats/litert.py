"""LiteRT's ``model.tflite``, converted by litert-torch; int8 by ai-edge-quantizer."""

from __future__ import annotations

from pathlib import Path

from .base import Format, Job, Need
from .host import by_ultralytics
from .litert_int8 import losses, quantize

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model.tflite``, or ``model_int8.tflite``. Its boxes are fractions of the image size."""
    return by_ultralytics(job, "litert") if job.pictures is None else quantize(job)


FORMAT = Format(
    "tflite",
    "LiteRT",
    ".tflite",
    "litert",
    (
        Need("litert_torch", "litert-torch", "0.10"),
        Need("ai_edge_litert", "ai-edge-litert", "2.3"),
        Need("ai_edge_quantizer", "ai-edge-quantizer", "0.10"),
    ),
    convert,
    "litert",
    int8=True,
    losses=losses,
    classic=False,
)
