"""TorchScript, traced by PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

from .base import Format, Job
from .host import STEM, by_ultralytics, traced

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model.torchscript``."""
    if job.source.host == "ultralytics":
        return by_ultralytics(job, "torchscript")
    path = Path(f"{STEM}.torchscript")
    network, _ = traced(job)
    network.save(str(path), _extra_files={"config.txt": json.dumps(job.metadata)})
    return path


FORMAT = Format("torchscript", "TorchScript", ".torchscript", "torch", (), convert, "torchscript", dynamic=True)
