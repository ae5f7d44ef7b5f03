"""Which runtime opens which file, and the one way to open it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import FileError, UsageError, did_you_mean
from .network import Network, Options

__all__ = ["ELSEWHERE", "RUNTIMES", "kind_of", "open_network", "runtime_for"]


class Runtime(NamedTuple):
    """A runtime: how it is called, and how the files end that it opens (folders by their names)."""

    title: str
    suffixes: tuple[str, ...]


# The name, as in --runtime, is that of the file beside this one. The first of several for a kind is its default.
RUNTIMES = {
    "onnxruntime": Runtime("onnxruntime", (".onnx",)),
    "opencv": Runtime("OpenCV", (".onnx",)),
    "openvino": Runtime("OpenVINO", ("_openvino_model", ".xml")),
    "ncnn": Runtime("NCNN", ("_ncnn_model", ".param")),
    "mnn": Runtime("MNN", (".mnn",)),
    "litert": Runtime("LiteRT", (".tflite",)),
    "executorch": Runtime("ExecuTorch", ("_executorch_model", ".pte")),
    "rknn": Runtime("RKNN's simulator", ("_rknn_model",)),
    "torchscript": Runtime("PyTorch", (".torchscript",)),
}

# Files that no runtime here opens, and why.
ELSEWHERE = {
    ".engine": "a TensorRT engine, which runs on the GPU that it was built for: yolo predict model={path}",
    ".mlpackage": "a Core ML model, which runs on macOS and iOS: yolo predict model={path}",
    ".rknn": "compiled for Rockchip's NPU and runs on the board: yolo predict model={path}",
    ".bundle": "a bundle, weights that PyTorch runs. From it a file is made by: yolo-attn export {path} --format onnx",
    ".pt": "a checkpoint, which PyTorch runs. From it a file is made by: yolo-attn export {path} --format onnx",
}


def kind_of(path: Path) -> str:
    """Return the ending of a file's or folder's name that tells its kind, or an empty string."""
    name = path.name.lower()
    known = [*(s for r in RUNTIMES.values() for s in r.suffixes), *ELSEWHERE]
    return next((s for s in known if name.endswith(s)), "")


def runtime_for(path: Path, wanted: str = "auto") -> str:
    """Return the name of the runtime that opens a file.

    Args:
        path: The file or folder.
        wanted: A key of :data:`RUNTIMES`, or ``auto`` for the default of the file's kind.

    Raises:
        UsageError: There is no such runtime, or it does not open files of this kind.
        FileError: No such file, or none that a runtime here opens.
    """
    if wanted != "auto" and wanted not in RUNTIMES:
        raise UsageError(
            f"no runtime is called '{wanted}', only {', '.join(RUNTIMES)}.{did_you_mean(wanted, RUNTIMES)}"
        )
    if not path.exists():
        raise FileError(
            f"model not found: {path} (looked in {Path.cwd()}). It is a file or folder that yolo-attn export wrote."
        )
    kind = kind_of(path)
    if kind in ELSEWHERE:
        raise FileError(f"{path}: is {ELSEWHERE[kind].format(path=path)}")
    if not kind:
        raise FileError(
            f"{path}: is no ONNX file by its name, nor one of {_endings()}. From a checkpoint one is made by: "
            f"yolo-attn export BEST.pt"
        )
    if not path.is_dir() and kind.endswith("_model"):
        raise FileError(f"{path}: should be a folder.")
    if path.is_dir() and not kind.endswith("_model"):
        raise FileError(f"{path}: is a folder, not a file.")
    able = [name for name, runtime in RUNTIMES.items() if kind in runtime.suffixes]
    if wanted == "auto":
        return able[0]
    if wanted not in able:
        raise UsageError(f"{path}: {RUNTIMES[wanted].title} does not open such files; --runtime {' or '.join(able)} does.")
    return wanted


def _endings() -> str:
    return ", ".join(s for r in RUNTIMES.values() for s in r.suffixes if s != ".onnx")


def open_network(path: Path, runtime: str, options: Options) -> Network:
    """Open a file with a runtime, a key of :data:`RUNTIMES`.

    Raises:
        YoloAttnError: The runtime is not installed, or cannot open the file.
    """
    home = importlib.import_module(f"{__package__}.{runtime}")
    opener: Callable[[Path, Options], Network] = home.open_network
    return opener(path, options)
