"""SE-ResNet and ECA-ResNet: published parameter counts, and outputs equal to timm's and torchvision's."""

from __future__ import annotations

import copy
import math
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from yolo_attn.model_yaml import check, find, load
from yolo_attn.model_yaml.dialect import detection_levels
from yolo_attn.model_yaml.graph import Graph
from yolo_attn.modules.eca import eca_kernel_size
from yolo_attn.modules.resnet import (
    LAYOUTS,
    AttentionResNet,
    Classifier,
    eca_resnet,
    rows_state_dict,
    se_resnet,
)

RESNET = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}  # torchvision's
SE = {18: 11_778_592, 34: 21_958_868, 50: 28_088_024, 101: 49_326_872, 152: 66_821_848}  # timm's legacy_seresnet*


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(make: Any, *args: Any, **options: Any) -> int:
    """Count without allocating."""
    with torch.device("meta"):
        return count(make(*args, **options))


def widths(depth: int) -> list[int]:
    """Channels of each block's output."""
    kind, counts = LAYOUTS[depth]
    return [64 * 2**j * (4 if kind == "bottleneck" else 1) for j, n in enumerate(counts) for _ in range(n)]


# --- parameters ----------------------------------------------------------------------------------------------------


def test_published_counts() -> None:
    assert on_meta(se_resnet, 50) == 28_088_024  # timm seresnet50; 28.1 M in the paper
    assert on_meta(se_resnet, 50, bias=False) == 28_071_976  # equation 3 to the letter; 28.1 M as well
    assert on_meta(se_resnet, 50, small_images=True) == 28_080_344  # 3x3 stem
    assert on_meta(eca_resnet, 50) == 25_557_118
    assert on_meta(eca_resnet, 50, kernel_size=5) - RESNET[50] == 80  # the paper's abstract
    assert round(on_meta(eca_resnet, 50, kernel_size=5) / 2**20, 2) == 24.37  # its table, in units of 2^20


@pytest.mark.parametrize("depth", LAYOUTS)
def test_counts_of_every_depth_and_the_cost_formulas(depth: int) -> None:
    c = widths(depth)
    assert on_meta(AttentionResNet, depth, module=None) == RESNET[depth]
    assert on_meta(se_resnet, depth) == SE[depth]
    assert on_meta(se_resnet, depth, bias=False) == RESNET[depth] + sum(2 * x * x // 16 for x in c)
    assert on_meta(se_resnet, depth) == RESNET[depth] + sum(2 * x * x // 16 + x + x // 16 for x in c)
    assert on_meta(eca_resnet, depth) == RESNET[depth] + sum(eca_kernel_size(x) for x in c)


@pytest.mark.parametrize("depth", LAYOUTS)
@pytest.mark.parametrize("short", ["se", "eca"])
def test_yaml_has_the_count(depth: int, short: str) -> None:
    make = se_resnet if short == "se" else eca_resnet
    assert on_meta(build, f"{short}resnet{depth}-cls.yaml") == on_meta(make, depth)


def test_yaml_for_small_images_has_the_count() -> None:
    assert on_meta(build, "seresnet50-small-cls.yaml") == 28_080_344


# --- numbers -------------------------------------------------------------------------------------------------------


def scrambled(module: nn.Module) -> nn.Module:
    """float64, with batch normalization statistics and attention biases away from their start."""
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.8, 1.2)
            nn.init.uniform_(m.weight, 0.8, 1.2)
    return module.double().eval()


def same(own: nn.Module, oracle: nn.Module, size: int = 48) -> None:
    """Outputs and input gradients agree to 1e-10."""
    x = torch.randn(2, 3, size, size - 16, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = own(a), oracle(b)
    assert z.abs().max() > 1e-3
    torch.testing.assert_close(y, z, rtol=1e-10, atol=1e-10)
    (y * y).sum().backward()
    (z * z).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10)


def test_se_resnet_50_equals_timms() -> None:
    timm = pytest.importorskip("timm")
    oracle = scrambled(timm.create_model("seresnet50"))
    own = se_resnet(50).double().eval()
    own.load_state_dict(oracle.state_dict())  # every name and shape as timm's
    same(own, oracle)


def test_se_resnet_18_equals_timms_with_unrounded_hidden_widths() -> None:
    timm = pytest.importorskip("timm")
    se = partial(timm.layers.SEModule, rd_ratio=1 / 16, rd_divisor=1)
    oracle = scrambled(timm.create_model("resnet18", block_args={"attn_layer": se}))
    own = se_resnet(18).double().eval()
    own.load_state_dict(oracle.state_dict())
    same(own, oracle)


def test_eca_resnet_50_equals_timms() -> None:
    timm = pytest.importorskip("timm")
    oracle = scrambled(timm.create_model("resnet50", block_args={"attn_layer": "eca"}))
    own = eca_resnet(50).double().eval()
    own.load_state_dict(
        {k: v.unsqueeze(-1) if k.endswith(".se.conv.weight") else v for k, v in oracle.state_dict().items()}
    )
    same(own, oracle)


def test_without_attention_it_is_torchvisions_resnet() -> None:
    models = pytest.importorskip("torchvision").models
    oracle = scrambled(models.resnet34())
    own = AttentionResNet(34, module=None).double().eval()
    own.load_state_dict(oracle.state_dict())
    same(own, oracle)


def test_stages_have_strides_4_to_32() -> None:
    net = se_resnet(18, 10).eval()
    assert [tuple(s.shape[1:]) for s in net.stages(torch.randn(1, 3, 64, 96))] == [
        (64, 16, 24),
        (128, 8, 12),
        (256, 4, 6),
        (512, 2, 3),
    ]


# --- in the host ---------------------------------------------------------------------------------------------------


def build(name: str) -> nn.Module:
    from ultralytics import YOLO

    return YOLO(name, verbose=False).model


def test_timms_weights_load_into_the_yaml() -> None:
    timm = pytest.importorskip("timm")
    oracle = scrambled(timm.create_model("seresnet50"))
    net = build("seresnet50-cls.yaml").double().eval()
    net.load_state_dict(rows_state_dict(oracle.state_dict()))  # strict: every tensor has its place
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-5  # the host's is 1e-3
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(net(x)[1], oracle(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net(x)[0], oracle(x).softmax(1), rtol=1e-10, atol=1e-10)


def test_timms_weights_load_into_the_detector() -> None:
    timm = pytest.importorskip("timm")
    oracle = timm.create_model("resnet18", block_args={"attn_layer": "eca"})
    net = build("yolov5_ecaresnet18.yaml")
    state = rows_state_dict(oracle.state_dict())
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert sorted(unexpected) == ["model.5.linear.bias", "model.5.linear.weight"]
    assert all(int(k.split(".")[1]) > 4 for k in missing)
    assert net.stride.tolist() == [8, 16, 32]


def test_other_number_of_classes() -> None:
    from ultralytics.nn.tasks import ClassificationModel

    net = ClassificationModel("seresnet18-cls.yaml", nc=7, verbose=False)
    assert net.model[-1].linear.out_features == 7
    assert net.train()(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    net.fuse(verbose=False)
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def test_head_gives_probabilities_and_scores() -> None:
    head = Classifier([8, 8], 5).eval()
    x = [torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)]
    head.pairs = True
    probability, score = head(x)
    torch.testing.assert_close(probability, score.softmax(1))
    torch.testing.assert_close(score, head.linear(torch.cat(x, 1).mean((2, 3))))
    head.pairs = False
    assert torch.equal(head(x), probability)
    assert torch.equal(head.train()(x), score)
    assert torch.equal(copy.deepcopy(head)(x), score)
    head.eval().pairs = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer is deprecated, and still what the hosts export with
        assert torch.jit.trace(head, (x,))(x).shape == (2, 5)  # one output in an export


def test_every_shipped_yaml_reads_alike() -> None:
    """The files of a family differ in depth and widths only."""
    for kind, last in (("-cls", "Classifier"), ("", "Detect")):
        for short in ("se", "eca"):
            for depth, (_, counts) in LAYOUTS.items():
                name = f"{short}resnet{depth}-cls.yaml" if kind else f"yolov5_{short}resnet{depth}.yaml"
                path = find.configs_folder() / name
                d = load.read(path)
                check.validate(d, name)
                stages = d["backbone"][1:5]
                assert [r[1] for r in stages] == list(counts)
                assert {r[2] for r in stages} == {f"{short.upper()}ResNetLayer"}
                assert [r[3][1] for r in stages] == [1, 2, 2, 2]
                assert d["head"][-1][2] == last


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="18, 34, 50, 101, 152"):
        se_resnet(42)
    with pytest.raises(TypeError, match="ratio"):
        se_resnet(18, ratio=4)
    assert math.isclose(sum(widths(50)), 3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048)


@pytest.mark.parametrize(
    "name", ["yolov5_seresnet18.yaml", "yolov5_ecaresnet50.yaml", "yolov5_c3se.yaml", "yolov5_bifpn.yaml"]
)
def test_levels_of_the_rows_are_known(name: str) -> None:
    """Anchors of the classic host and the places of `insert` follow from the rows' strides."""
    d = load.read(find.configs_folder() / name)
    assert detection_levels(d, name) == (3, 4, 5)
    strides = list(Graph.of(d).strides().values())
    assert [strides[i] for i in d["head"][-1][0]] == [8, 16, 32]
