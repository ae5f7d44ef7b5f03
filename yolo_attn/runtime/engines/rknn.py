"""RKNN's simulator: computes on the CPU what Rockchip's NPU computes, in fp16 or int8.

A ``.rknn`` file runs on the board alone. The simulator compiles the network beside it again, with the same settings.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError
from .network import Network, Options, imported, one_file, read_yaml, refused, sized, version_of

__all__ = ["DISABLED", "RANGES", "open_network", "settings", "simulated"]

# Of an int8 network: its fp32 weights, the ranges of its maps, and which maps are in int8 by these ranges.
RANGES = (".model", ".data", ".quantization.cfg")
DISABLED = ("fuse_mul_into_matmul",)


def settings(chip: str) -> dict[str, Any]:
    """Return the compiler's settings: bytes as input, which the network divides by 255.

    One of its rules is off: 2.3.2 multiplies the weights of a matrix product by the constant behind it, whatever the
    constant's shape, and fails on FcaNet's, which has one for each channel.
    """
    return {"mean_values": [[0, 0, 0]], "std_values": [[255, 255, 255]], "target_platform": chip, "disable_rules": [*DISABLED]}


def open_network(path: Path, options: Options) -> Network:
    """Open a folder that ``yolo-attn export --format rknn`` wrote.

    Raises:
        FileError: The compiler or the simulator cannot take it.
    """
    quantized = path.is_dir() and any(path.glob(f"*{RANGES[0]}"))
    if path.is_dir() and not quantized and not any(path.glob("*.onnx")):
        raise FileError(
            f"{path}: is compiled for Rockchip's NPU and runs on the board. The simulator needs the ONNX file that "
            f"yolo-attn export puts beside it."
        )
    compiled = one_file(path, "*.rknn", "RKNN")
    parts = [one_file(path, f"*{ending}", "RKNN").resolve() for ending in (RANGES if quantized else (".onnx",))]
    entries = read_yaml(path if path.is_dir() else path.parent)
    chip = re.sub(r".*-", "", compiled.stem)
    run = simulated(path, parts, chip)
    shape = sized(entries)
    return Network(run, entries, [1, *shape[1:]], [[0, 0, 0]], f"simulator of {chip}", version_of("rknn-toolkit2"))


def simulated(path: Path, parts: Sequence[Path], chip: str) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a network as the simulator computes it, a function from (1, 3, H, W) to its outputs.

    Args:
        path: What it is called in messages.
        parts: An ONNX file, or the three of :data:`RANGES`.
        chip: The processor.

    Raises:
        FileError: The compiler or the simulator cannot take it.
    """
    api = imported("rknn.api", "RKNN's toolkit", "rknn")
    title = f"RKNN's simulator {version_of('rknn-toolkit2')}"
    net = api.RKNN(verbose=False)
    steps: dict[str, Callable[[], Any]] = {"config": lambda: net.config(**settings(chip))}
    if len(parts) > 1:
        keys = ("model_input", "data_input", "model_quantization_cfg")
        steps["compile"] = lambda: net.hybrid_quantization_step2(**dict(zip(keys, map(str, parts))))
    else:
        steps["load"] = lambda: net.load_onnx(model=str(parts[0]))
        steps["compile"] = lambda: net.build(do_quantization=False)
    steps["start"] = lambda: net.init_runtime()
    for doing, step in steps.items():
        try:
            with _elsewhere():
                code = step()
        except (Exception, SystemExit) as exc:  # the toolkit ends the process where others raise
            raise refused(path, title, f"{doing} it", exc) from exc
        if code not in (0, None):
            raise FileError(f"{path}: {title} cannot {doing} it: code {code}.")

    def run(x: np.ndarray) -> list[np.ndarray]:
        pixels = np.round(x * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        found = None
        with contextlib.suppress(SystemExit):
            found = net.inference(inputs=[np.ascontiguousarray(pixels)], data_format=["nhwc"])
        if not found:
            raise FileError(f"{path}: {title} cannot run it on {list(x.shape)}.")
        return [np.asarray(y) for y in found]

    return run


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Work in a temporary folder: the compiler leaves drafts of a network that it fails on where it is called."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
