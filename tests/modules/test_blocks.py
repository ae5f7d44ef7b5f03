"""Blocks against the hosts' own: same names, same numbers, and what every block and fusion module must survive."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import slow_but
from torch import nn

import yolo_attn
from yolo_attn.errors import RowError, UnknownModuleError
from yolo_attn.modules._conv import Conv, attention_of, fuse
from yolo_attn.modules.blocks import C3SE, C2fAttention, C3Attention, C3k2Attention, SEConv
from yolo_attn.registry import registry

ATTENTION = [n for k in ("channel", "spatial", "both") for n in registry.list_modules(kind=k)]
slow = pytest.mark.slow
IDENTITY = [n for n in ATTENTION if "start" in registry.get_entry(n).binding.signature.parameters]
# Those whose row states more than the output width, or that come at other widths, are in test_host_blocks.
FURTHER = {f"{n}Attention" for n in ("A2C2f", "ELAN1", "HGBlock", "RepNCSPELAN4", "ResNetLayer")}
BLOCKS = [n for n in registry.list_modules(kind="block") if n not in FURTHER]
FUSION = registry.list_modules(kind="fusion")
THIN = {"C3SE": "SEAttention", "C3ECA": "ECA", "C3CBAM": "CBAM", "C3CA": "CoordAtt"}


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


def randomize(module: nn.Module) -> nn.Module:
    """Give batch normalization statistics and weights of a trained network."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.3)
    return module


def row(name: str, c1: int = 16, c2: int = 16) -> tuple[nn.Module, Any]:
    """Build a block or fusion module as a row with its default arguments would, and an input for it."""
    entry = registry.get_entry(name)
    if entry.kind == "fusion":
        return entry.cls([c1, c1]), [torch.randn(2, c1, 9, 7), torch.randn(2, c1, 9, 7)]
    return entry.cls(c1, c2), torch.randn(2, c1, 9, 7)


def sizes(x: Any, *shape: int) -> Any:
    return [torch.randn(*shape) for _ in x] if isinstance(x, list) else torch.randn(*shape)


# --- the hosts' blocks ---------------------------------------------------------------------------------------------


def hosts_blocks() -> list[tuple[type, type]]:
    from ultralytics.nn.modules import C3, C2f

    return [(C3, C3Attention), (C2f, C2fAttention)]


@pytest.mark.parametrize("which", [0, 1], ids=["C3", "C2f"])
@pytest.mark.parametrize(("c1", "c2", "n", "shortcut", "g"), [(16, 24, 1, True, 1), (8, 16, 3, False, 2)])
def test_without_attention_it_is_the_hosts_block(which: int, c1: int, c2: int, n: int, shortcut: bool, g: int) -> None:
    host_class, own_class = hosts_blocks()[which]
    host = randomize(host_class(c1, c2, n, shortcut, g))
    own = own_class(c1, c2, n, shortcut, g, module=None)
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in host.state_dict().items()}
    own.load_state_dict(host.state_dict())
    x = torch.randn(2, c1, 11, 6)
    for mode in (False, True):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = host.train(mode)(a), own.train(mode)(b)
        assert torch.equal(y, z)
        y.square().sum().backward()
        z.square().sum().backward()
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("options", [{}, {"c3k": True}, {"e": 0.25, "g": 2, "shortcut": False}], ids=str)
@pytest.mark.parametrize("attention", slow_but([None, *IDENTITY], None, "SEAttention", "CoordAtt"))
def test_c3k2_is_the_hosts_while_attention_is_the_identity(attention: str | None, options: dict[str, Any]) -> None:
    blocks = pytest.importorskip("ultralytics.nn.modules.block")
    if not hasattr(blocks, "C3k2"):
        pytest.skip("this ultralytics has no C3k2")
    host = randomize(blocks.C3k2(16, 32, 2, **options)).eval()
    start = {} if attention is None else {"start": "identity"}
    own = C3k2Attention(16, 32, 2, **options, module=attention, **start).eval()
    missing, unexpected = own.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected and all(".attn." in k for k in missing) and bool(missing) <= (attention is not None)
    x = torch.randn(2, 16, 9, 7)
    assert torch.equal(own(x), host(x))


def test_c3k2_with_attention_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="has attention of its own"):
        C3k2Attention(8, 8, 1, True, 0.5, True)


@pytest.mark.parametrize("place", ["inside", pytest.param("after", marks=slow)])
@pytest.mark.parametrize("which", [pytest.param(0, id="C3"), pytest.param(1, id="C2f", marks=slow)])
@pytest.mark.parametrize("module", IDENTITY)
def test_identity_start_equals_the_hosts_block_bit_for_bit(which: int, module: str, place: str) -> None:
    host_class, own_class = hosts_blocks()[which]
    host = randomize(host_class(16, 32, 2, True)).eval()
    own = own_class(16, 32, 2, True, module=module, place=place, start="identity").eval()
    missing, unexpected = own.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected
    assert all(".attn." in f".{k}" for k in missing)
    x = torch.randn(2, 16, 12, 10)
    assert torch.equal(own(x), host(x))


@pytest.mark.parametrize("name", THIN)
def test_thin_spelling_equals_the_generic_block(name: str) -> None:
    module = THIN[name]
    thin = registry.get_module(name)(16, 32, 2, False).eval()
    generic = C3Attention(16, 32, 2, False, module=module).eval()
    generic.load_state_dict(thin.state_dict())
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(thin(x), generic(x))
    assert type(thin.m[0].attn) is registry.get_module(module)
    assert type(thin.attn) is nn.Identity


def test_place_after_puts_one_module_behind_the_block() -> None:
    block = C3Attention(16, 32, 3, module="SE", place="after", reduction=4).eval()
    assert block.attn.fc1.out_channels == 32 // 4
    assert not [k for k in block.state_dict() if k.startswith("m.") and "attn" in k]
    plain = C3Attention(16, 32, 3, module=None).eval()
    plain.load_state_dict(block.state_dict(), strict=False)
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(block(x), block.attn(plain(x)))


@pytest.mark.parametrize(("k", "s", "g", "d"), [(1, 1, 1, 1), (3, 2, 1, 1), (6, 2, 1, 1), (3, 1, 4, 2), (5, 1, 1, 2)])
def test_seconv_is_the_hosts_conv_then_se(k: int, s: int, g: int, d: int) -> None:
    from ultralytics.nn.modules import Conv as HostConv

    p = 2 if k == 6 else None  # the padding that YOLOv5's first row states
    host = randomize(HostConv(8, 16, k, s, p, g, d)).eval()
    own = SEConv(8, 16, k, s, p, g, d, reduction=4).eval()
    missing, unexpected = own.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected and sorted(missing) == ["attn.fc1.weight", "attn.fc2.weight"]
    x = torch.randn(2, 8, 13, 12)
    assert torch.equal(own(x), own.attn(host(x)))


def test_options_reach_the_attention_module() -> None:
    block = C3SE(32, 64, 2, reduction=8, min_channels=1, bias=True)
    assert [b.attn.fc1.out_channels for b in block.m] == [4, 4]
    assert block.m[0].attn.fc1.bias is not None


def test_a_class_or_a_module_without_channels_can_be_given() -> None:
    assert isinstance(C3Attention(8, 16, module=nn.Dropout, p=0.5).m[0].attn, nn.Dropout)
    assert type(attention_of("SEVar1", 8, "test", {})).__name__ == "SEVar1"
    assert type(attention_of("yolo_attn.ECA", 8, "test", {})).__name__ == "ECA"


# --- mistakes ------------------------------------------------------------------------------------------------------


def model(*rows: list[Any], **more: Any) -> dict[str, Any]:
    head = [[[-1], 1, "Detect", ["nc"]]]
    return {"nc": 2, "backbone": [[-1, 1, "Conv", [16, 3, 2]], *rows], "head": head, "yaml_file": "mine.yaml", **more}


def build(d: dict[str, Any]) -> Any:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(copy.deepcopy(d), verbose=False)


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ([32, {"module": "ECAA"}], UnknownModuleError, ["mine.yaml, row 1", "ECAA", "Did you mean", "ECA"]),
        ([32, {"module": "C3SE"}], RowError, ["mine.yaml, row 1", "C3SE is a block"]),
        ([32, {"module": "WeightedConcat"}], RowError, ["mine.yaml, row 1", "WeightedConcat is a block"]),
        ([32, {"module": "SE", "ratio": 4}], RowError, ["mine.yaml, row 1", "ratio", "reduction=16"]),
        ([32, {"place": "behind"}], RowError, ["mine.yaml, row 1", "'inside'", "'after'", "'behind'"]),
        ([32, {"module": 3}], RowError, ["mine.yaml, row 1", "module must be", "got 3"]),
        ([32, {"reduction": "much"}], RowError, ["mine.yaml, row 1", "reduction", "'much'"]),
        ([32, True, 1, 0.01], RowError, ["mine.yaml, row 1", "e=0.01 of 32 channels"]),
        ([32, True, 3], RowError, ["mine.yaml, row 1", "g=3 does not divide the 16"]),
        ([32, {"shortcut": "no"}], RowError, ["mine.yaml, row 1", "shortcut", "'no'"]),
        ([32, {"module": None, "reduction": 4}], RowError, ["mine.yaml, row 1", "reduction"]),
        ([], RowError, ["mine.yaml, row 1", "output channels is missing"]),
    ],
)
def test_a_mistake_in_a_row_is_one_clear_error(args: list[Any], error: type, words: list[str]) -> None:
    with pytest.raises(error) as caught:
        build(model([-1, 1, "C3Attention", args]))
    assert all(w in str(caught.value) for w in words), caught.value


@pytest.mark.parametrize("name", [n for n in BLOCKS if n != "SEConv"])
def test_widths_that_make_no_sense_are_refused(name: str) -> None:
    cls = registry.get_module(name)
    with pytest.raises(ValueError, match="at least"):
        cls(8, 0)
    with pytest.raises(TypeError, match="one input"):
        cls([8, 8], 8)


@pytest.mark.parametrize("name", ["SEConv", "SEInception"])
def test_an_activation_by_name_is_refused(name: str) -> None:
    """It would mean none at all."""
    with pytest.raises(ValueError, match=f"{name}: act must be True.*got 'relu'"):
        registry.get_module(name)(8, 8, act="relu")


def test_a_bottleneck_without_hidden_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="SEBottleneck: e=-1 of 8 channels"):
        registry.get_module("SEBottleneck")(8, 8, e=-1)


def test_module_may_name_what_the_yaml_registers(tmp_path: Path, home: Path) -> None:
    from ultralytics import YOLO

    (tmp_path / "halving.py").write_text(
        "from torch import nn\n\n\nclass Half(nn.Module):\n    def __init__(self, channels, factor=0.5):\n"
        "        super().__init__()\n        self.channels, self.factor = channels, factor\n\n"
        "    def forward(self, x):\n        return x * self.factor\n"
    )
    d = model([-1, 1, "C3Attention", [32, {"module": "Half", "factor": 0.25}]], register={"Half": "halving.py:Half"})
    del d["yaml_file"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(d))
    inner = YOLO(tmp_path / "mine.yaml", verbose=False).model.model[1].m[0].attn
    assert (type(inner).__name__, inner.channels, inner.factor) == ("Half", 16, 0.25)


# --- in a detector -------------------------------------------------------------------------------------------------


def test_row_binds_channels_width_and_depth() -> None:
    d = model([-1, 6, "C3Attention", [64, False, {"module": "ECA", "kernel_size": 7}]])
    net = build({**d, "depth_multiple": 0.5, "width_multiple": 0.5})
    block = net.model[1]
    assert (block.cv1.conv.in_channels, block.cv3.conv.out_channels, len(block.m)) == (8, 32, 3)
    assert block.m[0].attn.conv.weight.shape[2] == 7
    assert not block.m[0].add


@pytest.mark.parametrize(
    ("plain", "attentive", "name"),
    [("yolov5n.yaml", "yolov5n_c3se.yaml", "C3SE"), ("yolov8n.yaml", "yolov8n_c2fse.yaml", "C2fAttention")],
)
def test_pretrained_weights_of_the_plain_detector_load_by_name(plain: str, attentive: str, name: str) -> None:
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    stock = randomize(YOLO(plain, verbose=False).model).eval()
    d = yaml_model_load(attentive)
    rows = [r for r in d["backbone"] if r[2] == name]
    assert len(rows) == 4
    for r in rows:
        r[3] = [*r[3], {"start": "identity"}]
    own = DetectionModel(d, verbose=False).eval()
    missing, unexpected = own.load_state_dict(stock.float().state_dict(), strict=False)
    assert not unexpected
    assert missing and all(".attn." in k for k in missing)
    x = torch.rand(1, 3, 96, 64)
    assert torch.equal(own(x)[0], stock(x)[0])


def test_activation_of_the_yaml_is_followed() -> None:
    d = model([-1, 2, "C3SE", [32]], activation="torch.nn.LeakyReLU(0.1)")
    net = build(d)
    acts = {type(m.act) for m in net.modules() if type(m).__name__ == "Conv" and not isinstance(m.act, nn.Identity)}
    assert acts == {nn.LeakyReLU}
    assert type(Conv(8, 8).act) is nn.SiLU


@pytest.mark.parametrize("name", ["C3SE", "C2fAttention", "SEConv", "SEInception", "SEBottleneck", "ResNetStem"])
def test_hosts_fuse_folds_the_kits_batch_normalization(name: str) -> None:
    net = randomize(build(model([-1, 1, name, [32]]))).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = net.model[1](net.model[0](x))
        net.fuse(verbose=False)
        after = net.model[1](net.model[0](x))
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5)


def test_fuse_is_idempotent_and_leaves_quantized_convolutions() -> None:
    class Quantized(nn.Conv2d):
        pass

    block = Conv(4, 4).eval()
    conv = Quantized(4, 4, 1, bias=False)
    block.conv = conv
    fuse(block)
    assert block.conv is conv and isinstance(block.bn, nn.BatchNorm2d)
    other = fuse(Conv(4, 4))
    weight = other.conv.weight
    assert other.training and fuse(other).conv.weight is weight


# --- every block and fusion module ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BLOCKS, *FUSION])
@pytest.mark.parametrize("shape", [(2, 8, 9, 7), (1, 8, 1, 1), (1, 8, 1, 5), (1, 8, 16, 16)])
def test_eight_channels_and_any_size(name: str, shape: tuple[int, ...]) -> None:
    module, x = row(name, 8, 8)
    y = module.eval()(sizes(x, *shape))
    assert y.shape[0] == shape[0] and y.isfinite().all()
    assert y.shape[1] == {"WeightedConcat": 16}.get(name, 8)


@pytest.mark.parametrize("name", [*BLOCKS, *FUSION])
def test_copies_pickles_and_trains(name: str) -> None:
    module, x = row(name)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    others = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(buffer, weights_only=False)]
    module.train()
    y = module(x)
    y.square().mean().backward()
    grads = {k: p.grad for k, p in module.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    for other in others:
        assert torch.equal(other.train()(x), y)


@pytest.mark.parametrize("name", [*BLOCKS, *FUSION])
def test_deterministic_without_warning_and_in_place_safe(name: str) -> None:
    module, x = row(name)
    module.eval()
    want = module(x)
    for m in module.modules():  # what the host does to each module of a checkpoint that it loads
        if hasattr(m, "inplace"):
            m.inplace = True
    torch.use_deterministic_algorithms(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            given = [t.clone() for t in x] if isinstance(x, list) else x.clone()
            assert torch.equal(module(given), want)
            assert all(torch.equal(a, b) for a, b in zip(given, x))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", [*BLOCKS, *FUSION])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision_does_not_overflow(name: str, dtype: torch.dtype) -> None:
    module, x = row(name, 8, 8)
    module.eval()
    side = 40 if name in ("BoT3", "C3TRAttention") else 160  # where the time grows with the square of the positions
    x = (
        [t.abs().clamp(max=1) * 1e3 for t in sizes(x, 1, 8, side, side)]
        if isinstance(x, list)
        else torch.rand(1, 8, side, side) * 1e3
    )
    with torch.no_grad(), torch.autocast("cpu", dtype):
        y = module([t.to(dtype) for t in x] if isinstance(x, list) else x.to(dtype))
    assert y.isfinite().all()


@pytest.mark.parametrize("name", [*BLOCKS, *FUSION])
def test_channels_last_gives_the_same(name: str) -> None:
    module, x = row(name)
    module.eval()
    want = module(x)
    last = (
        [t.to(memory_format=torch.channels_last) for t in x]
        if isinstance(x, list)
        else x.to(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(module(last), want, rtol=1e-4, atol=1e-5)


# Those that `list` shows are compiled with their gradients in test_compile.py.
@slow
@pytest.mark.parametrize("name", [n for n in [*BLOCKS, *FUSION] if not registry.get_entry(n).lists])
def test_compiles_as_one_graph(name: str) -> None:
    module, x = row(name)
    want = module.eval()(x)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", slow_but([*BLOCKS, *FUSION], "C3SE", "SEConv", "BoT3", "WeightedFusion"))
def test_onnx_with_dynamic_batch_and_size(name: str, tmp_path: Path) -> None:
    import onnxruntime

    module, x = row(name)
    randomize(module).eval()
    args = (x,)
    names = [f"x{k}" for k in range(len(x))] if isinstance(x, list) else ["x0"]
    file = tmp_path / "block.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, args, str(file), input_names=names, output_names=["y"], dynamo=False, opset_version=17,
            dynamic_axes={k: {0: "b", 2: "h", 3: "w"} for k in [*names, "y"]},
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for shape in ((1, 16, 5, 12), (3, 16, 20, 8)):
        given = sizes(x, *shape)
        tensors = given if isinstance(given, list) else [given]
        got = session.run(None, {k: t.numpy() for k, t in zip(names, tensors)})[0]
        np.testing.assert_allclose(got, module(given).detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*BLOCKS, *FUSION])
def test_metadata_is_complete(name: str) -> None:
    entry = registry.get_entry(name)
    assert entry.paper and entry.arxiv and entry.oracle and entry.use
    assert (
        "(B, " in (entry.cls.__doc__ or "") or "see :class:" in entry.cls.__doc__ or issubclass(entry.cls, C3Attention)
    )


def test_inception_is_torchvisions_with_se_behind() -> None:
    from torchvision.models.googlenet import Inception

    own = randomize(yolo_attn.get_module("SEInception")(192, 256, large=3, act=nn.ReLU())).double().eval()
    oracle = Inception(192, 64, 96, 128, 16, 32, 32).double().eval()
    source = own.state_dict()
    state = {}
    for key in oracle.state_dict():
        branch, _, rest = key.partition(".")
        state[key] = source[{"branch4.1": "branch4.1"}.get(branch, branch) + "." + rest]
    oracle.load_state_dict(state)
    for m in oracle.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-5
    x = torch.randn(2, 192, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(own(x), own.attn(oracle(x)), rtol=0, atol=1e-10)
