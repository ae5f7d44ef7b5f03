"""MNN's ``model.mnn``, converted from ONNX; its int8 is of the weights alone."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

from ...errors import ExportError
from .base import Format, Job, Need
from .host import STEM, by_ultralytics

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model.mnn``."""
    keep_quiet()
    if job.source.host == "ultralytics":
        return by_ultralytics(job, "mnn")
    from MNN.tools import mnnconvert

    from ..classic import write_onnx

    graph, path = Path(f"{STEM}.onnx"), Path(f"{STEM}.mnn")
    write_onnx(job.source, graph, job.size, job.dynamic, job.opset, False, True)
    told = ["", "-f", "ONNX", "--modelFile", str(graph), "--MNNModel", str(path), "--bizCode", json.dumps(job.metadata)]
    told += ["--fp16"] if job.half else ["--weightQuantBits", "8"] if job.pictures is not None else []
    mnnconvert.convert(told)
    if not path.is_file():
        raise ExportError("MNN's converter reported success and wrote nothing")
    return path


def keep_quiet() -> None:
    """Keep MNN's converter from what its Python wrapper does when it is imported: run pip, and call the maker's server.

    It does without the module for that where this cannot be imported.
    """
    sys.modules.setdefault("MNN.tools.utils.log", types.ModuleType("MNN.tools.utils.log"))


FORMAT = Format(
    "mnn", "MNN", ".mnn", "mnn", (Need("MNN", "MNN", "2.9.6"),), convert, "mnn", half=True, int8=True, dynamic=True,
    onnx=True, weights_only=True,
)
