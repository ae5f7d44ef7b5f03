"""Which layers of an NCNN file are which layers of the network, and what int8 loses in each.

pnnx numbers its layers and tells nothing of the modules that they were traced from; it also merges them. What tells them
apart is what they compute: a module and a blob with the same numbers on the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...detectors.source import quiet_host
from ...errors import ExportError
from ...runtime.engines.ncnn import load
from ...weights.attention import attention_in
from ..int8_layers import shares
from .base import Job
from .decoding import CONVOLUTIONS
from .ncnn_file import Layer, write

__all__ = ["LOSS", "attention", "blobs", "losses", "paths"]

LOSS = "the int8 convolution beside the fp32 one on the same input, relative to its output"
SAME = 1e-3  # largest difference of what is taken for the same numbers, relative to the greatest
Computed = dict[str, tuple[list[np.ndarray], list[np.ndarray]]]  # by path: what a module took, and what it made


def blobs(net: Any, names: Iterable[str], x: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blobs of a network, of each its array without the batch, for one input (1, 3, H, W).

    Raises:
        ExportError: One was not computed.
    """
    import ncnn

    with net.create_extractor() as extractor:
        extractor.set_light_mode(False)  # which forgets each blob when it has been taken
        extractor.input(net.input_names()[0], ncnn.Mat(np.ascontiguousarray(x[0], np.float32)))
        for name in names:
            code, value = extractor.extract(name)
            if code != 0:
                raise ExportError(f"NCNN could not compute the blob {name}")
            yield np.array(value)


def attention(job: Job, layers: Sequence[Layer], net: Any, x: np.ndarray) -> tuple[set[int], dict[int, tuple[str, str]]]:
    """Return which layers are attention's, by number, and of the convolutions their modules' paths and classes.

    Args:
        job: The conversion.
        layers: The file's.
        net: The file, loaded.
        x: An input, (1, 3, H, W).

    Raises:
        ExportError: What an attention layer takes or makes is no blob of the file.
    """
    computed = _computed(job, x)
    values = dict(zip(made := [name for layer in layers for name in layer.outputs], blobs(net, made, x)))
    by_size: dict[int, list[str]] = {}
    for name in made:
        by_size.setdefault(values[name].size, []).append(name)

    def equal(wanted: np.ndarray) -> list[str]:
        return [name for name in by_size.get(wanted.size, []) if _same(values[name].ravel(), wanted)]

    root = _roots(layers)
    maker = {name: k for k, layer in enumerate(layers) for name in layer.outputs}
    kept: set[int] = set()
    for path, kind in attention_in(job.source.model).items():
        given, result = computed.get(path, ([], []))
        ends = [found for found in map(equal, result) if found]
        begins = [found for found in map(equal, given) if found]
        if not given or len(ends) < len(result) or len(begins) < len(given):
            raise ExportError(f"{kind} at {path} was not found in NCNN's file: int8 cannot leave it in fp32")
        # what a gate of 1 returns is what it was given: from the last blob of these numbers to the first
        stop = {root[found[0]] for found in begins}
        todo = [maker[root[found[-1]]] for found in ends]
        while todo:
            k = todo.pop()
            if k not in kept:
                kept.add(k)
                todo += [maker[name] for name in layers[k].inputs if root[name] not in stop]
    return kept, paths(job, layers, computed, equal)


def paths(job: Job, layers: Sequence[Layer], computed: Computed, equal: Any) -> dict[int, tuple[str, str]]:
    """Return the path and the class of the module that each convolution belongs to, by the convolution's number.

    Of several with the same numbers it is the innermost that is no part of torch: the host's ``Conv``, and not the block
    that ends in it, nor its activation. Where none is found, NCNN's name and kind.
    """
    takers = {name: layer for layer in layers for name in layer.inputs}
    of: dict[str, list[str]] = {}
    for path, (_, results) in computed.items():
        for name in equal(results[0]) if len(results) == 1 else ():
            of.setdefault(name, []).append(path)
    found = {}
    for k, layer in enumerate(layers):
        if layer.kind in CONVOLUTIONS:
            after = takers.get(layer.outputs[0])
            ends = [layer.outputs[0], *(after.outputs if after is not None and len(after.inputs) == 1 else ())]
            known = [(p, type(job.source.model.get_submodule(p))) for name in ends for p in of.get(name, ())]
            known.sort(key=lambda row: (row[1].__module__.startswith("torch."), -row[0].count(".")))
            found[k] = (known[0][0], known[0][1].__name__) if known else (layer.name, layer.kind)
    return found


def losses(
    full: Sequence[Layer], small: Sequence[Layer], names: dict[int, tuple[str, str]], inputs: Sequence[np.ndarray], aside: Path
) -> list[dict[str, Any]]:
    """Return the convolutions of an int8 file that add most to the error, worst first.

    As :func:`yolo_attn.export.int8_layers.losses` for ONNX: beside each int8 convolution, the fp32 one is run on the
    input that it has there, before that input is rounded, so that what earlier layers lost is no part of the figure.

    Args:
        full: The layers of the fp32 file.
        small: Those of the int8 file, in the same order.
        names: By the number of a convolution, the path and the class of its module.
        inputs: Inputs, (1, 3, H, W) each.
        aside: The ``.param`` to write both into.

    Returns:
        ``layer``, the module's path, its ``type``, and ``error``, the root mean square of the difference relative to that
        of the output.
    """
    both: list[Layer] = []
    pairs: list[tuple[int, str, str]] = []
    for k, (exact, rounded) in enumerate(zip(full, small)):
        if exact.params == rounded.params:
            both.append(exact)
            continue
        taken, made = exact.inputs[0], exact.outputs[0]
        copies = (f"{taken}/rounded", f"{taken}/exact")
        both.append(Layer("Split", f"both_{k}", (taken,), copies))  # a blob has one taker
        both.append(replace(rounded, inputs=copies[:1]))
        both.append(replace(exact, name=f"exact_{k}", inputs=copies[1:], outputs=(f"{made}/exact",)))
        pairs.append((k, made, f"{made}/exact"))
    if not pairs or not inputs:
        return []
    net = load(write(both, aside), threads=1)
    wanted = [name for _, *two in pairs for name in two]
    share = shares(list(blobs(net, wanted, x)) for x in inputs)
    rows = [(names[pairs[n][0]], round(float(share[n]), 5)) for n in np.argsort(-share)]
    return [{"layer": path, "type": kind, "error": error} for (path, kind), error in rows]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max(initial=0.0) <= SAME * np.abs(b).max(initial=1e-6))


def _roots(layers: Sequence[Layer]) -> dict[str, str]:
    """Return of each blob the one that it is a copy of."""
    root: dict[str, str] = {}
    for layer in layers:
        for name in layer.outputs:
            root[name] = root[layer.inputs[0]] if layer.kind == "Split" else name
    return root


def _computed(job: Job, x: np.ndarray) -> Computed:
    """Return what each module of the network takes and makes, flat, of those that are run once."""
    import torch

    from ..report import reference

    found: dict[str, Any] = {}
    network = job.source.model
    hooks = [
        module.register_forward_hook(_keep(found, path)) for path, module in network.named_modules() if path
    ]
    try:
        with torch.inference_mode(), quiet_host():
            reference(job.source, end2end=False)(torch.from_numpy(x))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: value for path, value in found.items() if value is not None}


def _keep(found: dict[str, Any], path: str) -> Any:
    def hook(module: Any, taken: Any, made: Any) -> None:
        found[path] = None if path in found else (_arrays(taken), _arrays(made))

    return hook


def _arrays(value: Any) -> list[np.ndarray]:
    """Return copies, for what follows may write in place."""
    if isinstance(value, (tuple, list)):
        return [a for part in value for a in _arrays(part)]
    return [value.detach().numpy().astype(np.float32).ravel()] if hasattr(value, "detach") else []
