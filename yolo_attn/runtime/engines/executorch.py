"""ExecuTorch: ``*_executorch_model/`` with a ``.pte``, on the CPU with XNNPACK."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError
from .network import Network, Options, imported, one_file, read_yaml, refused, sized, version_of

__all__ = ["open_network"]

OPEN: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()  # what runs on the pool of threads, one for the process


def open_network(path: Path, options: Options) -> Network:
    """Open a folder, or its ``.pte``. Its Python interface takes tensors of PyTorch.

    Raises:
        FileError: ExecuTorch cannot open it.
        UsageError: A file is open with another number of threads.
    """
    torch = imported("torch", "PyTorch", "executorch")
    runtime = imported("executorch.runtime", "ExecuTorch", "executorch")
    version = version_of("executorch")
    file = one_file(path, "*.pte", "ExecuTorch")
    if options.threads > 0:
        _set_threads(path, options.threads)
    try:
        program = runtime.Runtime.get().load_program(str(file))
        method = program.load_method("forward")
    except Exception as exc:
        raise refused(path, f"ExecuTorch {version}", "load it", exc) from exc
    entries = read_yaml(file.parent)

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            found = method.execute([torch.from_numpy(np.ascontiguousarray(x, np.float32))])
        except Exception as exc:
            raise refused(path, f"ExecuTorch {version}", f"run it on {list(x.shape)}", exc) from exc
        return [np.array(t.float().numpy()) for t in found]  # copies: the runtime uses the memory again

    # the program lives as long as the method
    run.program = program  # type: ignore[attr-defined]
    OPEN.add(run)
    shape = sized(entries)
    return Network(run, entries, [1, *shape[1:]], [[0, 0, 0]], "XNNPACK", version)


def _set_threads(path: Path, threads: int) -> None:
    """Have as many threads in the pool, which a network keeps as it was when it was loaded."""
    pool = imported("executorch.extension.pybindings.portable_lib", "ExecuTorch", "executorch")
    count, reset = (getattr(pool, name, None) for name in ("_threadpool_get_thread_count", "_unsafe_reset_threadpool"))
    if count is None or reset is None:
        raise UsageError(f"{path}: this version of ExecuTorch cannot be told a number of threads. Leave --threads out")
    if count() == threads:
        return
    if OPEN:
        told = f"ExecuTorch runs another file on {count()} threads, and has one number for all"
        raise UsageError(f"{path}: {told}. Open it with that number, or in another process")
    reset(threads)
