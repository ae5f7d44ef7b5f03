"""Graphs: `torch.compile` as one, ONNX with fixed and free sizes against PyTorch, what converters and OpenCV make of it."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from .subject import Subject, each, mapped, quiet
from .verdict import Doubt, Fault, Finding, Skip

__all__ = ["compiled", "dynamic_onnx", "opencv", "portable", "static_onnx"]

OTHER = ((2, (13, 9)), (1, (5, 9)), (3, (1, 1)), (1, (24, 2)))  # batch, height and width that a dynamic file is run at


def compiled(s: Subject) -> str:
    """`torch.compile(fullgraph=True)`: one graph for every size, values and gradients equal."""
    import torch

    if not hasattr(torch, "compile"):
        raise Skip("torch before 2.0")
    import logging

    from torch._dynamo.eval_frame import check_if_dynamo_supported

    try:
        check_if_dynamo_supported()
    except RuntimeError as exc:  # this Python is too new for this torch, or the system is none of its own
        raise Skip(str(exc).partition("\n")[0]) from None
    torch._dynamo.reset()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # its logs of a graph break
    try:
        with quiet():
            m = s.build(stir=True).eval()
            try:
                f = torch.compile(m, backend="aot_eager", fullgraph=True, dynamic=True)
                for size in (s.size, (s.size[0] * 2, s.size[1] * 2)):
                    x = mapped(s.maps(size), lambda v: v.requires_grad_())
                    want, got = m(x), f(x)
                    a, b = (torch.autograd.grad(y.square().sum(), [*each(x), *m.parameters()], allow_unused=True) for y in (want, got))
                    pairs = [(want, got), *((p, q) for p, q in zip(a, b) if p is not None)]
                    if not all(torch.allclose(p, q, rtol=1e-3, atol=1e-3 * float(p.abs().max()) + 1e-5) for p, q in pairs):
                        raise Fault("the compiled module computes something else", _ONE, s.sources.method(s.cls, "forward"))
            except Fault:
                raise
            except Exception as exc:  # a module can raise anything
                where = s.sources.of_text(str(exc)) or s.sources.of_error(exc)
                said = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
                raise Fault(f"breaks the graph: {said[:200]}", _ONE, where or s.sources.method(s.cls, "forward")) from exc
    finally:
        logging.disable(before)
        torch._dynamo.reset()
    return "one graph, values and gradients equal"


_ONE = "compute with tensors only: no .item(), .tolist(), print, numpy or if on a tensor's value in forward"


def static_onnx(s: Subject) -> Finding:
    """ONNX with fixed sizes: the file computes what PyTorch does."""
    graph, _ = _export(s, dynamic=False)
    _equal(s, graph, [(1, s.size)], "with fixed sizes")
    ops = Counter(n.op_type for n in graph.graph.node)
    said = f"equal; {sum(ops.values())} nodes: {', '.join(f'{k} {v}' for k, v in ops.most_common(8))}{' ...' if len(ops) > 8 else ''}"
    return Finding("static-onnx", "pass", said, numbers={"nodes": sum(ops.values()), "operators": dict(ops)})


def dynamic_onnx(s: Subject) -> Finding:
    """ONNX with free batch, height and width, run at sizes that it was not exported at."""
    graph, frozen = _export(s, dynamic=True)
    shapes = [(b, size) for b, size in OTHER if _runs(s, b, size)]
    value = next((f for f in frozen if "boolean" not in f[0]), None)
    if value is not None:
        raise Fault(f"the file keeps a number of the image that it was exported with: {value[0]}", _FREE, value[1])
    try:
        _equal(s, graph, shapes or [(2, s.size)], "with dynamic sizes")
    except Fault as exc:
        if frozen:
            raise Fault(f"{exc.said}; {frozen[0][0]}", _FREE, frozen[0][1]) from exc
        raise
    if frozen:
        raise Doubt(f"equal at the sizes tried, but a branch is frozen: {frozen[0][0]}", _FREE, frozen[0][1])
    count = len(graph.graph.node)
    tried = ", ".join(f"{h} x {w}" for _, (h, w) in shapes)
    return Finding("dynamic-onnx", "pass", f"equal at {tried or 'its size'}; {count} nodes", numbers={"nodes": count})


def opencv(s: Subject) -> str:
    """OpenCV's dnn module runs the file between two convolutions, as it stands in a detector."""
    import cv2
    import numpy as np
    import torch
    from torch import nn

    if int(cv2.__version__.split(".")[0]) < 5:
        raise Skip("OpenCV 4 lacks operations that detectors need")
    if s.inputs > 1:
        raise Skip("several inputs")
    channels = s.small
    with quiet(), torch.no_grad():
        inner = s.build(stir=True).cpu()
        m = nn.Sequential(nn.Conv2d(3, channels, 1), nn.SiLU(), inner, nn.Conv2d(s.out_channels(channels), 8, 1)).eval()
        x = torch.randn(1, 3, *s.size, generator=torch.Generator().manual_seed(0))
        graph, _ = _graph(s, m, [x], dynamic=False)
        want = m(x).numpy()
    try:
        net = cv2.dnn.readNetFromONNX(np.frombuffer(graph.SerializeToString(), np.uint8))
        net.setInput(x.numpy(), "x0")
        got = net.forward()
    except cv2.error as exc:
        raise Doubt(f"OpenCV cannot run it: {' '.join(str(exc).split())[:160]}", _OPENCV) from exc
    if got.shape != want.shape or not np.allclose(got, want, rtol=1e-3, atol=1e-3 * float(np.abs(want).max()) + 1e-4):
        raise Doubt("OpenCV runs it and gives something else", _OPENCV)
    return f"OpenCV {cv2.__version__} gives the same"


_OPENCV = "deploy with onnxruntime; or write products and sums of maps of one shape"

# What converters refuse, and the form that they take. PyTorch's operation, and those that do.
_REFUSED = {
    "view_as": ("NCNN, CoreML and Paddle refuse view_as", "reshape(b, c, h, w)"),
    "reshape_as": ("Paddle refuses reshape_as", "reshape(b, c, h, w)"),
    "square": ("Paddle refuses square", "z * z"),
    "unbind": ("Paddle refuses unbind", "chunk or indices z[:, 0], z[:, 1]"),
    "maximum": ("Paddle refuses maximum", "torch.relu(a - b) + b, or clamp"),
    "einsum": ("TensorRT and NPU compilers take few forms of Einsum", "torch.matmul, or (a * b).sum(dim, keepdim=True)"),
}
_FOLDED = "groups are folded into the batch: NCNN computes something else without an error"


def portable(s: Subject) -> str:
    """Operations that converters to NCNN, CoreML, LiteRT, Paddle and NPUs refuse or get wrong."""
    import torch

    batch = 3  # a prime that no number of channels is
    with warnings.catch_warnings(), quiet(), torch.no_grad():
        warnings.simplefilter("ignore")
        m = s.build().eval()
        x = s.maps(batch=batch)
        try:
            graph = torch.jit.trace(m, (x,), check_trace=False, strict=False).inlined_graph
        except Exception as exc:  # a module can raise anything
            raise s.fault(exc, "cannot be traced") from exc
    for node in graph.nodes():
        op = node.kind().rpartition("::")[2]
        where = s.sources.first_in(node.sourceRange())  # the last call first
        if op in _REFUSED and where is not None:
            who, form = _REFUSED[op]
            raise Doubt(who, f"write {form}", where)
        if op == "sum" and sum(1 for _ in node.inputs()) == 2 and where is not None:
            raise Doubt("Paddle refuses sum() over everything", "name the dimensions: z.sum((1, 2, 3), keepdim=True)", where)
        made = next(iter(node.outputs()), None)
        sizes = made.type().sizes() if made is not None and isinstance(made.type(), torch.TensorType) else None
        if op in ("reshape", "view", "_unsafe_view") and sizes and len(sizes) == 4 and sizes[0] not in (batch, 1) and sizes[0] % batch == 0:
            raise Doubt(_FOLDED, "keep the batch first: a grouped convolution, or 5 dimensions (b, g, c, h, w)", where)
    return "no form that converters refuse"


def _export(s: Subject, *, dynamic: bool) -> tuple[Any, list[tuple[str, Any]]]:
    import torch

    with quiet(), torch.no_grad():
        m = s.build(stir=True).eval()
        x = each(s.maps(batch=2 if dynamic else 1))
    return _graph(s, m, x, dynamic=dynamic)


def _graph(s: Subject, m: Any, x: list[Any], *, dynamic: bool) -> tuple[Any, list[tuple[str, Any]]]:
    """Export as the hosts do; return the graph, and what the tracer froze in the module's files: its words, the line."""
    import torch

    from ...export.one_module import export_module

    way = "with dynamic sizes" if dynamic else "with fixed sizes"
    frozen: list[Any] = []

    def noted(message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if issubclass(category, torch.jit.TracerWarning):
            frozen.append((message, filename, lineno))

    try:
        with torch.random.fork_rng(devices=[]):
            graph = export_module(m, x, dynamic=dynamic, warned=noted)
    except Exception as exc:  # an exporter can raise anything
        said = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        where = s.sources.of_text(str(exc)) or s.sources.of_error(exc)
        pool = s.sources.call(s.cls, ("adaptive_avg_pool2d", "adaptive_max_pool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d"), ())
        where = (pool if "adaptive" in str(exc) else None) or where or s.sources.method(s.cls, "forward")
        from .remedies import remedy_for

        raise Fault(f"cannot be exported {way}: {said[:200]}", remedy_for(str(exc), _BASIC), where) from exc
    mine = [(str(message).split(".")[0][:200], s.sources.line(file, n)) for message, file, n in frozen if s.sources.mine(file)]
    return graph, mine


_BASIC = "write it with basic operations: mean, amax, matmul, softmax, conv2d, interpolate"
_FREE = "no int(), float(), .item() or if on a size or value in forward: x.shape[2] itself may be computed with"


def _equal(s: Subject, graph: Any, shapes: list[tuple[int, tuple[int, int]]], way: str) -> None:
    import numpy as np
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime has classes of its own
        said = str(exc).splitlines()[0][:200]
        raise Fault(f"onnxruntime refuses the file {way}: {said}", _BASIC, s.sources.method(s.cls, "forward")) from exc
    with quiet(), torch.no_grad():
        m = s.build(stir=True).eval()
        for batch, size in shapes:
            x = mapped(s.maps(size, batch, seed=3), lambda v: 2 * v)
            want = m(x).cpu().numpy()
            shown = f"({batch}, {s.small}, {size[0]}, {size[1]})"
            names = {i.name for i in session.get_inputs()}
            try:
                (got,) = session.run(None, {f"x{i}": v.cpu().numpy() for i, v in enumerate(each(x)) if f"x{i}" in names})
            except Exception as exc:  # onnxruntime has classes of its own
                raise Fault(f"the file {way} fails on {shown}", _FREE, s.sources.method(s.cls, "forward")) from exc
            if got.shape != want.shape or not np.allclose(got, want, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(want).max()))):
                off = f"{float(np.abs(got - want).max()):.3g}" if got.shape == want.shape else f"{got.shape}"
                where = s.sources.call(s.cls, ("item", "int", "float", "tolist", "rand", "randn", "rand_like", "randn_like"))
                raise Fault(f"the file {way} gives something else on {shown}: {off}", _FREE, where or s.sources.method(s.cls, "forward"))


def _runs(s: Subject, batch: int, size: tuple[int, int]) -> bool:
    """Sizes that PyTorch itself refuses are the business of another check."""
    import torch

    try:
        with quiet(), torch.no_grad():
            s.build().eval()(s.maps(size, batch))
    except MemoryError:
        raise
    except Exception:  # a module can raise anything
        return False
    return True
