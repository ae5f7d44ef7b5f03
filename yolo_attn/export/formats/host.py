"""Conversions by the hosts' own exporters, and the network that the kit's own conversions trace."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...detectors.source import quiet_host
from ...errors import ExportError
from ...hook.install import repair
from ...runtime.image import blob, letterbox
from ..classic import prepared
from ..one_module import plain_attention
from ..ultralytics import given_back
from .base import Job

__all__ = ["STEM", "by_ultralytics", "calibration", "traced", "write_metadata"]

STEM = "model"  # the host replaces every `.pt` of a path: a plain name in the working directory has but one


def by_ultralytics(job: Job, format: str, **options: Any) -> Path:
    """Let ultralytics' exporter convert, in the working directory; nothing is installed.

    Args:
        job: The conversion.
        format: The host's name of the format.
        options: The host's further arguments.

    Raises:
        ExportError: This version of the host does not know the format.
    """
    import ultralytics
    from ultralytics.cfg import DEFAULT_CFG_DICT
    from ultralytics.engine import exporter

    known = list(exporter.export_formats()["Argument"])
    if format not in known:
        raise ExportError(f"ultralytics {ultralytics.__version__} has no exporter for {format}. Update it: pip install -U ultralytics")
    precision: dict[str, Any] = {}
    if job.half or job.pictures is not None:
        if "quantize" in DEFAULT_CFG_DICT:  # since 8.4
            precision["quantize"] = 16 if job.half else 8
        else:
            precision["half" if job.half else "int8"] = True
    if job.opset is not None:
        options["opset"] = job.opset
    model = job.source.model
    repair()
    with warnings.catch_warnings(), plain_attention(), quiet_host(), given_back(model), _calibrated(exporter, job):
        warnings.simplefilter("ignore")  # warnings of tracer and exporter that concern the host's code
        model.pt_path = f"{STEM}.pt"
        written = job.source.handle.export(
            format=format, imgsz=list(job.size), dynamic=job.dynamic, device="cpu", **precision, **options
        )
    return Path(str(written).rstrip("/" + os.sep))


@contextlib.contextmanager
def _calibrated(exporter: Any, job: Job) -> Iterator[None]:
    """Have the host calibrate on the job's pictures, and not on a data set."""
    if job.pictures is None:
        yield
        return
    import torch

    # as the host's own loader: RGB bytes at the size of the input
    batches = [{"img": torch.from_numpy(np.round(x * 255).astype(np.uint8))} for x in calibration(job)]
    own = exporter.Exporter.get_int8_calibration_dataloader
    exporter.Exporter.get_int8_calibration_dataloader = lambda self, prefix="": batches
    try:
        yield
    finally:
        exporter.Exporter.get_int8_calibration_dataloader = own


def calibration(job: Job) -> Iterator[np.ndarray]:
    """Yield the pictures as inputs, (1, 3, H, W) float32 between 0 and 1."""
    for image in job.pictures or []:
        yield blob([letterbox(image, job.size)[0]])


def traced(job: Job) -> tuple[Any, Any]:
    """Return a classic detector as TorchScript, one output, and the input that it was traced with."""
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network, x = prepared(job.source, job.size, job.dynamic)
        return torch.jit.trace(network, x, strict=False, check_trace=False), x


def write_metadata(folder: Path, job: Job) -> None:
    """Write ``metadata.yaml`` as ultralytics does, which its `predict` and the kit's `detect` read."""
    import yaml

    from ...files import write_text

    write_text(folder / "metadata.yaml", yaml.safe_dump(job.metadata, sort_keys=False), durable=False)
