"""What a report says of an exported file: where it is from, what it holds, and what wrote it."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from pathlib import Path
from typing import Any

from .._version import __version__
from ..detectors.source import Source
from ..runtime.proved import digest

__all__ = ["describe", "described", "weights_digest"]


def describe(source: Source, path: Path, attention: dict[str, int]) -> dict[str, Any]:
    """Describe an exported ONNX file: its source, content, graph and the versions of the packages used."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    meta = {p.key: p.value for p in model.metadata_props}
    return {
        **described(source, path, attention, {m.__name__: m.__version__ for m in (onnx, onnxruntime)}),
        "end2end": meta.get("end2end") == "True",
        "graph": {
            "opset": next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
            "nodes": len(model.graph.node),
            "operators": dict(Counter(n.op_type for n in model.graph.node).most_common()),
        },
    }


def described(source: Source, path: Path, attention: dict[str, int], versions: dict[str, str]) -> dict[str, Any]:
    """Describe an exported file or folder: its source, its content, and the versions of the packages used.

    Args:
        source: The network.
        path: The file; of a folder, names and contents of its files are hashed in order.
        attention: Registered name to count.
        versions: Of the converter and the runtime.
    """
    import numpy
    import torch

    known = {"yolo_attn": __version__, "python": platform.python_version(), "torch": torch.__version__}
    known["numpy"] = numpy.__version__
    if source.host == "ultralytics":
        import ultralytics

        known["ultralytics"] = ultralytics.__version__
    return {
        "path": str(path),
        "source": str(source.path),
        "host": source.host,
        "weights": weights_digest(source.model),
        **digest(path).entries(),
        "names": source.names,
        "stride": source.stride,
        "task": source.task,
        "end2end": False,
        "attention": attention,
        "versions": {**known, **versions},
    }


def weights_digest(model: Any) -> str:
    """Return the SHA-256 of a network's state dict: equal for one checkpoint, bundle or copy of it, whatever its file."""
    hashed = hashlib.sha256()
    for name, value in model.state_dict().items():
        if hasattr(value, "numpy"):
            hashed.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
