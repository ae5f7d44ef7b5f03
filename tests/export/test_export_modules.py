"""Each attention module alone as ONNX: a small graph, equal to PyTorch, which OpenCV runs."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from yolo_attn.export import tensorrt
from yolo_attn.export.one_module import export_module, make_module, plain_attention
from yolo_attn.registry import registry
from yolo_attn.runtime.opencv import UNSUPPORTED, obstacles

warnings.filterwarnings("ignore", category=DeprecationWarning)


# Operators that a shape's bookkeeping leaves behind.
BOOKKEEPING = {"Shape", "Gather", "Expand", "Unsqueeze", "ConstantOfShape", "Range", "Where"}
# The most nodes of the papers' smallest; others are held to what the table says.
MOST = {"SEAttention": 6, "ECA": 7, "SEVar1": 3, "SEVar2": 4, "SEVar3": 4, "eSE": 4, "CBAM": 17, "CoordAtt": 12}
NEEDED = {
    "DoubleAttention": "flattens H x W for its matrix products; height and width come back from the input's shape",
    "DualAttention": "the same, for positions and for channels",
    "ELA": "1-D convolutions over (B, C, H): group norm's reshape back asks for the size",
    "GE": "the gathered map is resized to the size of the input",
    "MLCA": "its n x n cells divide height and width, which come from the input's shape",
    "NonLocal": "flattens H x W for its matrix products; height and width come back from the input's shape",
    "ShuffleAttention": "the channel shuffle of rank 4 joins height and width, and takes them apart again",
    "SimAM": "its formula divides by H W - 1",
    "FcaNet": "its basis of cosines is drawn for the size of the input",
    "SCSA": "its windows divide height and width, which come from the input's shape",
    "ExternalAttention": "flattens H x W into a sequence for two matrix products",
    "FocusedLinearAttention": "flattens H x W into a sequence of each head, and back",
    "CoT": "the weights of a 3 x 3 neighbourhood are spread over the channels of their group",
    "CoTAttention": "flattens H x W for its softmax, and back",
    "MHSA": "positions by distance, looked up for the input's size; heads are taken apart and joined",
    "ACmix": "a neighbourhood of 7 x 7 for each head, left out beyond the map",
    "Outlook": "weights of a window for each position, put back by slices",
    "Halo": "windows with a halo, cut and joined; how many depends on the size",
    "iRMB": "windows, cut and joined; how many depends on the size",
    "BiLevelRoutingAttention": "regions, whose height and width divide the input's",
    "DAttention": "positions that move: a grid of the input's size, sampled",
    "DeformableLKA": "positions that move: a grid of the input's size, sampled twice",
    "DeformableLKAAttention": "the same",
    "MSDA": "dilated neighbourhoods, flattened to positions",
}
# The most nodes of what cuts windows or moves positions, static and dynamic: there the chains are long.
LONGEST = {
    "ACmix": (57, 147), "BiLevelRoutingAttention": (74, 175), "CoT": (46, 61), "DAttention": (162, 270),
    "DeformableLKA": (54, 98), "DeformableLKAAttention": (62, 106), "FocusedLinearAttention": (51, 85), "Halo": (53, 198),
    "iRMB": (35, 156), "MHSA": (29, 101), "MLCA": (21, 51), "MSDA": (131, 259), "Outlook": (48, 87), "SCSA": (57, 92),
}  # fmt: skip
ATTENTION = [
    n for n in registry.list_modules() if registry.get_entry(n).kind in ("channel", "spatial", "both", "fusion")
]


@functools.cache
def graph_of(name: str, dynamic: bool) -> tuple[onnx.ModelProto, float]:
    """Export one module alone; return its graph and the largest difference from PyTorch, at another shape if dynamic."""
    torch.manual_seed(0)
    module, inputs = make_module(name, 64)
    for p in module.parameters():
        p.data += 0.05 * torch.randn_like(p)
    names = [f"x{i}" for i in range(inputs)]
    graph = export_module(module, [torch.randn(1, 64, 16, 20) for _ in names], dynamic=dynamic)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x = [torch.randn(2, 64, 24, 12) if dynamic else torch.randn(1, 64, 16, 20) for _ in names]
    with torch.no_grad():
        y = module(x if inputs > 1 else x[0]).numpy()
    (out,) = session.run(None, {n: v.numpy() for n, v in zip(names, x)})
    return graph, float(np.abs(out - y).max() / np.abs(y).max())


# What some converter or runtime does not know, or takes for something else; each has a spelling that all of them take.
REFUSED = {
    "view_as": "reshape", "reshape_as": "reshape", "square": "x * x", "unbind": "split", "maximum": "a + relu(b - a)",
    "minimum": "a - relu(a - b)", "einsum": "matmul", "expand_as": "broadcasting", "sum()": "sum(dim, keepdim=True)",
    "integers": "arange in the type of what it is added to: NCNN reads the bits of integers as floats",
    "masked_fill": "leave_out", "topk": "ranks by differences, which all runtimes have",
    "reshape of repeat": "cat: RKNN exchanges the two, and repeats each row instead of all of them",
    "softmax(dim)": "softmax_over, which takes the last dimension: over others MNN overflows above 88",
}  # fmt: skip
# Values whose first dimension is not the batch, with the reason.
FOLDED = {"C3TRAttention": "YOLOv5's own transformer takes the positions first"}
OPTIONS = {
    "Classifier": {"num_classes": 2}, "ELAN1Attention": {"c3": 64, "c4": 32}, "RepNCSPELAN4Attention": {"c3": 64, "c4": 32},
    "HGBlockAttention": {"c1": 64, "cm": 32, "c2": 64}, "ResNetLayerAttention": {"c1": 64, "c2": 64},
}  # fmt: skip


@functools.cache
def traced_by_torch(name: str, batch: int = 3) -> tuple[Counter[str], int, set[tuple[int, ...]]]:
    """Trace a module alone: its operators, its highest rank, and what it reshapes to another first dimension."""
    torch.manual_seed(0)
    inputs = 1
    if name in OPTIONS:
        options = OPTIONS[name]
        module = registry.get_entry(name).cls(*() if "c1" in options else (64,) * (1 + ("c3" in options)), **options)
    else:
        module, inputs = make_module(name, 64)
    x = [torch.randn(batch, 64, 16, 20) for _ in range(inputs)]
    with plain_attention(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(module.eval(), (x,) if inputs > 1 else (x[0],), check_trace=False).inlined_graph
    mine = {v.debugName() for v in list(graph.inputs())[1:]}  # the first input is the module itself
    found: Counter[str] = Counter()
    rank, folded, repeated = 0, set(), set()
    for node in graph.nodes():
        kind, given = node.kind().split("::")[-1], list(node.inputs())
        found["sum()" if kind == "sum" and len(given) < 4 else kind] += 1
        kinds = [v.type() for v in given if v.type().kind() == "TensorType" and v.type().dim()]
        if kind in ("add", "sub", "mul", "div") and len({t.scalarType() for t in kinds} & {"Long", "Float"}) == 2:
            found["integers"] += 1
        if kind == "repeat":
            repeated |= {v.debugName() for v in node.outputs()}
        if kind in ("reshape", "view") and given[0].debugName() in repeated:
            found["reshape of repeat"] += 1
        if kind == "softmax" and any(n > 1 for n in (given[0].type().sizes() or [])[given[1].toIValue() :][1:]):
            found["softmax(dim)"] += 1
        if any(v.debugName() in mine for v in given):
            mine |= {v.debugName() for v in node.outputs()}
        for value in node.outputs():
            shape = value.type().sizes() if value.type().kind() == "TensorType" else None
            rank = max(rank, len(shape or ()))
            if kind in ("reshape", "view") and value.debugName() in mine and shape and len(shape) > 2:
                folded |= {tuple(shape)} if shape[0] not in (1, batch) else set()
    return found, rank, folded


def rank_of(graph: onnx.ModelProto) -> int:
    """Return the highest rank of a graph's values."""
    known = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    return max(len(v.type.tensor_type.shape.dim) for v in (*known.value_info, *known.output))


@pytest.mark.parametrize("name", registry.list_modules())
def test_a_traced_module_is_written_in_what_every_converter_takes(name: str) -> None:
    operators, rank, folded = traced_by_torch(name)
    refused = {f"{k}: write {REFUSED[k]}" for k in REFUSED.keys() & operators.keys()}
    assert not refused
    assert rank <= 4, f"rank {rank}: NPUs and several runtimes stop at 4"
    assert not folded or name in FOLDED, f"{folded}: groups in the batch, which NCNN takes apart wrongly"


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ATTENTION)
def test_a_graph_stays_at_rank_4(name: str, dynamic: bool) -> None:
    assert rank_of(graph_of(name, dynamic)[0]) <= 4


# Modules that are traced by other operators than they train with, and options that make groups wider than a channel.
SPELLED = [
    ("GC", {}), ("GC", {"fuse": "scale"}), ("ParallelPolarizedSelfAttention", {}), ("SequentialPolarizedSelfAttention", {}),
    ("EMAttention", {"groups": 8}), ("EMAttention", {"groups": 3, "gate": "hard_sigmoid"}), ("SGE", {"groups": 8}),
    ("SGE", {"groups": 3, "gate": "hard_sigmoid"}), ("ShuffleAttention", {"groups": 4}), ("ShuffleAttention", {"groups": 3}),
    ("CBAM", {}), ("SEAttention", {}), ("ACmix", {"heads": 3, "kernel_size": 5}), ("MSDA", {"dilations": (1, 2, 3)}),
    ("Outlook", {"heads": 3}), ("CoT", {}), ("CoT", {"kernel_size": 5}), ("DoubleAttention", {}), ("S2Attention", {}),
    ("BiLevelRoutingAttention", {"heads": 3, "windows": 3, "topk": 2}), ("BiLevelRoutingAttention", {"heads": 4, "topk": 9}),
]  # fmt: skip


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize(("name", "options"), SPELLED, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v)))
def test_what_is_traced_is_what_trains(name: str, options: dict[str, object], start: str) -> None:
    """In float64, by both tracers of torch, with weights away from their start, and on a map of one position."""
    torch.manual_seed(0)
    module = registry.get_entry(name).cls(24, **options, start=start).double().eval()
    for p in module.parameters():
        p.data += 0.3 * torch.randn_like(p)
    for shape in ((2, 24, 7, 5), (1, 24, 1, 1)):
        x = torch.randn(shape, dtype=torch.float64)
        want = module(x)
        assert (module(x) != x).any()
        torch.testing.assert_close(torch.jit.trace(module, x, check_trace=False)(x), want, rtol=1e-9, atol=1e-9)
    if start == "paper" and hasattr(torch.compiler, "is_exporting"):
        x = torch.randn(2, 24, 7, 5, dtype=torch.float64)
        torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_exceptions_of_the_batch_are_needed() -> None:
    assert not [n for n in FOLDED if not traced_by_torch(n)[2]]


STATIC_AND_DYNAMIC = [False, pytest.param(True, marks=pytest.mark.slow)]


@pytest.mark.parametrize("dynamic", STATIC_AND_DYNAMIC, ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ATTENTION)
def test_a_module_leaves_as_a_small_graph(name: str, dynamic: bool) -> None:
    graph, difference = graph_of(name, dynamic)
    assert difference <= 1e-5
    ops = Counter(n.op_type for n in graph.graph.node)
    assert not {o for o in ops if "Adaptive" in o or o == "Loop"}
    assert not tensorrt.unsupported(ops)
    if name in MOST:
        assert sum(ops.values()) <= MOST[name], ops
    if name in LONGEST:
        assert sum(ops.values()) <= LONGEST[name][dynamic], ops
    if not dynamic:  # sizes are known: nothing may ask for them when the file runs
        assert not {"Shape", "Gather", "Range", "ConstantOfShape", "Expand"} & ops.keys(), ops
    allowed = NEEDED.get(name, "")
    found = sorted(BOOKKEEPING & ops.keys())
    assert bool(found) <= bool(allowed), f"{name} leaves {found} ({dict(ops)}): find a form without, or give the reason"


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="the table is of OpenCV 5")
@pytest.mark.parametrize("name", ATTENTION)
def test_opencv_runs_a_module_or_the_table_says_why_not(name: str) -> None:
    graph, _ = graph_of(name, dynamic=False)
    inputs = [
        np.random.default_rng(i).standard_normal((1, 64, 16, 20)).astype("f") for i in range(len(graph.graph.input))
    ]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})
    try:
        net = cv2.dnn.readNetFromONNX(np.frombuffer(graph.SerializeToString(), np.uint8))
        for i, x in enumerate(inputs):
            net.setInput(x, f"x{i}")
        got = net.forward()
        equal = got.shape == want.shape and np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    except cv2.error:
        equal = False
    assert equal != (name in UNSUPPORTED)


def test_what_opencv_cannot_run_is_said_before_the_export(tmp_path: Path) -> None:
    assert obstacles({"SEAttention": 4}) == []
    lines = obstacles({"BAM": 2, "ECA": 1}, nms=True, half=True, int8=True)
    assert len(lines) == 4 and "OpenCV cannot run BAM" in lines[0]


@pytest.mark.slow
def test_reasons_are_given_for_modules_that_need_them() -> None:
    assert NEEDED.keys() <= set(ATTENTION)
    idle = [n for n in NEEDED if not BOOKKEEPING & {x.op_type for x in graph_of(n, True)[0].graph.node}]
    assert not idle, f"these need no reason any more: {idle}"
