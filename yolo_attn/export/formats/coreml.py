"""Core ML's ``model.mlpackage``: converted anywhere but on Windows, run by macOS and iOS alone."""

from __future__ import annotations

from pathlib import Path

from .base import Format, Job, Need
from .host import by_ultralytics

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model.mlpackage``."""
    return by_ultralytics(job, "coreml")


FORMAT = Format(
    "coreml",
    "Core ML",
    ".mlpackage",
    "coreml",
    (Need("coremltools", "coremltools", "8.0"),),
    convert,
    half=True,
    classic=False,
    parts=("Manifest.json", "Data"),
    where="macOS or iOS",
)
