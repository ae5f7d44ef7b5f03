"""RKNN's simulator: computes on the CPU what Rockchip's NPU computes, in fp16.

A ``.rknn`` file runs on the board alone. The simulator compiles the ONNX file beside it again, with the same settings.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np

from ...errors import FileError
from .network import Network, Options, imported, one_file, read_yaml, refused, sized, version_of

__all__ = ["open_network"]


def open_network(path: Path, options: Options) -> Network:
    """Open a folder that ``yolo-attn export --format rknn`` wrote.

    Raises:
        FileError: The compiler or the simulator cannot take it.
    """
    if path.is_dir() and not any(path.glob("*.onnx")):
        raise FileError(
            f"{path}: is compiled for Rockchip's NPU and runs on the board. The simulator needs the ONNX file that "
            f"yolo-attn export puts beside it."
        )
    graph, compiled = one_file(path, "*.onnx", "RKNN"), one_file(path, "*.rknn", "RKNN")
    api = imported("rknn.api", "RKNN's toolkit", "rknn")
    version = version_of("rknn-toolkit2")
    title = f"RKNN's simulator {version}"
    chip = re.sub(r".*-", "", compiled.stem)
    net = api.RKNN(verbose=False)
    steps = {
        "config": lambda: net.config(mean_values=[[0, 0, 0]], std_values=[[255, 255, 255]], target_platform=chip),
        "load": lambda: net.load_onnx(model=str(graph)),
        "compile": lambda: net.build(do_quantization=False),
        "start": lambda: net.init_runtime(),
    }
    for doing, step in steps.items():
        try:
            code = step()
        except (Exception, SystemExit) as exc:  # the toolkit ends the process where others raise
            raise refused(path, title, f"{doing} it", exc) from exc
        if code not in (0, None):
            raise FileError(f"{path}: {title} cannot {doing} it: code {code}.")
    entries = read_yaml(path if path.is_dir() else path.parent)

    def run(x: np.ndarray) -> list[np.ndarray]:
        pixels = np.round(x * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        found = None
        with contextlib.suppress(SystemExit):
            found = net.inference(inputs=[np.ascontiguousarray(pixels)], data_format=["nhwc"])
        if not found:
            raise FileError(f"{path}: {title} cannot run it on {list(x.shape)}.")
        return [np.asarray(y) for y in found]

    shape = sized(entries)
    return Network(run, entries, [1, *shape[1:]], [[0, 0, 0]], f"simulator of {chip}", version)
