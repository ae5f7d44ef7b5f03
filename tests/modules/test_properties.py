"""What every registered attention module keeps, whichever it is: a walk over the registry."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
import pkgutil
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import slow_but
from torch import nn

import yolo_attn.modules
from yolo_attn import get_module, list_modules
from yolo_attn.registry.registry import get_entry

NAMES = [n for n in list_modules() if get_entry(n).kind in ("channel", "spatial", "both")]
KIT = [n for n in NAMES if get_entry(n).cls.__module__.startswith("yolo_attn.modules.")]
# In the number of positions; of the last, one region of 49 on a large map is itself large.
QUADRATIC = ("DualAttention", "NonLocal", "MHSA", "DAttention", "BiLevelRoutingAttention")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small gain nothing from more, and on a busy machine threads that wait for one another lose much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


each = pytest.mark.parametrize("name", NAMES)
kit = pytest.mark.parametrize("name", KIT)
slow = pytest.mark.slow
# What one quick test covers for every module, others repeat in depth: there, these stand for their kinds (a gate, a
# convolution over channels, pooled rows and columns, groups, flattened positions) and the rest is slow.
FEW = ("SEAttention", "ECA", "CBAM", "CoordAtt", "ShuffleAttention", "NonLocal")
few = pytest.mark.parametrize("name", slow_but(NAMES, *FEW))


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


@each
def test_any_width_from_8_and_any_size_down_to_one_pixel(name):
    for channels in (8, 12, 72):
        m = build(name, channels)
        for batch, size, train in (
            (1, (1, 1), True),
            (1, (1, 1), False),
            (2, (1, 5), True),
            (1, (3, 1), True),
            (2, (5, 4), True),
        ):
            x = sample(batch, channels, *size).requires_grad_()
            y = m.train(train)(x)
            y.square().sum().backward()
            assert y.shape == x.shape and y.dtype == x.dtype
            assert y.isfinite().all() and x.grad.isfinite().all(), (channels, size, batch, train)
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


@each
def test_channels_last_gives_the_same(name):
    m = stir(build(name)).eval()
    x = sample(2, 16, 6, 5)
    torch.testing.assert_close(m(x.to(memory_format=torch.channels_last)), m(x), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- precision


@each
@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.bfloat16, id="bf16", marks=slow), pytest.param(torch.float16, id="fp16")]
)
@pytest.mark.parametrize("device", DEVICES)
def test_autocast_at_large_activations(name, dtype, device):
    side = 160 if device == "cuda" or name not in QUADRATIC else 48
    side = side if dtype == torch.float16 else 40  # bf16 ends where fp32 does
    m = build(name, 8).to(device)
    x = (sample(1, 8, side, side) * 1e3).to(device, dtype).requires_grad_()
    with torch.autocast(device, dtype=dtype):
        y = m(x)
    assert y.dtype == dtype
    y.float().mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in m.parameters())


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_a_module_of_half_precision_overflows_nowhere(name, dtype):
    """As in `val` and `export` with half=True: weights are half as well, and there is no autocast."""
    x = sample(1, 8, 48, 48) * 1e3
    m = build(name, 8).eval()
    y = copy.deepcopy(m).to(dtype)(x.to(dtype))
    assert y.dtype == dtype and y.isfinite().all()


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
@pytest.mark.parametrize("start", ["paper", "identity"])
def test_copies_pickles_and_state_dicts_are_the_same_module(name, start):
    m = stir(build(name, start=start)).eval()
    x = sample(2, 16, 5, 4)
    y = m(x)
    file = io.BytesIO()
    torch.save(m, file)
    file.seek(0)
    other = build(name, seed=5, start=start).eval()
    other.load_state_dict(m.state_dict())
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m)), torch.load(file, weights_only=False), other):
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
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("warn_only", [False, True])
def test_deterministic_algorithms_without_a_warning(name, device, warn_only):
    m = build(name).to(device)
    x = sample(2, 16, 9, 8).to(device).requires_grad_()
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            m(x).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@each
def test_inplace_activations_change_nothing(name):
    """Hosts set `.inplace = True` on whatever has it."""
    m = stir(build(name)).eval()
    x = sample(2, 16, 6, 5)
    y = m(x)
    for part in m.modules():
        if hasattr(part, "inplace"):
            part.inplace = True
    given = x.clone()
    assert torch.equal(m(given), y) and torch.equal(given, x)


@each
def test_shapes_without_data(name):
    """On the meta device, where tools count operations and learn shapes."""
    with torch.device("meta"):
        m = build(name)
        assert m.train()(torch.empty(2, 16, 6, 5)).shape == (2, 16, 6, 5)


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
def test_no_attribute_hides_a_method_of_torch(name):
    """`self.half = 8` would take `model.half()` away from the host."""
    methods = {n for n in dir(nn.Module) if callable(getattr(nn.Module, n))}
    for part in build(name, start="identity").modules():
        assert not methods & {*vars(part), *part._parameters, *part._modules, *part._buffers}


@each
def test_bare_parameters_are_called_weight_or_bias(name):
    """The optimizers of older hosts collect parameters by these names only."""
    for start in ("paper", "identity"):
        assert {n.rsplit(".", 1)[-1] for n, _ in build(name, start=start).named_parameters()} <= {"weight", "bias"}


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


@few  # every module leaves as a static graph in tests/export/test_export_modules.py
@pytest.mark.parametrize("start", ["paper", "identity"])
def test_onnx_with_dynamic_batch_height_and_width(name, start):
    m = stir(build(name, start=start)).eval()
    session = onnxruntime.InferenceSession(export(m, sample(2, 16, 8, 6)), providers=["CPUExecutionProvider"])
    for shape in ((2, 16, 8, 6), (1, 16, 5, 9), (3, 16, 1, 1), (1, 16, 12, 2)):
        x = sample(*shape, seed=3)
        (y,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(y, m(x).detach().numpy(), rtol=1e-3, atol=1e-4)


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
    "NAM": 8, "SK": 17, "GC": 16, "ELA": 20, "SimAM": 22, "GE": 22, "DoubleAttention": 40, "SGE": 7, "EMAttention": 20,
    "ParallelPolarizedSelfAttention": 25, "SequentialPolarizedSelfAttention": 25, "ShuffleAttention": 19, "NonLocal": 39,
    "DualAttention": 58, "S2Attention": 52, "CrissCross": 84, "MLCA": 57, "FcaNet": 36, "SCSA": 137, "MHSA": 123,
    "BiLevelRoutingAttention": 382, "ACmix": 230, "DAttention": 331, "Halo": 322, "Outlook": 190, "MSDA": 531,
    "ExternalAttention": 26, "FocusedLinearAttention": 120, "iRMB": 299, "DeformableLKA": 132,
    "DeformableLKAAttention": 140, "CoT": 103, "CoTAttention": 35,
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(SIZED, "ShuffleAttention", "NonLocal"))
def test_the_exported_graph_of_grouping_modules_does_not_grow(name):
    graph = onnx.load_from_string(export(stir(build(name)).eval(), sample(2, 16, 8, 6))).graph
    assert sum(n.op_type != "Constant" for n in graph.node) <= SIZED[name]


@pytest.mark.parametrize("name", slow_but(KIT, *FEW))  # each alone in tests/export/test_export_modules.py
@pytest.mark.parametrize("slim", [False, True], ids=["plain", "slim"])
def test_opencv_runs_the_graph(name, slim):
    """Between convolutions, as in a detector, where OpenCV fuses neighbours; also as the hosts simplify it."""
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 lacks operations that detectors need")
    if name == "BAM":
        pytest.skip("OpenCV 5.0 takes the sum of its two branches for a residual; said in the module's header")
    conv = nn.Conv2d(3, 16, 3, 2, 1)
    m = nn.Sequential(conv, nn.SiLU(), stir(build(name)), nn.Conv2d(16, 8, 3, 2, 1)).eval()
    data, x = export(m, sample(1, 3, 32, 24), dynamic=False), sample(1, 3, 32, 24)
    if slim:
        onnxslim = pytest.importorskip("onnxslim")
        data = onnxslim.slim(onnx.load_from_string(data)).SerializeToString()
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
@pytest.mark.parametrize("start", ["paper", pytest.param("identity", marks=slow)])
def test_gradcheck(name, start):
    m = stir(build(name, 8, start=start)).double()
    names = [n for n, _ in m.named_parameters()]

    def f(x, *values):
        return torch.func.functional_call(m, dict(zip(names, values)), (x,))

    m.eval()  # batch norms as fixed maps: their own derivative is torch's affair
    x = sample(2, 8, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(f, (x, *m.parameters()), fast_mode=True)


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
