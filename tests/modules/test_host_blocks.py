"""The hosts' further blocks with attention inside: their own numbers while it is the identity, and every YAML they stand in."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from test_blocks import FURTHER, randomize
from torch import nn

import yolo_attn
from yolo_attn.errors import RowError, UsageError
from yolo_attn.modules import host_stages
from yolo_attn.modules._conv import fuse
from yolo_attn.registry import registry

ONES = [(16, 24, 1), (16, 24, 2, False)]
CASES: dict[str, list[tuple[Any, ...]]] = {
    "C3x": ONES,
    "C3TR": ONES,
    "C3Ghost": [(16, 32, 1), (16, 32, 2, False)],
    "C2": ONES,
    "C2fCIB": [(16, 24, 1), (16, 24, 2, True), (16, 24, 1, True, True)],
    "RepC3": [(16, 24, 1), (16, 24, 2, 0.5)],
    "RepNCSPELAN4": [(16, 24, 24, 16, 1), (16, 24, 16, 8, 2)],
    "ELAN1": [(16, 24, 24, 16)],
    "A2C2f": [(16, 64, 1), (64, 64, 2, True, 2, True, 1.2), (16, 64, 2, False)],
    "HGBlock": [(16, 8, 24, 3), (24, 8, 24, 5, 2, True, True)],
    "ResNetLayer": [(3, 16, 1, True), (16, 8, 2, False, 2), (32, 8, 1, False, 1)],
    "Bottleneck": [(16, 24), (16, 16, False), (16, 16)],
}
EACH = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


def host_of(name: str) -> Any:
    block = pytest.importorskip("ultralytics.nn.modules.block")
    if not hasattr(block, name):
        pytest.skip(f"this ultralytics has no {name}")
    return getattr(block, name)


def pair(name: str, i: int, **options: Any) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """The host's block, ours with its weights, and an input."""
    args = CASES[name][i]
    own_args, more = args, dict(options)
    if name == "HGBlock":
        own_args, more = (*args[:4], *args[5:]), {"repeats": args[4] if len(args) > 4 else 6, **options}
    if name == "Bottleneck":
        more["host_kernels"] = (3, 3)
    host = randomize(host_of(name)(*args))
    own = registry.get_module(f"{name}Attention")(*own_args, **more)
    missing, unexpected = own.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected and all("attn." in k for k in missing), (missing, unexpected)
    return host, own, torch.randn(2, args[0], 12, 8)


@pytest.mark.parametrize(("name", "i"), EACH)
def test_without_attention_it_is_the_hosts_block(name: str, i: int) -> None:
    host, own, x = pair(name, i, module=None)
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in host.state_dict().items()}
    for mode in (False, True):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = host.train(mode)(a), own.train(mode)(b)
        assert torch.equal(y, z)
        y.square().sum().backward()
        z.square().sum().backward()
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6 * float(a.grad.abs().max()))


@pytest.mark.parametrize("module", ["CBAM", "EMA"])
@pytest.mark.parametrize(("name", "i"), EACH)
def test_identity_start_equals_the_hosts_block_bit_for_bit(name: str, i: int, module: str) -> None:
    host, own, x = pair(name, i, module=module, start="identity")
    assert torch.equal(host.eval()(x), own.eval()(x))
    assert len([k for k in own.state_dict() if "attn." in k]) > len([k for k in host.state_dict() if "attn." in k])


@pytest.mark.parametrize(("name", "i"), EACH)
def test_attention_acts_and_what_acts_survives_fuse_pickle_and_export(name: str, i: int) -> None:
    _, own, x = pair(name, i, module="SE")
    assert not torch.equal(own.eval()(x), pair(name, i, module=None)[1].eval()(x))
    want = own(x)
    buffer = io.BytesIO()
    torch.save(own, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), want)
    fused = fuse(copy.deepcopy(own))
    assert not any(type(m) is nn.BatchNorm2d for m in fused.modules())
    scale = float(want.abs().max())
    assert float((fused(x) - want).abs().max()) < 1e-4 * scale
    assert torch.equal(fuse(fused)(x), fused(x))
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    del onnx
    out = io.BytesIO()
    more = {"dynamo": False} if "dynamo" in torch.onnx.export.__code__.co_varnames else {}
    torch.onnx.export(fused.eval(), (x,), out, opset_version=17, input_names=["x"], **more)
    session = onnxruntime.InferenceSession(out.getvalue(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": x.numpy()})
    assert float((torch.from_numpy(got) - want).abs().max()) < 1e-3 * scale


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (2, 5)])
@pytest.mark.parametrize("name", sorted(FURTHER))
def test_any_size_and_half_precision(name: str, size: tuple[int, int]) -> None:
    name = name[: -len("Attention")]
    args, host_args = CASES[name][0], CASES[name][0]
    own_args, more = (args[:4], {"repeats": 2}) if name == "HGBlock" else (host_args, {})
    own = registry.get_module(f"{name}Attention")(*own_args, **more).eval()
    x = torch.randn(1, args[0], *size)
    if name == "A2C2f":
        own = registry.get_module("A2C2fAttention")(16, 64, 1, True, 1).eval()
    y = own(x)
    assert y.dim() == 4 and torch.isfinite(y).all()
    assert own.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    with pytest.raises((TypeError, ValueError), match=r"needs (at least 1|an integer) for c1"):
        registry.get_module(f"{name}Attention")(0, *own_args[1:], **more)


def test_aifi_with_the_hosts_attention_is_the_hosts() -> None:
    """The module stands in place of the self-attention: with that very one, the layer is the host's."""
    transformer = pytest.importorskip("ultralytics.nn.modules.transformer")
    host = transformer.AIFI(16, 32, 2).eval()
    own = host_stages.AIFIAttention(16, 32, 2, module="SimAM").eval()
    missing, unexpected = own.load_state_dict(host.state_dict(), strict=False)
    assert not missing and all(k.startswith("ma.") for k in unexpected)

    class Theirs(nn.Module):
        def forward(self, placed: torch.Tensor) -> torch.Tensor:
            q = placed.flatten(2).transpose(1, 2)
            v = x.flatten(2).transpose(1, 2)
            return host.ma(q, q, value=v)[0].transpose(1, 2).reshape(placed.shape)

    own.ma = Theirs()
    x = torch.randn(2, 16, 6, 4)
    assert torch.allclose(own(x), host(x), atol=1e-5)


@pytest.mark.parametrize(
    ("yaml", "block", "after"),
    [
        ("yolov3-tiny", None, None), ("yolov3", "BottleneckAttention", None),
        ("yolov10n", "C2fCIBAttention", "C2fCIB"), ("yolov9t", "ELAN1Attention", "ELAN1"),
        ("yolov9c", "RepNCSPELAN4Attention", None), ("yolo12n", "A2C2fAttention", "A2C2f"),
        ("yolov8-ghost", "C3GhostAttention", None), ("yolo11n", "C2PSAAttention", "C2PSA"),
        ("rtdetr-l", "HGBlockAttention", None), ("rtdetr-l", "AIFIAttention", "AIFI"),
        ("rtdetr-resnet50", "ResNetLayerAttention", None), ("yolov6n", None, None),
    ],
)  # fmt: skip
def test_insert_inside_and_remove_give_back_the_text(yaml: str, block: str | None, after: str | None) -> None:
    from yolo_attn.model_yaml import find

    try:
        text = find.require(f"{yaml}.yaml").read_text()
    except yolo_attn.YoloAttnError:
        pytest.skip(f"this ultralytics has no {yaml}.yaml")
    if block is None:
        with pytest.raises(UsageError):
            yolo_attn.insert(text, "ECA", where="inside")
        return
    new = yolo_attn.insert(text, "ECA", where="inside", after=after, start="identity")
    assert block in new and yolo_attn.remove(new) == text


@pytest.mark.parametrize("yaml", ["yolov10n", "yolo12n", "yolov9t"])
def test_a_model_with_attention_inside_is_the_plain_one_until_trained(yaml: str) -> None:
    from ultralytics.nn import tasks

    from yolo_attn.model_yaml import find, load

    d = load.load_ultralytics(f"{yaml}.yaml", find.require(f"{yaml}.yaml"))
    plain = tasks.DetectionModel(copy.deepcopy(d), verbose=False)
    after = {"yolov10n": "C2fCIB", "yolo12n": "A2C2f", "yolov9t": "RepNCSPELAN4"}[yaml]
    if yaml == "yolo12n":
        plain_rows = [r for r in d["backbone"] + d["head"] if r[2] == "C3k2"]
        assert plain_rows  # the head's form stays
    new = yolo_attn.insert(d, "ECA", where="inside", after=after, start="identity")
    with_attention = tasks.DetectionModel(copy.deepcopy(new), verbose=False)
    report = yolo_attn.transfer(plain, with_attention)
    assert len(report.mapping) == len(plain.state_dict())
    x = torch.rand(1, 3, 64, 64)
    a, b = plain.eval()(x)[0], with_attention.eval()(x)[0]
    assert torch.equal(a, b)


def test_a_hidden_width_that_the_host_asserts_is_told_at_the_row() -> None:
    from ultralytics.nn.tasks import DetectionModel

    d = {
        "nc": 1, "yaml_file": "m.yaml", "head": [[[-1], 1, "Detect", ["nc"]]],
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "A2C2fAttention", [16]]],
    }  # fmt: skip
    with pytest.raises(RowError, match="m.yaml, row 1 .*the 8 hidden channels must be a multiple of 32"):
        DetectionModel(d, verbose=False)
