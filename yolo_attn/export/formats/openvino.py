"""OpenVINO's intermediate representation, ``model.xml`` and ``model.bin``; int8 by nncf."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from ...files import write_text
from ...weights.attention import attention_in
from .base import Format, Job, Need
from .host import STEM, by_ultralytics, calibration, traced, write_metadata
from .openvino_layers import LOSS, counted, losses

__all__ = ["FORMAT"]

ABOUT = "about.json"  # what is in int8, and what loses most, beside the folder
MEASURED = 4  # pictures on which each layer is measured


def convert(job: Job) -> Path:
    """Write ``model_openvino_model/``."""
    keep_quiet()
    folder = _converted(replace(job, pictures=None))
    if job.pictures is not None:
        _quantize(folder, job)
    return folder


def _quantize(folder: Path, job: Job) -> None:
    """Replace the network in a folder by its int8 version.

    In fp32 stay what decodes the boxes, the sigmoids (as in the host's own int8), and attention: its layers are few and
    small, and a gate that is off by one step scales a whole map.
    """
    import nncf
    import openvino as ov

    (file,) = folder.glob("*.xml")
    model = ov.Core().read_model(str(file))
    network = job.source.model
    wrapped = "" if job.source.host == "ultralytics" else "inner."
    head = f"__module.{wrapped}model.{len(network.model) - 1}"
    kept = [f"__module.{wrapped}{path}" for path in attention_in(network)]
    fp32 = [
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Sigmoid"
        or op.get_friendly_name().startswith((f"{head}/", f"{head}.dfl"))
        or any(op.get_friendly_name().startswith((f"{k}/", f"{k}.")) for k in kept)
    ]
    pictures = list(calibration(job))
    small = nncf.quantize(
        model,
        nncf.Dataset(pictures),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pictures),
        ignored_scope=nncf.IgnoredScope(names=fp32, validate=False),
    )
    told = losses(model, small, pictures[:MEASURED])
    write_text(Path(ABOUT), json.dumps({**counted(model, small), "layers": told[:5], "layers_by": LOSS}), durable=False)
    ready = folder / f"{STEM}_int8.xml"
    ov.save_model(small, ready, compress_to_fp16=False)
    for part in (file, file.with_suffix(".bin")):  # the file that was read stays mapped while its network is used
        part.unlink()
    for part in (ready, ready.with_suffix(".bin")):
        part.rename(folder / f"{STEM}{part.suffix}")


def _converted(job: Job) -> Path:
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


def keep_quiet() -> None:
    """Keep OpenVINO's converter and nncf from calling the maker's server, in a fork of the process for each thing they do.

    They do without the module for that where this cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # how import is told that there is none


FORMAT = Format(
    "openvino",
    "OpenVINO",
    "_openvino_model",
    "openvino",
    (Need("openvino", "openvino", "2024.0"), Need("nncf", "nncf", "2.14")),
    convert,
    "openvino",
    half=True,
    int8=True,
    dynamic=True,
    parts=("*.xml", "*.bin", "metadata.yaml"),
)
