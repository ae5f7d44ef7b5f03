"""NCNN's ``model.ncnn.param`` and ``model.ncnn.bin``, converted by pnnx; int8 by the kit."""

from __future__ import annotations

from pathlib import Path

from ...errors import ExportError
from .base import Format, Job, Need
from .host import STEM, by_ultralytics, write_metadata
from .ncnn_int8 import quantize

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model_ncnn_model/``.

    Raises:
        ExportError: pnnx, a program that is launched here, was ended or crashed; nobody looks at its return code.
    """
    if job.pictures is not None:
        return quantize(job)
    try:
        return _converted(job)
    except FileNotFoundError as exc:
        if not str(exc.filename).endswith(("_pnnx.py", "/m.py")):  # what it writes, and its package imports
            raise
        raise ExportError("pnnx crashed, or was ended, as when memory runs out: it wrote no network") from exc


def _converted(job: Job) -> Path:
    if job.source.host == "ultralytics":
        folder = by_ultralytics(job, "ncnn")
        (folder / "model_ncnn.py").unlink(missing_ok=True)  # a sample with the paths of the temporary folder
        return folder
    import pnnx

    from ..classic import prepared

    network, x = prepared(job.source, job.size, job.dynamic)
    folder, aside = Path(f"{STEM}_ncnn_model"), Path("pnnx")
    folder.mkdir()
    aside.mkdir()
    kept = {"ncnnparam": "model.ncnn.param", "ncnnbin": "model.ncnn.bin"}
    left = {"ncnnpy": "n.py", "ptpath": "m.pt", "pnnxparam": "m.param", "pnnxbin": "m.bin", "pnnxpy": "m.py", "pnnxonnx": "m.onnx"}
    paths = {k: (folder / v).as_posix() for k, v in kept.items()} | {k: (aside / v).as_posix() for k, v in left.items()}
    pnnx.export(network, inputs=x, fp16=job.half, device="cpu", **paths)
    write_metadata(folder, job)
    return folder


FORMAT = Format(
    "ncnn",
    "NCNN",
    "_ncnn_model",
    "ncnn",
    (Need("ncnn", "ncnn"), Need("pnnx", "pnnx")),
    convert,
    "ncnn",
    half=True,
    int8=True,
    int8_tasks=True,
    parts=("*.param", "*.bin", "*.py", "metadata.yaml"),
)
