"""Int8 of LiteRT by ai-edge-quantizer: what stays in fp32, and which layers lose most.

The converter names each operator after the modules that it was traced in, such as
``...DetectionModel_model/ultralytics.nn.modules.block.C3_2/.../torch.nn.modules.conv.Conv2d_conv;2``: a class and the
attribute that holds it, a list's entries by their number. That tells an operator's layer.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ExportError
from ...runtime.boxes import CONF, suppress
from ...weights.attention import attention_in
from .alone import COMPARED, LEAST, layers, missed
from .base import Job
from .decoding import CONVOLUTIONS, Operator, decoding
from .host import STEM, calibration
from .litert_file import write_like

__all__ = ["ABOUT", "losses", "quantize", "within"]

ABOUT = "about.json"  # how many operators are in int8, beside the file
RANGES = "ranges.pickle"  # what calibration found
AT_ONCE = 32  # pictures held in memory


def quantize(job: Job) -> Path:
    """Write ``model_int8.tflite`` from the proved fp32 file.

    In fp32 stay what decodes the boxes, the head's last convolutions before it, and attention. The host's recipe has one
    scale for the bins of the distribution focal loss, one for the sides of all boxes, and one for boxes together with
    scores; the boxes are off by a pixel at 160 pixels. Attention's softmaxes, products and divisions are far from what a
    scale for all channels keeps, and its operators are few. The network's input and output stay in fp32 as in the host's.

    Args:
        job: The conversion; `pictures` and `proved` are set.
    """
    assert job.proved is not None
    content, operators, kept = chosen(job)
    names = [op.scope for k, op in enumerate(operators) if k not in kept]
    ranges = _calibrated(content, names, job)
    Path(RANGES).write_bytes(pickle.dumps(ranges))
    Path(ABOUT).write_text(json.dumps({"quantized": len(names), "fp32": len(kept)}), encoding="utf-8")
    return _written(content, names, ranges, job.proved, Path(f"{STEM}_int8.tflite"))


def losses(job: Job, work: Path) -> Path:
    """Write ``losses.json``: of each layer that :func:`quantize` has in int8, what it alone loses, the greatest first.

    Each layer in turn is the only one in int8. ``error`` is the mean of 1 - IoU over the detections of the fp32 file,
    with the box of their class that comes nearest; 1 where there is none. The head counts as its branches.

    Args:
        job: The conversion.
        work: The folder in which :func:`quantize` ran.
    """
    assert job.proved is not None
    content, operators, kept = chosen(job)
    ranges = pickle.loads((work / RANGES).read_bytes())  # from this export's own converter
    inputs = list(islice(calibration(job), COMPARED))
    conf = CONF if any(map(len, _detections(job.proved, job, inputs, CONF))) else LEAST
    want = _detections(job.proved, job, inputs, conf)
    found: list[dict[str, Any]] = []
    for path, numbers in of_layers(job.source.model, operators):
        names = [operators[k].scope for k in numbers if k not in kept]
        if not names:
            continue
        file = _written(content, names, ranges, job.proved, Path("one_layer.tflite"))
        got = _detections(file, job, inputs, conf)
        kind = type(job.source.model.get_submodule(path.partition(",")[0])).__name__
        found.append({"layer": path, "type": kind, "error": round(missed(want, got), 5)})
    found.sort(key=lambda row: -row["error"])
    target = Path("losses.json")
    target.write_text(json.dumps(found), encoding="utf-8")
    return target


def chosen(job: Job) -> tuple[bytes, list[Operator], set[int]]:
    """Return the proved file, its operators, and the numbers of those that stay in fp32 in the int8 file."""
    assert job.proved is not None
    content = job.proved.read_bytes()
    operators = list(read_operators(content))
    return content, operators, decoding(operators) | attention_operators(job, operators)


def read_operators(content: bytes) -> Iterator[Operator]:
    """Yield the operators of a file's main graph, in order; others hold what a composed operator consists of."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    kinds = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = flatbuffer.read_model(content)
    graph = model.subgraphs[0]
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]  # files for older runtimes have the second alone
        shapes = [graph.tensors[k].shape for k in op.inputs[1:2] if k >= 0]
        filters = int(shapes[0][0]) if kind in CONVOLUTIONS and shapes and len(shapes[0]) else 0
        yield Operator(kind, flatbuffer.get_op_scope(op, graph.tensors), tuple(op.inputs), tuple(op.outputs), filters)


def attention_operators(job: Job, operators: Sequence[Operator]) -> set[int]:
    """Return the numbers of the operators of attention."""
    inside = [within(job.source.model, path) for path in attention_in(job.source.model)]
    return {k for k, op in enumerate(operators) if any(p.search(own(op.scope)) for p in inside)}


def own(scope: str) -> str:
    """Return an operator's own name: where the converter merged operators, those that went into it follow."""
    return scope.split(";;")[0]


def within(network: Any, path: str) -> re.Pattern[str]:
    """Return what the names of a layer's operators match; lists and sequences that are not called may be left out."""
    parts = path.split(".")
    steps = []
    for k, part in enumerate(parts, 1):
        step = re.escape(f"{_class(network.get_submodule('.'.join(parts[:k])))}_{part}")
        steps.append(f"{step}(?=[/;]|$)" if k == len(parts) else f"(?:{step}/)?")
    return re.compile(rf"(?:^|/){re.escape(_class(network))}(?:_\w+)?/{''.join(steps)}")


def _class(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def of_layers(network: Any, operators: Sequence[Operator]) -> Iterator[tuple[str, list[int]]]:
    """Yield each of :func:`layers` with the numbers of its operators.

    The lists of a head are not called, so that the operators of `cv2.0` and of `cv3.0` have the same names. What they are
    told by is that no tensor of one goes into the other, and that a head calls its lists in the order in which it has them.
    """
    same: dict[tuple[int, ...], list[str]] = {}
    for path in layers(network):
        inside = within(network, path)
        same.setdefault(tuple(k for k, op in enumerate(operators) if inside.search(own(op.scope))), []).append(path)
    for numbers, paths in same.items():
        parts = [list(numbers)] if len(paths) == 1 else apart(operators, numbers)
        if len(parts) == len(paths):
            yield from zip(paths, parts)
        elif numbers:  # of a head that has other lists for training: which of them these are of is not known
            yield ", ".join(paths), list(numbers)


def apart(operators: Sequence[Operator], numbers: Sequence[int]) -> list[list[int]]:
    """Return operators in groups between which no tensor passes, in order of the first of each."""
    groups: list[list[int]] = []
    for k in numbers:
        taken = set(operators[k].inputs)
        joined = [g for g in groups if any(taken.intersection(operators[j].outputs) for j in g)]
        groups = [g for g in groups if g not in joined]
        groups.append(sorted([k, *(j for g in joined for j in g)]))
    return sorted(groups)


def _quantizer(content: bytes, names: Sequence[str]) -> Any:
    """Return a quantizer for the operators of these names alone."""
    from ai_edge_quantizer import qtyping, quantizer, recipe

    made = quantizer.Quantizer(content)
    every, boundary = qtyping.TFLOperationName.ALL_SUPPORTED, (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT)
    # as the host's static_wi8_ai8: weights with one scale per channel, activations with one scale and a zero point
    made.add_static_config(f"^(?:{'|'.join(map(re.escape, names))})$", every, activation_num_bits=8, weight_num_bits=8)
    for kind in boundary:
        made.update_quantization_recipe(regex=".*", operation_name=kind, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE)
    return made


def _calibrated(content: bytes, names: Sequence[str], job: Job) -> Any:
    """Return the ranges of the tensors on the job's pictures."""
    from ai_edge_litert.interpreter import Interpreter

    ((signature, about),) = Interpreter(model_content=content).get_signature_list().items()
    (name,) = about["inputs"]
    made, ranges, pictures = _quantizer(content, names), None, calibration(job)
    while some := [{name: x} for x in islice(pictures, AT_ONCE)]:
        ranges = made.calibrate({signature: some}, previous_calibration_result=ranges, num_threads=1)
    if not ranges:
        raise ExportError("int8 needs pictures to calibrate on")
    return ranges


def _written(content: bytes, names: Sequence[str], ranges: Any, proved: Path, target: Path) -> Path:
    """Write a file with the operators of these names in int8, and the metadata of the proved one."""
    made = _quantizer(content, names).quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    write_like(proved, target, bytes(made.quantized_model), "int8")
    return target


def _detections(path: Path, job: Job, inputs: Sequence[np.ndarray], conf: float) -> list[np.ndarray]:
    """Return what a file finds in each input with a confidence above `conf`, (N, 6)."""
    from ...runtime.engines.litert import open_network
    from ...runtime.engines.network import Options

    network = open_network(path, Options(threads=1))
    layout = "final" if network.metadata.get("end2end") == "True" else job.source.layout
    return [suppress(network.run(x)[0][0], layout or "", conf=conf) for x in inputs]
