"""Rockchip's ``model-CHIP.rknn``, compiled by rknn-toolkit2; in fp16, which its NPUs compute in."""

from __future__ import annotations

import os
from pathlib import Path

from .base import Format, Job, Need
from .host import STEM, by_ultralytics

__all__ = ["CHIP", "FORMAT"]

CHIP = "rk3588"


def convert(job: Job) -> Path:
    """Write ``model_rknn_model/``, with the ONNX file that it was compiled from: the simulator compiles that again."""
    folder = by_ultralytics(job, "rknn", name=job.chip or CHIP)
    os.replace(f"{STEM}.onnx", folder / f"{STEM}.onnx")
    return folder


FORMAT = Format(
    "rknn",
    "RKNN",
    "_rknn_model",
    "rknn",
    (Need("rknn", "rknn-toolkit2", "2.3.2", "2.5"), Need("onnx", "onnx", "", "1.19"), Need("setuptools", "setuptools", "", "82")),
    convert,
    "rknn",
    onnx=True,
    precision="fp16",
    classic=False,
    parts=("*.rknn", "*.onnx", "metadata.yaml"),
)
