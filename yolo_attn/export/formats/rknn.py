"""Rockchip's ``model-CHIP.rknn``, compiled by rknn-toolkit2: in fp16, or in int8 with box decoding and attention in fp16."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import ExportError, FileError
from ...files import read_text, write_bytes, write_text
from ...runtime.engines.rknn import DISABLED, RANGES, settings
from ...runtime.image import letterbox
from ...weights.attention import attention_in
from ..graph import decode_nodes, pool_means, scale_apart, split_grams, within
from ..one_module import plain_attention
from .base import Format, Job, Need
from .host import STEM, by_ultralytics, calibration, write_metadata
from .rknn_layers import losses
from .rknn_ranges import set_ranges

__all__ = ["CHIPS", "FORMAT", "talking"]

# The first is the default. rv1103 and rv1106 compute int8 alone, so that a network in fp16 cannot be proved for them.
CHIPS = ("rk3588", "rk3576", "rk3568", "rk3566", "rk3562", "rk2118", "rv1126b")
NONE_CHOSEN = "custom_quantize_layers: {}"
OPSET = 19  # the latest that rknn-toolkit2 reads


def convert(job: Job) -> Path:
    """Write ``model_rknn_model/``, with what the simulator compiles it from again: the ONNX file, or that of int8."""
    if (job.opset or 0) > OPSET:
        raise ExportError(f"rknn-toolkit2 reads opsets up to {OPSET}, and {job.opset} was asked for. Choose another with --opset")
    file = Path(f"{STEM}.onnx")
    with talking():
        if job.source.host == "ultralytics":
            folder = by_ultralytics(replace(job, pictures=None), "rknn", name=job.chip or CHIPS[0])
        else:
            folder = _of_classic(file, job)
        if job.pictures is None:
            os.replace(file, folder / file.name)
        else:
            _quantize(folder, file, job)
    return folder


def _of_classic(file: Path, job: Job) -> Path:
    """Write a classic detector as ONNX, and what ultralytics' exporter makes of its own; return the folder."""
    from rknn import api

    from ..classic import write_onnx

    with plain_attention():
        write_onnx(job.source, file, job.size, False, job.opset, False, True)
    folder = Path(f"{STEM}_rknn_model")
    folder.mkdir()
    write_metadata(folder, job)
    if job.pictures is None:
        chip = job.chip or CHIPS[0]
        net = api.RKNN()
        _check(net.config(**settings(chip)), "be configured")
        _check(net.load_onnx(model=str(file)), "load the ONNX file")
        _check(net.build(do_quantization=False), "compile it")
        _check(net.export_rknn(str(folder / f"{STEM}-{chip}.rknn")), "write the network")
    return folder


@contextlib.contextmanager
def talking() -> Iterator[None]:
    """Have the compiler print where it places each operator, and take the host's graph in operators that it can place."""
    from rknn import api

    own: Any = api.RKNN

    class Talking(own):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(**{**options, "verbose": True})

        def config(self, **options: Any) -> Any:
            return super().config(**{**options, "disable_rules": [*DISABLED]})

        def load_onnx(self, model: str, **options: Any) -> Any:
            import onnx

            graph = onnx.load(model)
            if pool_means(graph) + split_grams(graph) + scale_apart(graph):
                onnx.save(graph, model)
            return super().load_onnx(model=model, **options)

    api.RKNN = Talking
    try:
        yield
    finally:
        api.RKNN = own


def _quantize(folder: Path, file: Path, job: Job) -> None:
    """Replace the compiled network in a folder by its int8 version, and add what the simulator needs for it.

    In fp16 stay what decodes the boxes, whose single scale for boxes and scores would round all scores to zero, and
    attention: its layers are few and small, and a gate that is off by one step scales a whole map.
    """
    import cv2
    import onnx
    import yaml
    from rknn import api

    chip = job.chip or CHIPS[0]
    listed = []
    for k, image in enumerate(job.pictures or []):
        path = Path(f"{k}.png")  # the list is split at spaces, which the folder may have; it is read beside these
        write_bytes(path, cv2.imencode(".png", letterbox(image, job.size)[0])[1].tobytes(), durable=False)
        listed.append(f"{path}\n")
    write_text(Path("pictures.txt"), "".join(listed), durable=False)
    net = api.RKNN()
    _check(net.config(**settings(chip)), "be configured")
    _check(net.load_onnx(model=str(file)), "load the ONNX file")
    _check(net.hybrid_quantization_step1(dataset="pictures.txt", proposal=False), "calibrate")
    net.release()
    network, ranges, choice = (Path(f"{STEM}{ending}") for ending in RANGES)
    # a classic head has boxes and scores in one map, which would share a scale; that of ultralytics has them apart
    head = job.source.host != "ultralytics"
    kept = [*attention_in(job.source.model), *(read_rows(job.source.model) if head else ())]
    text = _chosen(network, read_text(choice, FileError), kept, head)
    told = yaml.safe_load(text)
    set_ranges(told["quantize_parameters"], onnx.load(str(network)), file, calibration(job))
    write_text(choice, yaml.safe_dump(told, sort_keys=False), durable=False)
    net = api.RKNN()
    _check(net.config(**settings(chip)), "be configured")
    files = {"model_input": str(network), "data_input": str(ranges), "model_quantization_cfg": str(choice)}
    _check(net.hybrid_quantization_step2(**files), "quantize")
    _check(net.export_rknn(str(folder / f"{STEM}-{chip}.rknn")), "write the network")
    for part in (network, ranges, choice):
        shutil.copyfile(part, folder / part.name)  # which layers lose most is measured with them, where they lie now


def read_rows(network: Any) -> list[str]:
    """Return the rows that a detector's head reads, by their place in the state dict."""
    head = network.model[-1]
    rows = [head.f] if isinstance(head.f, int) else head.f
    return [f"model.{row % head.i if row < 0 else row}" for row in rows]


def _chosen(network: Path, told: str, layers: list[str], head: bool = False) -> str:
    """Return the compiler's list of ranges with the maps chosen that stay in fp16: of these layers; `head`: also what is decoded."""
    import onnx
    import yaml

    if not told.startswith(NONE_CHOSEN):
        raise ExportError(f"rknn-toolkit2 lists ranges in a form that is not known here: {told[:60]!r}")
    graph = onnx.load(str(network))
    decoding = set(decode_nodes(graph))
    read = {name for n in graph.graph.node if n.name in decoding and head for name in n.input}
    kept = [n for n in graph.graph.node if n.name in decoding or read.intersection(n.output) or within(n.name, layers)]
    known = yaml.safe_load(told)["quantize_parameters"]
    names = [o for n in kept for o in n.output if known.get(o, {}).get("dtype") == "int8"]
    return yaml.safe_dump({"custom_quantize_layers": dict.fromkeys(names, "float16")}) + told[len(NONE_CHOSEN) :].lstrip()


def _check(code: Any, doing: str) -> None:
    if code not in (0, None):
        raise ExportError(f"rknn-toolkit2 cannot {doing}: code {code}")


FORMAT = Format(
    "rknn",
    "RKNN",
    "_rknn_model",
    "rknn",
    (
        Need("rknn", "rknn-toolkit2", "2.3.2", "2.5"),
        Need("onnx", "onnx", "", "1.19"),
        Need("numpy", "numpy", "", "2.4"),  # from then on an array of one number is none, and softmax is not fused
        Need("setuptools", "setuptools", "", "82"),
    ),
    convert,
    "rknn",
    int8=True,
    losses=losses,
    onnx=True,
    precision="fp16",
    chips=CHIPS,
    parts=("*.rknn", "*.onnx", *(f"*{ending}" for ending in RANGES), "metadata.yaml"),
    deployed="*.rknn",
)
