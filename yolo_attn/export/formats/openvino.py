"""OpenVINO's intermediate representation, ``model.xml`` and ``model.bin``; int8 by nncf."""

from __future__ import annotations

from pathlib import Path

from .base import Format, Job, Need
from .host import STEM, by_ultralytics, traced, write_metadata

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model_openvino_model/``."""
    if job.source.host == "ultralytics":
        return by_ultralytics(job, "openvino")
    import openvino as ov

    network, x = traced(job)
    folder = Path(f"{STEM}_openvino_model")
    folder.mkdir()
    model = ov.convert_model(network, input=None if job.dynamic else list(x.shape), example_input=x)
    ov.save_model(model, folder / f"{STEM}.xml", compress_to_fp16=job.half)
    write_metadata(folder, job)
    return folder


FORMAT = Format(
    "openvino",
    "OpenVINO",
    "_openvino_model",
    "openvino",
    (Need("openvino", "openvino", "2024.0"),),
    convert,
    "openvino",
    half=True,
    dynamic=True,
    parts=("*.xml", "*.bin", "metadata.yaml"),
)
