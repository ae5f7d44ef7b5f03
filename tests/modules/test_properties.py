"""What every registered attention module keeps, whichever it is: a walk over the registry."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
import pkgutil
import warnings

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import slow_but
from torch import nn

import yolo_attn.modules
from yolo_attn import get_module, list_modules
from yolo_attn.inside.check import run
from yolo_attn.inside.check.subject import subject_of
from yolo_attn.inside.check.verdict import PASS, WARNING
from yolo_attn.registry.registry import get_entry

NAMES = [n for n in list_modules() if get_entry(n).kind in ("channel", "spatial", "both")]
KIT = [n for n in NAMES if get_entry(n).cls.__module__.startswith("yolo_attn.modules.")]
# In the number of positions; of the last, one region of 49 on a large map is itself large.
QUADRATIC = ("DualAttention", "NonLocal", "MHSA", "DAttention", "BiLevelRoutingAttention")


each = pytest.mark.parametrize("name", NAMES)
kit = pytest.mark.parametrize("name", KIT)
slow = pytest.mark.slow
# What one quick test covers for every module, others repeat in depth: there, these stand for their kinds (a gate, a
# convolution over channels, pooled rows and columns, groups, flattened positions) and the rest is slow.
FEW = ("SEAttention", "ECA", "CBAM", "CoordAtt", "ShuffleAttention", "NonLocal")


def build(name, channels=16, seed=0, **options):
    torch.manual_seed(seed)
    entry = get_entry(name)
    return entry.cls(*([channels] if entry.binding.takes else []), **options)


def stir(m):
    """Random weights, so that no module is measured at a start that hides it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.3 + 0.1)
    return m


def sample(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


# ---------------------------------------------------------------- shapes


# The checks that every module passes, as `yolo-attn check` makes them; those of tests that are left below are made there.
# Warnings, and why each may stand.
ALLOWED = {
    "repeatable": dict.fromkeys(("DAttention", "DeformableLKA", "DeformableLKAAttention"), "samples at learned positions"),
    "shrinkage": dict.fromkeys(("DeformableLKA", "ExternalAttention"), "the paper's own scale: the identity start is there for it"),
    "largest": {"scSE": "two gates are added: up to twice the input"},
    "opencv": {"BAM": "OpenCV 5.0 takes the sum of its two branches for a residual; said in the module's header"},
}
CHECKED = [n for n in run.CHECKS if n not in ("compile", "cost", "static-onnx", "dynamic-onnx", "opencv")]
DEEP = ["static-onnx", "dynamic-onnx", "opencv"]  # every module leaves as a static graph in tests/export/test_export_modules.py
# Those that other modules of their kind stand for in the quick tests.
few = pytest.mark.parametrize("name", slow_but(NAMES, *FEW))


def assert_passes(name, checks, **options):
    s = subject_of(name, options, channels=64)
    bad = [f for f in run.several(s, checks) if f.status != PASS]
    assert not [f for f in bad if f.status != WARNING or name not in ALLOWED.get(f.check, {})], bad


@each
def test_what_a_module_of_a_user_is_asked(name):
    assert_passes(name, CHECKED)


@few
@pytest.mark.parametrize("start", ["paper", "identity"])
def test_it_leaves_as_onnx(name, start):
    """Fixed and dynamic sizes, and between convolutions in OpenCV."""
    if int(cv2.__version__.split(".")[0]) < 5 or name not in KIT:
        assert_passes(name, DEEP[:2], start=start)
    else:
        assert_passes(name, DEEP, start=start)


@each
def test_narrow_and_uneven_widths_at_any_size(name):
    """8, 12 and 72 channels, from 1 x 1 up: values and gradients are finite."""
    for channels in (8, 12, 72):
        m = build(name, channels)
        for batch, size, train in ((1, (1, 1), True), (2, (1, 5), True), (2, (5, 4), False)):
            x = sample(batch, channels, *size).requires_grad_()
            y = m.train(train)(x)
            y.square().sum().backward()
            assert y.shape == x.shape and y.isfinite().all() and x.grad.isfinite().all(), (channels, size, batch, train)
        assert all(p.grad is None or p.grad.isfinite().all() for p in m.parameters())


@each
@pytest.mark.parametrize("channels", [9, 10, 30, 65])
def test_awkward_widths_work_or_are_refused_with_the_number(name, channels):
    try:
        m = build(name, channels)
    except ValueError as exc:
        m, message = None, str(exc)
    if m is None:
        assert str(channels) in message
    else:
        assert m(sample(2, channels, 4, 3)).shape == (2, channels, 4, 3)


@kit
@pytest.mark.parametrize(("channels", "error"), [([8, 8], TypeError), (0, ValueError), (2.5, TypeError)])
def test_no_number_of_channels_is_an_error(name, channels, error):
    if get_entry(name).binding.takes:
        with pytest.raises(error, match=r"one input|at least|integer"):
            get_entry(name).cls(channels)


# ---------------------------------------------------------------- precision


@each
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the checks make it on the CPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_at_large_activations_on_a_gpu(name, dtype):
    side = 160 if dtype == torch.float16 else 40  # bf16 ends where fp32 does
    m = build(name, 8).cuda()
    x = (sample(1, 8, side, side) * 1e3).to("cuda", dtype).requires_grad_()
    with torch.autocast("cuda", dtype=dtype):
        y = m(x)
    assert y.dtype == dtype
    y.float().mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in m.parameters())


@each
def test_a_large_map_overflows_nowhere(name):
    """A sum over 160 x 160 positions, of half weights without autocast."""
    side = 48 if name in QUADRATIC else 160
    x = sample(1, 8, side, side) * 1e3
    m = build(name, 8).eval()
    y = copy.deepcopy(m).half()(x.half())
    assert y.dtype == torch.float16 and y.isfinite().all()


# ---------------------------------------------------------------- life of a module


@pytest.mark.parametrize("name", slow_but(NAMES, "SEAttention", "ECA", "CBAM", "CoordAtt"))
def test_compiles_as_one_graph_for_every_size(name):
    m = stir(build(name, 8)).eval()
    torch._dynamo.reset()
    counter = pytest.importorskip("torch._dynamo.testing").CompileCounter()
    compiled = torch.compile(m, backend=counter, fullgraph=True, dynamic=True)
    for shape in ((2, 8, 20, 18), (3, 8, 12, 26)):
        x = sample(*shape)
        torch.testing.assert_close(compiled(x), m(x))
    assert counter.frame_count == 1


@each
def test_copies_pickles_and_state_dicts_of_the_identity_start(name):
    """Of the paper's start, the checks make it."""
    m = stir(build(name, start="identity")).eval()
    x = sample(2, 16, 5, 4)
    y = m(x)
    other = build(name, seed=5, start="identity").eval()
    other.load_state_dict(m.state_dict())
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m)), other):
        assert torch.equal(twin(x), y)


@kit
def test_loads_with_weights_only(name):
    """The classes inside are declared safe by their registration, or are torch's own."""
    m = build(name, start="identity")
    file = io.BytesIO()
    torch.save(m.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True).keys() == m.state_dict().keys()


@each
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the checks make it on the CPU")
@pytest.mark.parametrize("warn_only", [False, True])
def test_deterministic_algorithms_without_a_warning_on_a_gpu(name, warn_only):
    m = build(name).cuda()
    x = sample(2, 16, 9, 8).cuda().requires_grad_()
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            m(x).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@each
def test_the_class_name_does_not_matter(name):
    entry = get_entry(name)
    renamed = type("Renamed", (entry.cls,), {})
    args = [16] if entry.binding.takes else []
    torch.manual_seed(0)
    a = entry.cls(*args)
    torch.manual_seed(0)
    b = renamed(*args)
    x = sample(2, 16, 6, 5)
    assert torch.equal(a(x), b(x))


@each
def test_names_of_the_identity_start(name):
    """No method of torch is hidden, and bare parameters are called weight or bias; of the paper's start, the checks make it."""
    assert_passes(name, ["names", "optimizer"], start="identity")


# ---------------------------------------------------------------- export


def export(m, x, dynamic=True):
    file = io.BytesIO()
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)  # a frozen size
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(m, (x,), file, opset_version=17, input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": axes, "y": axes} if dynamic else None, dynamo=False)  # fmt: skip
    return file.getvalue()


# Nodes of the dynamic graph, constants left out: what the formula needs, so that a chain of shape operations shows.
NODES = {
    "SEAttention": 6, "ECA": 6, "SEVar1": 3, "SEVar2": 4, "SEVar3": 4, "eSE": 4, "CBAM": 17, "CoordAtt": 14, "LSKA": 6,
    "TripletAttention": 23, "GAM": 10, "BAM": 15, "GCT": 15, "ParNetAttention": 10, "scSE": 11,
    "LKA": 4, "CPCA": 21, "CAA": 11, "SEAM": 24, "MultiSEAM": 62, "MSCA": 12, "SENetV2": 6, "LSK": 19, "StripPooling": 12,
    "EPSA": 35, "SRM": 10, "MSCAM": 11,
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(NODES, "SEAttention", "ECA", "CBAM", "CoordAtt"))
def test_the_exported_graph_is_small(name):
    graph = onnx.load_from_string(export(stir(build(name)).eval(), sample(2, 16, 8, 6))).graph
    kinds = [n.op_type for n in graph.node if n.op_type != "Constant"]
    assert len(kinds) <= NODES[name], kinds
    assert not {"Shape", "Gather", "Expand", "Unsqueeze", "Reshape"} & set(kinds)


# Those whose formula groups channels or flattens positions need sizes; what is there is the least that was found.
# Not simplified: the exporter asks for height and width once for each reshape, and the simplifier joins these.
SIZED = {
    "NAM": 8, "SK": 17, "GC": 16, "ELA": 20, "SimAM": 22, "GE": 22, "DoubleAttention": 42, "SGE": 7, "EMAttention": 20,
    "ParallelPolarizedSelfAttention": 25, "SequentialPolarizedSelfAttention": 25, "ShuffleAttention": 19, "NonLocal": 39,
    "DualAttention": 58, "S2Attention": 52, "CrissCross": 84, "MLCA": 57, "FcaNet": 36, "SCSA": 137, "MHSA": 155,
    "BiLevelRoutingAttention": 328, "ACmix": 208, "DAttention": 339, "Halo": 293, "Outlook": 176, "MSDA": 439,
    "ExternalAttention": 26, "FocusedLinearAttention": 120, "iRMB": 222, "DeformableLKA": 144,
    "DeformableLKAAttention": 152, "CoT": 95, "CoTAttention": 35,
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(SIZED, "ShuffleAttention", "NonLocal"))
def test_the_exported_graph_of_grouping_modules_does_not_grow(name):
    graph = onnx.load_from_string(export(stir(build(name)).eval(), sample(2, 16, 8, 6))).graph
    assert sum(n.op_type != "Constant" for n in graph.node) <= SIZED[name]


@pytest.mark.parametrize("name", slow_but(KIT, *FEW))
def test_opencv_runs_the_graph_as_the_hosts_simplify_it(name):
    """Between convolutions, as in a detector, where OpenCV fuses neighbours; not simplified, and with a stride."""
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 lacks operations that detectors need")
    if name in ALLOWED["opencv"]:
        pytest.skip(ALLOWED["opencv"][name])
    conv = nn.Conv2d(3, 16, 3, 2, 1)
    m = nn.Sequential(conv, nn.SiLU(), stir(build(name)), nn.Conv2d(16, 8, 3, 2, 1)).eval()
    data, x = export(m, sample(1, 3, 32, 24), dynamic=False), sample(1, 3, 32, 24)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    net.setInput(x.numpy(), "x")
    np.testing.assert_allclose(net.forward(), m(x).detach().numpy(), rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- identity start


@each
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_identity_start_returns_its_input(name, train):
    for channels, size in ((8, (1, 1)), (16, (6, 5)), (64, (3, 7))):
        m = build(name, channels, start="identity").train(train)
        for part in m.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eps, part.momentum = 1e-3, 0.03  # as hosts set them
        x = sample(2, channels, *size) * 10
        assert torch.equal(m(x), x)


@each
def test_identity_start_learns_from_the_first_step(name):
    """Step one moves something; from step two on, all that learns under the paper's start learns here as well."""

    def moved(start, steps):
        m = build(name, 32, start=start).double()
        if start == "paper":
            stir(m)
        x = sample(4, 32, 6, 5, dtype=torch.float64).requires_grad_()
        before = {}
        for _ in range(steps):
            m.zero_grad()
            (m(x) * sample(*x.shape, seed=7, dtype=torch.float64)).sum().backward()
            before = {n: p.grad.clone() for n, p in m.named_parameters() if p.grad is not None}
            with torch.no_grad():
                for p in m.parameters():
                    if p.grad is not None:
                        p -= 1e-2 * p.grad / (p.grad.norm() + 1e-9)
        return {n for n, g in before.items() if g.abs().max() > 1e-12}

    assert moved("identity", 1)
    # three, where a blend opens the way to a layer that opens the way to another
    assert moved("paper", 1) <= moved("identity", 3)


@each
def test_an_unknown_start_is_refused(name):
    with pytest.raises(ValueError, match="'paper' or 'identity'"):
        build(name, start="zero")


# ---------------------------------------------------------------- gradients


@each
@slow
def test_gradcheck_of_the_identity_start(name):
    """Of the paper's start, the checks make it."""
    assert_passes(name, ["gradient"], start="identity")


# ---------------------------------------------------------------- the registry


def test_every_file_registers_what_it_defines():
    for info in pkgutil.iter_modules(yolo_attn.modules.__path__):
        if info.name.startswith("_"):
            continue
        file = importlib.import_module(f"yolo_attn.modules.{info.name}")
        public = {c for n in file.__all__ if isinstance(c := getattr(file, n), type) and issubclass(c, nn.Module)}
        here = {
            get_entry(n).cls for n in list_modules() if get_entry(n).cls.__module__ == file.__name__
        }  # what the file registered
        assert here and here <= public, info.name
        attention = {c for c in public if hasattr(c, "identity")}
        assert attention <= here, info.name


@kit
def test_metadata_is_complete(name):
    entry = get_entry(name)
    assert entry.paper and entry.oracle and entry.use and entry.cls.identity
    assert entry.arxiv or name in ("SimAM", "MLCA")  # published in proceedings or a journal only
    header = inspect.getmodule(entry.cls).__doc__
    assert entry.arxiv in header and "https://" in header
    assert entry.cls.__doc__ and "(B, C, H, W)" in entry.cls.__doc__


# The one vocabulary of options, and for each what it must refuse, by name.
WRONG = {
    "reduction": (0, -1, 0.5, "much", None, True),
    **dict.fromkeys(
        (
            *("min_channels", "groups", "norm_groups", "dilation", "recurrence", "local_size", "depth", "cardinality"),
            *(
                "frequencies",
                "heads",
                "head_channels",
                "windows",
                "window_size",
                "topk",
                "memory",
                "halo_size",
                "width",
            ),
            *("height", "stride", "factor"),
        ),
        (0, -1, 2.5, "8", True),
    ),
    "local_weight": (-0.1, 1.1, "half", True),
    "extent": (-2, 3, "8", True),
    "kernel_size": (0, 2, -3, "7", True),
    **dict.fromkeys(("kernel_sizes", "patch_sizes"), ([3], [2, 4], 5, "35")),
    "dilations": ([], [0, 1], 2.5, "12"),
    **dict.fromkeys(("bias", "norm", "residual", "position"), ("no", 1, None)),
    **dict.fromkeys(("eps", "e_lambda", "gamma"), (0, -1, "small", True)),
    "b": ("one", True),
    **dict.fromkeys(("gate", "start", "squeeze", "fuse", "form"), ("zero", None, 1)),
}


@kit
def test_a_wrong_option_is_refused_by_name(name):
    for option in inspect.signature(get_module(name)).parameters:
        for value in WRONG.get(option, ()):
            with pytest.raises(ValueError, match=option):
                build(name, **{option: value})


def test_numbers_that_yaml_takes_for_text():
    """`eps: 1e-5` is text to YAML 1.1, which wants 1.0e-5."""
    for name, option in (("GCT", "eps"), ("SGE", "eps"), ("SimAM", "e_lambda")):
        assert getattr(build(name, **{option: "1e-5"}), option) == 1e-5


@kit
def test_one_vocabulary_channels_first_the_rest_by_name_start_last(name):
    parameters = list(inspect.signature(get_module(name)).parameters.values())
    if get_entry(name).binding.takes:
        assert parameters.pop(0).name == "channels"
    assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert {p.name for p in parameters} <= WRONG.keys() and parameters[-1].name == "start"
    documented = get_module(name).__doc__
    assert all(f"{p.name}: " in documented for p in parameters)


def test_no_name_is_one_of_the_hosts():
    """A name that the host's parser knows as well would be ambiguous in every YAML."""
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    hosts = {n for n, v in vars(tasks).items() if isinstance(v, type)}
    ours = {n for name in KIT for n in (name, *get_entry(name).aliases)}
    assert not ours & hosts


@pytest.mark.parametrize(
    "spelling",
    [
        *("SE", "SELayer", "SE_Block", "CA", "CoordAtt", "CoordAttention", "eca_layer", "EffectiveSELayer", "SA"),
        *("GAM_Attention", "GAMAttention", "NAMAttention", "SKAttention", "PSA_s", "PSA_p", "GlobalContextBlock"),
        *("SpatialGroupEnhance", "EMA", "simam_module"),
    ],
)
def test_the_fields_spellings(spelling):
    assert issubclass(get_module(spelling), nn.Module)
