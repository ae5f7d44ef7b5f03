"""ExecuTorch's ``model.pte``, lowered to XNNPACK."""

from __future__ import annotations

from pathlib import Path

from .base import Format, Job, Need
from .host import by_ultralytics

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model_executorch_model/``."""
    return by_ultralytics(job, "executorch")


FORMAT = Format(
    "executorch",
    "ExecuTorch",
    "_executorch_model",
    "executorch",
    (Need("executorch", "executorch", "1.0"),),
    convert,
    "executorch",
    classic=False,
    parts=("*.pte", "metadata.yaml"),
)
