"""ExecuTorch: ``*_executorch_model/`` with a ``.pte``, on the CPU with XNNPACK."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .network import Network, Options, imported, one_file, read_yaml, refused, sized, version_of

__all__ = ["open_network"]


def open_network(path: Path, options: Options) -> Network:
    """Open a folder, or its ``.pte``. Its Python interface takes tensors of PyTorch.

    Raises:
        FileError: ExecuTorch cannot open it.
    """
    torch = imported("torch", "PyTorch", "executorch")
    runtime = imported("executorch.runtime", "ExecuTorch", "executorch")
    version = version_of("executorch")
    file = one_file(path, "*.pte", "ExecuTorch")
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
    shape = sized(entries)
    return Network(run, entries, [1, *shape[1:]], [[0, 0, 0]], "XNNPACK", version)
