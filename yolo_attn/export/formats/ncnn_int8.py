"""Int8 of NCNN, calibrated on pictures: its packages bring no tool for it, so the scales are chosen here.

A convolution in int8 rounds its input by one scale and its weights by one for each output channel, adds products in
int32, and returns fp32; bias and activation stay in fp32 (NCNN's ``src/layer/convolution.cpp``, parameter 8).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from ...errors import ExportError
from ...files import write_text
from ...runtime.engines.ncnn import load
from ..spread import MOST, Spread
from .base import Job
from .decoding import CONVOLUTIONS, Operator, decoding
from .host import STEM, calibration
from .ncnn_file import Layer, fp32_weight, int8_weight, read, write
from .ncnn_layers import LOSS, attention, blobs, losses

__all__ = ["computed", "quantize", "quantized"]

ABOUT = "about.json"  # what is in int8, and what loses most, beside the folder
MEASURED = 4  # pictures on which each layer is measured


def quantize(job: Job) -> Path:
    """Write ``model_ncnn_model/`` with the proved file's network in int8.

    In fp32 stay what decodes the boxes with the head's last convolutions, and attention: its layers are few and small, and
    a gate that is off by one step scales a whole map.

    Args:
        job: The conversion; `pictures` and `proved` are set.
    """
    assert job.proved is not None
    (file,) = job.proved.glob("*.param")
    layers, net = read(file), load(file, threads=1)
    pictures = calibration(job)
    first = list(islice(pictures, MEASURED))
    if not first:
        raise ExportError("int8 needs pictures to calibrate on")
    gates, names = attention(job, layers, net, first[0])
    weighing = {k for k, layer in enumerate(layers) if layer.kind in CONVOLUTIONS}
    chosen = {k for k in weighing if computed(layers[k])} - gates - decoding(_operators(layers))
    spreads = {layers[k].inputs[0]: Spread() for k in sorted(chosen)}
    for x in (*first, *pictures):
        for (name, spread), values in zip(spreads.items(), blobs(net, spreads, x)):
            spread.add(values, name)
    small = [quantized(layer, spreads[layer.inputs[0]].limit()) if k in chosen else layer for k, layer in enumerate(layers)]
    folder, aside = Path(f"{STEM}_ncnn_model"), Path("both.param")
    folder.mkdir()
    write(small, folder / "model.ncnn.param")
    shutil.copyfile(job.proved / "metadata.yaml", folder / "metadata.yaml")
    told = losses(layers, small, names, first, aside)
    about = {"quantized": len(chosen), "fp32": len(weighing) - len(chosen), "layers": told[:5], "layers_by": LOSS}
    write_text(Path(ABOUT), json.dumps(about), durable=False)
    return folder


def quantized(layer: Layer, limit: float) -> Layer:
    """Return a convolution in int8.

    Args:
        layer: The one in fp32.
        limit: The magnitude of its input that becomes 127; what is above is cut off.
    """
    weights, *bias = layer.weights
    depthwise = layer.kind == "ConvolutionDepthWise"
    rows = weights.values.reshape(layer.param(7, 1) if depthwise else layer.param(0), -1)
    greatest = np.abs(rows).max(axis=1, keepdims=True)
    scale = np.where(greatest > 0, _levels(layer) / np.maximum(greatest, 1e-30), 1.0)
    whole = int8_weight(np.clip(np.rint(rows * scale), -MOST, MOST))
    term = 1 if depthwise else 2  # in a depthwise convolution, 2 is one scale for all its weights
    scales = (fp32_weight(scale), fp32_weight([MOST / limit]))
    return replace(layer, params=f"{layer.params} 8={term}", weights=(whole, *bias, *scales))


def _levels(layer: Layer) -> int:
    """Return what the greatest weight becomes.

    6 bits for 3 x 3 convolutions of stride 1, as NCNN's own tool has it: its Winograd algorithm, which computes them on
    every processor, has no room for more.
    """
    sides = {layer.param(1), layer.param(11, layer.param(1))}
    steps = {layer.param(k, layer.param(j, 1)) for k, j in ((2, 2), (12, 2), (3, 3), (13, 3))}
    return 31 if layer.kind == "Convolution" and sides == {3} and steps == {1} else MOST


def computed(layer: Layer) -> bool:
    """Return whether a layer is one that NCNN computes in int8, with weights in the file.

    Grouped convolutions other than depthwise ones are left out: with packed layouts, its default on x86, NCNN 1.0.20261020
    returns memory that was never written (a reproduction is in tests/export/test_ncnn_int8.py).
    """
    if layer.kind not in CONVOLUTIONS or not layer.weights or layer.param(8):
        return False
    if layer.kind != "ConvolutionDepthWise":
        return True
    kernel = layer.param(1) * layer.param(11, layer.param(1))
    return layer.param(7, 1) == layer.param(0) and layer.param(6) == layer.param(0) * kernel


def _operators(layers: Sequence[Layer]) -> list[Operator]:
    """Return layers as what decodes is sought in."""
    number = {name: k for k, name in enumerate(name for layer in layers for name in layer.outputs)}
    return [
        Operator(
            layer.kind,
            layer.name,
            tuple(number[name] for name in layer.inputs),
            tuple(number[name] for name in layer.outputs),
            layer.param(0) if layer.kind in CONVOLUTIONS else 0,
        )
        for layer in layers
    ]
