"""LiteRT (TensorFlow Lite): a ``.tflite`` file on the CPU with XNNPACK."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ...errors import FileError, first_line
from .network import Network, Options, flat, imported, pixels, refused, version_of

__all__ = ["open_network"]


def open_network(path: Path, options: Options) -> Network:
    """Open a file; boxes, which the host's exporter divides by the image size, are given in pixels.

    Raises:
        FileError: LiteRT cannot open it.
    """
    interpreter = imported("ai_edge_litert.interpreter", "LiteRT", "litert")
    version = version_of("ai-edge-litert")
    try:
        net = interpreter.Interpreter(str(path), num_threads=options.threads or None)
        net.allocate_tensors()
    except Exception as exc:
        raise refused(path, f"LiteRT {version}", "load it", exc) from exc
    entries = _metadata(path)
    taken, given = net.get_input_details()[0], net.get_output_details()
    shape = [int(v) for v in taken["shape"]]
    if taken["dtype"] != np.float32 or len(shape) != 4 or shape[1] != 3 or len(net.get_input_details()) != 1:
        raise FileError(f"{path}: its input is {shape} {np.dtype(taken['dtype'])}, not [1, 3, H, W] float32: another exporter's.")
    fractions = _fractions(entries)

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            net.set_tensor(taken["index"], x)
            net.invoke()
        except Exception as exc:
            raise refused(path, f"LiteRT {version}", f"run it on {list(x.shape)}", exc) from exc
        found = [net.get_tensor(o["index"]) for o in given]
        found.sort(key=lambda y: y.ndim == 4)  # prototypes of masks behind the boxes
        return pixels(found, (x.shape[2], x.shape[3]), entries) if fractions else found

    return Network(run, entries, shape, [[int(v) for v in o["shape"]] for o in given], "CPU", version)


def _metadata(path: Path) -> dict[str, str]:
    """Return the entry that the hosts append to the file, which stays readable as a zip.

    Raises:
        FileError: There is none, or it is damaged; whether boxes are pixels or fractions is then unknown.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return flat(json.loads(file.read("metadata.json")))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, AttributeError, NotImplementedError) as exc:
        raise FileError(
            f"{path}: metadata.json at its end is missing or damaged ({first_line(exc)[:100]}), which tells names and whether "
            "boxes are pixels. Export it again: yolo-attn export ... --format tflite"
        ) from exc


def _fractions(entries: dict[str, str]) -> bool:
    """Whether boxes are fractions of the image size, as the host's exporter writes them for these tasks."""
    task, ended = entries.get("task"), entries.get("end2end") == "True"
    return task in ("detect", "segment", "pose", "obb") and not ended and entries.get("boxes") != "pixels"
