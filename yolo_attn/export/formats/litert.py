"""LiteRT's ``model.tflite``, converted by litert-torch; fp16 and int8 by ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..classic import prepared
from .base import Format, Job, Need
from .host import STEM, by_ultralytics
from .litert_file import add_about
from .litert_half import halve
from .litert_int8 import losses, quantize

__all__ = ["FORMAT"]

POWER_RANK = 4  # most dimensions that LiteRT's operator for powers takes


def convert(job: Job) -> Path:
    """Write ``model.tflite``, or ``model_int8.tflite``.

    Boxes of ultralytics' detectors are fractions of the image size, those of classic YOLOv5 are pixels: what decodes them
    stays in fp32 in int8 files too, where the host's own recipe has one scale for boxes and scores.
    """
    if job.pictures is not None:
        return quantize(job)
    full = replace(job, half=False)
    with powers_of_any_rank():
        path = by_ultralytics(full, "litert") if job.source.host == "ultralytics" else by_the_kit(full)
    return halve(path) if job.half else path


def by_the_kit(job: Job) -> Path:
    """Convert a detector of classic YOLOv5, whose own exporter goes through TensorFlow and knows the host's layers alone."""
    import litert_torch
    import torch

    path = Path(f"{STEM}.tflite")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network, x = prepared(job.source, job.size, False)
        litert_torch.convert(network, (x,)).export(path)
    add_about(path, {**job.metadata, "boxes": "pixels"})
    return path


@contextlib.contextmanager
def powers_of_any_rank() -> Iterator[None]:
    """Have powers of five dimensions and more converted in another form, for the same numbers.

    The converter stops at them ("failed to legalize operation 'tfl.pow'"). Detectors of classic YOLOv5 have one in the
    decoding of their boxes, `(wh * 2) ** 2` of (B, anchors, H, W, 2).
    """
    import torch
    from litert_torch.fx_infra import decomp

    power = torch.ops.aten.pow.Tensor_Scalar

    def flat(x: Any, exponent: Any) -> Any:
        if x.dim() <= POWER_RANK:
            return NotImplemented  # it is converted as it is
        return x * x if exponent == 2 else power(x.flatten(), exponent).reshape(x.shape)

    tables = decomp._pre_convert_decomp, decomp._pre_lower_decomp
    before = [table.get(power) for table in tables]
    decomp.add_pre_convert_decomp(power, flat)
    try:
        yield
    finally:
        for table, own in zip(tables, before):
            table.pop(power)
            if own is not None:
                table[power] = own


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
    half=True,
    int8=True,
    losses=losses,
)
