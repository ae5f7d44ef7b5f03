"""MNN: a ``.mnn`` file on the CPU, in fp32."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError
from .network import Network, Options, cores, flat, imported, refused, sized, version_of

__all__ = ["open_network"]


def open_network(path: Path, options: Options) -> Network:
    """Open a file.

    Raises:
        FileError: MNN cannot open it.
    """
    with _silent():  # what it prints of the processor is no result of a command
        return _open(path, options)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Send what native code prints to nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _open(path: Path, options: Options) -> Network:
    mnn = imported("MNN", "MNN", "mnn")
    title = f"MNN {version_of('MNN')}"
    # high: fp32 is computed as fp32
    config: dict[str, Any] = {"precision": "high", "backend": "CPU", "numThread": options.threads or cores()}
    try:
        manager = mnn.nn.create_runtime_manager((config,))
        net = mnn.nn.load_module_from_file(str(path), [], [], runtime_manager=manager, rearrange=True)
        info = net.get_info()
    except Exception as exc:
        raise refused(path, title, "load it", exc) from exc
    try:
        entries = flat(json.loads(info.get("bizCode") or "{}"))
    except (ValueError, AttributeError) as exc:
        raise FileError(f"{path}: its metadata is damaged.") from exc
    shape = sized(entries)

    def run(x: np.ndarray) -> list[np.ndarray]:
        x = np.ascontiguousarray(x, np.float32)
        try:
            found = net.forward([mnn.expr.const(x.ctypes.data, list(x.shape), mnn.expr.NCHW)])
        except Exception as exc:
            raise refused(path, title, f"run it on {list(x.shape)}", exc) from exc
        if not found:
            raise FileError(f"{path}: {title} cannot run it on {list(x.shape)}.")
        return [np.array(mnn.expr.convert(v, mnn.expr.NCHW).read()) for v in found]

    batch = 0 if shape[2] == 0 else 1
    return Network(run, entries, [batch, *shape[1:]], [[0, 0, 0]], "CPU", version_of("MNN"))
