"""NCNN: ``*_ncnn_model/`` with a ``.param`` and a ``.bin``, on the CPU, in fp32."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError
from .network import Network, Options, cores, imported, one_file, read_yaml, sized, version_of

__all__ = ["load", "open_network"]


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Let NCNN's idle threads sleep, as those of the other runtimes do; it reads this once, when it is loaded.

    They would otherwise spin at the end of each layer: beside other load, ten times slower than one thread.
    """
    name = "OMP_WAIT_POLICY"
    before = os.environ.get(name)
    os.environ.setdefault(name, "PASSIVE")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def load(file: Path, threads: int) -> Any:
    """Return the ``ncnn.Net`` of a ``.param`` and the ``.bin`` beside it, on the CPU, in fp32 where it is not in int8.

    Raises:
        FileError: NCNN cannot load it; the message names the part.
    """
    with _patient():
        ncnn = imported("ncnn", "NCNN", "ncnn")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    # fp32 is computed as fp32: on ARM the defaults store and add in fp16
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.opt.num_threads = threads
    for found, part in ((net.load_param, file), (net.load_model, file.with_suffix(".bin"))):
        if not part.is_file() or found(str(part)) != 0:
            raise FileError(f"{part.name} is missing, damaged, or has an operator that it lacks.")
    return net


def open_network(path: Path, options: Options) -> Network:
    """Open a folder, or its ``.param``.

    Raises:
        FileError: NCNN cannot open it.
    """
    with _patient():
        ncnn = imported("ncnn", "NCNN", "ncnn")
    version = version_of("ncnn")
    file = one_file(path, "*.param", "NCNN")
    try:
        net = load(file, options.threads or cores())
    except FileError as exc:
        raise FileError(f"{path}: NCNN {version} cannot load it: {exc}") from exc
    entries = read_yaml(file.parent)
    shape = sized(entries)
    if not all(shape[2:]):  # NCNN computes another size without a word, and wrongly: its anchors are those of one size
        raise FileError(f"{path}: its metadata.yaml is missing, or does not tell the input size (imgsz), the only one that it is right at.")
    inputs, outputs = list(net.input_names()), sorted(net.output_names())  # pnnx numbers them

    def run(x: np.ndarray) -> list[np.ndarray]:
        rows = []
        for image in np.ascontiguousarray(x, np.float32):  # NCNN knows no batch
            with net.create_extractor() as extractor:
                extractor.input(inputs[0], ncnn.Mat(image))
                row = []
                for name in outputs:
                    code, value = extractor.extract(name)
                    if code != 0:
                        raise FileError(f"{path}: NCNN {version} cannot run it on {list(x.shape)}: {name} was not computed.")
                    row.append(np.array(value))
                rows.append(row)
        return [np.stack(values) for values in zip(*rows)]

    if len(inputs) != 1 or not outputs:
        raise FileError(f"{path}: is not a detector: it has {len(inputs)} inputs and {len(outputs)} outputs.")
    return Network(run, entries, shape, [[0, 0, 0] for _ in outputs], "CPU", version)
