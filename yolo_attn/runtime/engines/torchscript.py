"""TorchScript: a ``.torchscript`` file in PyTorch, on the CPU. The one runtime here that needs PyTorch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .network import Network, Options, flat, imported, refused, sized

__all__ = ["open_network", "tensors"]


def open_network(path: Path, options: Options) -> Network:
    """Open a file.

    Raises:
        FileError: PyTorch cannot open it.
    """
    torch = imported("torch", "PyTorch", "torch")
    title = f"PyTorch {torch.__version__}"
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    extra = {"config.txt": ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions would rather see another format
            net = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        entries = flat(json.loads(extra["config.txt"] or "{}"))
    except Exception as exc:
        raise refused(path, title, "load it", exc) from exc

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            with torch.inference_mode():
                return [t.float().numpy() for t in tensors(net(torch.from_numpy(np.ascontiguousarray(x))))]
        except Exception as exc:
            raise refused(path, title, f"run it on {list(x.shape)}", exc) from exc

    shape = sized(entries)
    return Network(run, entries, [1 if shape[2] else 0, *shape[1:]], [[0, 0, 0]], "CPU", torch.__version__)


def tensors(y: Any) -> list[Any]:
    """Return the tensors of a network's nested output, in order."""
    if isinstance(y, dict):
        y = list(y.values())
    return [t for part in y for t in tensors(part)] if isinstance(y, (tuple, list)) else [y]
