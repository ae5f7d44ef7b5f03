"""OpenVINO: an intermediate representation (``*_openvino_model/``) on the CPU, in the precision of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .network import Network, Options, imported, one_file, read_yaml, refused

__all__ = ["open_network"]


def open_network(path: Path, options: Options) -> Network:
    """Open a folder, or its ``.xml``.

    Raises:
        FileError: OpenVINO cannot open it.
    """
    ov = imported("openvino", "OpenVINO", "openvino")
    title = f"OpenVINO {ov.__version__.split('-')[0]}"
    file = one_file(path, "*.xml", "OpenVINO")
    # fp32 is computed as fp32: on some processors the default is bf16
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if options.threads > 0:
        config["INFERENCE_NUM_THREADS"] = options.threads
    try:
        compiled = ov.Core().compile_model(ov.Core().read_model(str(file)), "CPU", config)
    except Exception as exc:
        raise refused(path, title, "load it", exc) from exc

    def shape(port: Any) -> list[Any]:
        return [None if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            found = compiled(x)
        except Exception as exc:
            raise refused(path, title, f"run it on {list(x.shape)}", exc) from exc
        return [np.array(found[port]) for port in compiled.outputs]  # copies: the runtime uses the memory again

    return Network(
        run=run,
        metadata=read_yaml(file.parent),
        shape=shape(compiled.input(0)),
        outputs=[shape(port) for port in compiled.outputs],
        provider="CPU",
        version=ov.__version__.split("-")[0],
    )
