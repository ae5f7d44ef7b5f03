"""NCNN's ``.param`` and ``.bin``: read, changed, and written again, byte for byte where nothing was changed.

The ``.param`` is text: after a number that tells the version, and the numbers of layers and blobs, a layer a line:

    Convolution  conv_10  1 1  in0 1  0=16 1=6 11=6 5=1 6=1728

its kind and name, how many blobs it takes and makes, these blobs, and parameters by number. The ``.bin`` holds the
weights in the order of the layers, and nothing that tells where one ends: how many there are, and of what size, each kind
of layer works out of its parameters. NCNN itself is asked here: its layers ask a reader for one array after another. So a
file with whatever layers the installed NCNN has is read exactly.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ExportError
from ...files import read_text, write_bytes, write_text

__all__ = ["Layer", "Weight", "fp32_weight", "int8_weight", "read", "write"]

MAGIC = "7767517"
FP32, RAW, FP16, INT8 = 0, 0x0002C056, 0x01306B47, 0x000D4B38  # what an array of a tagged kind begins with


@dataclass(frozen=True)
class Weight:
    """An array of a layer: the bytes of the file, with tag and padding, and what they stand for, float32 and flat."""

    raw: bytes
    values: np.ndarray


@dataclass(frozen=True)
class Layer:
    """A layer: its kind, its name (pnnx gives some twice), the blobs that it takes and makes, its parameters as text, its arrays."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: str = ""
    weights: tuple[Weight, ...] = ()

    def param(self, number: int, default: int = 0) -> int:
        """Return a parameter that is a whole number."""
        found = re.search(rf"(?:^|\s){number}=(-?\d+)(?=\s|$)", self.params)
        return int(found[1]) if found else default

    def line(self) -> str:
        """Return the layer's line."""
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        return " ".join(filter(None, [f"{self.kind:<24} {self.name:<24} {counts}", *self.inputs, *self.outputs, self.params]))


def fp32_weight(values: Any) -> Weight:
    """Return an array without a tag, as biases and scales are stored."""
    flat = np.ascontiguousarray(values, "<f4").ravel()
    return Weight(flat.tobytes(), flat)


def int8_weight(values: np.ndarray) -> Weight:
    """Return a tagged array of whole numbers between -127 and 127."""
    data = np.ascontiguousarray(values, np.int8).ravel()
    return Weight(struct.pack("<I", INT8) + data.tobytes() + bytes(-data.size % 4), data.astype(np.float32))


def read(file: Path) -> list[Layer]:
    """Read a ``.param`` and the ``.bin`` beside it.

    Raises:
        ExportError: A line does not parse, NCNN lacks a layer, or the ``.bin`` holds less or more than the layers take.
    """
    lines = read_text(file, ExportError).splitlines()
    try:
        if lines[0].strip() != MAGIC:
            raise ValueError(f"begins with {lines[0]!r}")
        layers = [_parsed(line) for line in lines[2:] if line.strip()]
    except (ValueError, IndexError) as exc:
        raise ExportError(f"{file.name}: is no network of NCNN's: {exc}") from exc
    data = file.with_suffix(".bin").read_bytes()
    found = [replace(layer, weights=tuple(w)) for layer, w in zip(layers, _weights(file, layers, data))]
    left = len(data) - sum(len(w.raw) for layer in found for w in layer.weights)
    if left:
        raise ExportError(f"{file.name}: {left} bytes of {file.with_suffix('.bin').name} belong to none of its layers")
    return found


def write(layers: Sequence[Layer], file: Path) -> Path:
    """Write a ``.param``, and the ``.bin`` beside it; return the former."""
    blobs = len({name for layer in layers for name in layer.outputs})
    write_text(file, "\n".join([MAGIC, f"{len(layers)} {blobs}", *(layer.line() for layer in layers), ""]), durable=False)
    write_bytes(file.with_suffix(".bin"), b"".join(w.raw for layer in layers for w in layer.weights), durable=False)
    return file


def _parsed(line: str) -> Layer:
    kind, name, taken, made, *rest = line.split()
    a, b = int(taken), int(taken) + int(made)
    if len(rest) < b:
        raise ValueError(f"{name} has {len(rest)} of {b} blobs")
    return Layer(kind, name, tuple(rest[:a]), tuple(rest[a:b]), " ".join(rest[b:]))


def _weights(file: Path, layers: Sequence[Layer], data: bytes) -> Iterable[list[Weight]]:
    """Yield the arrays of each layer, as NCNN's own layers ask for them."""
    import ncnn

    class Reader(ncnn.ModelBin):  # type: ignore[misc]
        """What NCNN's layers read from: the bytes from `at` on."""

        def __init__(self) -> None:
            super().__init__()
            self.at = 0
            self.found: list[Weight] = []

        def load(self, count: int, kind: int) -> Any:
            """Return the next `count` numbers, tagged where `kind` is 0; called by NCNN."""
            weight = _next(data, self.at, count, tagged=kind == 0)
            self.at += len(weight.raw)
            self.found.append(weight)
            return ncnn.Mat(weight.values)

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    if net.load_param(str(file)) != 0:
        raise ExportError(f"{file.name}: NCNN cannot read it: it is damaged, or has a layer that this version lacks")
    reader = Reader()
    for layer, own in zip(layers, net.layers()):
        reader.found = []
        try:
            code = own.load_model(reader)
        except ValueError as exc:
            raise ExportError(f"{file.with_suffix('.bin').name}: at {layer.kind} {layer.name}: {exc}") from exc
        if code != 0:
            raise ExportError(f"{file.with_suffix('.bin').name}: NCNN cannot take the weights of {layer.kind} {layer.name}")
        yield reader.found


def _next(data: bytes, at: int, count: int, tagged: bool) -> Weight:
    """Return the array that begins at a byte."""
    tag, begin = RAW, at
    if tagged:
        if len(data) < at + 4:
            raise ValueError("it ends too early")
        (tag,), begin = struct.unpack_from("<I", data, at), at + 4
    stored = {FP32: "<f4", RAW: "<f4", FP16: "<f2", INT8: "<i1"}.get(tag)
    if stored is None:
        raise ValueError(f"weights in a form that is not known, 0x{tag:08X}")
    size = count * np.dtype(stored).itemsize
    end = begin + size + -size % 4
    if end > len(data):
        raise ValueError("it ends too early")
    return Weight(data[at:end], np.frombuffer(data, stored, count, begin).astype(np.float32))
