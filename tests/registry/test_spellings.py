"""Blocks with attention as the field spells them: one rule for every module, and no name of a host's among them."""

from __future__ import annotations

import copy
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from yolo_attn import get_module
from yolo_attn.errors import RowError, UnknownModuleError
from yolo_attn.registry import registry
from yolo_attn.registry.spellings import BLOCKS

ATTENTION = [n for k in ("channel", "spatial", "both") for n in registry.list_modules(kind=k)]


def model(*rows: list[Any]) -> dict[str, Any]:
    head = [[[-1], 1, "Detect", ["nc"]]]
    return {"nc": 2, "backbone": [[-1, 1, "Conv", [16, 3, 2]], *rows], "head": head, "yaml_file": "mine.yaml"}


def build(*rows: list[Any]) -> Any:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(copy.deepcopy(model(*rows)), verbose=False)


def inner(block: nn.Module) -> set[str]:
    """The attention inside a block, by class name."""
    found = [m for n, m in block.named_modules() if re.fullmatch(r"(m\.\d+\.)*(attn|se)", n)]
    return {type(m).__name__ for m in found if not isinstance(m, nn.Identity)}


@pytest.mark.parametrize(
    ("spelling", "args", "block", "attention"),
    [
        ("C3GC", [32], "C3Attention", "GC"),
        ("C3_GC", [32, False], "C3Attention", "GC"),
        ("ECAC3", [32], "C3Attention", "ECA"),
        ("CoordAtt_C3", [32], "C3Attention", "CoordAtt"),
        ("C2f_iRMB", [32, True], "C2fAttention", "IRMB"),
        ("C2f_EMA", [32, True], "C2fAttention", "EMAttention"),
        ("C3k2_SCSA", [32, False, 0.5], "C3k2Attention", "SCSA"),
        ("Conv_CBAM", [32, 3, 2], "ConvAttention", "CBAM"),
        ("ResBlock_CBAM", [32], "SEBottleneck", "CBAM"),
        ("CBAMBottleneck", [32], "BottleneckAttention", "CBAM"),
        ("C2PSA_SENetV2", [16], "C2PSAAttention", "SENetV2"),
        ("Bottleneck_SimAM", [32, True, 1, 0.25], "BottleneckAttention", "SimAM"),
        ("yolo_attn.C3_cbam", [32], "C3CBAM", "CBAM"),
    ],
)
def test_a_row_is_the_block_with_that_module(spelling: str, args: list[Any], block: str, attention: str) -> None:
    layer = build([-1, 1, spelling, args]).model[1]
    if block == "C3CBAM":  # spelled in small letters it is no name of that class, but the rule's
        block = "C3Attention"
    assert type(layer).__name__ == block
    assert inner(layer) == {attention}


def test_options_and_an_own_module_go_by_name() -> None:
    layer = build([-1, 1, "C3_SE", [32, {"reduction": 4}]], [-1, 1, "C2f_ECA", [32, {"kernel_size": 7}]]).model
    assert layer[1].m[0].attn.fc1.out_channels == 4
    assert layer[2].m[0].attn.conv.kernel_size == (7, 1)
    assert inner(build([-1, 1, "C3_GC", [32, {"module": "SimAM"}]]).model[1]) == {"SimAM"}


def test_the_forks_residual_block_does_not_narrow() -> None:
    layer = build([-1, 1, "ResBlock_CBAM", [32]]).model[1]
    assert [c.out_channels for c in (layer.conv1, layer.conv2, layer.conv3)] == [32, 32, 32]
    narrow = build([-1, 1, "ResBlock_CBAM", [32, {"e": 0.25}]]).model[1]
    assert narrow.conv2.out_channels == 8


@pytest.mark.parametrize("block", BLOCKS)
def test_the_rule_holds_for_every_module_and_alias(block: str) -> None:
    for name in ATTENTION:
        for alias in (name, *registry.get_entry(name).aliases):
            for spelling in (f"{block}_{alias}", f"{alias}_{block}"):
                entry = registry.find(spelling)
                assert entry is not None, spelling
                if spelling not in (entry.name, *entry.aliases):  # those have names of their own, such as C3_SE
                    module = entry.binding.signature.parameters["module"].default
                    assert (entry.name, module) == (BLOCKS[block][0], name), spelling


@pytest.mark.parametrize("spelling", ["se_block", "SeNet", "SENet", "cbam_block"])
def test_modules_that_the_field_calls_blocks(spelling: str) -> None:
    assert get_module(spelling) is get_module("CBAM" if "cbam" in spelling else "SEAttention")


def test_a_users_module_has_them_too() -> None:
    class Halving(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    registry.register("Halving", Halving)
    try:
        assert inner(build([-1, 1, "C3_Halving", [32]]).model[1]) == {"Halving"}
    finally:
        registry.unregister("Halving")
    assert registry.find("C3_Halving") is None


def test_blocks_and_fusion_are_not_put_into_blocks() -> None:
    assert registry.find("C3_C3SE") is None
    assert registry.find("C2f_WeightedConcat") is None
    with pytest.raises(UnknownModuleError, match="C3_Nothing"):
        build([-1, 1, "C3_Nothing", [32]])


def test_a_mistake_in_such_a_row_names_it() -> None:
    with pytest.raises(RowError, match=r"mine\.yaml, row 1 .*C3_GC.*ratio"):
        build([-1, 1, "C3_GC", [32, {"ratio": 4}]])


def test_in_python_it_is_no_class() -> None:
    """The class alone would hold SE."""
    with pytest.raises(UnknownModuleError, match=r"'C3_GC' is not a class but C3Attention with module='GC'"):
        get_module("C3_GC")


def hosts_names() -> set[str]:
    """Every class that the hosts' parsers may find by name, read from their files."""
    names: set[str] = set()
    for package, files in (
        ("ultralytics", ("nn/tasks.py", "nn/modules/*.py")),
        ("yolov5", ("models/common.py", "models/experimental.py", "models/yolo.py")),
    ):
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        root = Path(spec.submodule_search_locations[0])
        for pattern in files:
            for file in root.glob(pattern):
                names |= set(re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    return names


def test_no_name_of_a_hosts_is_split() -> None:
    names = hosts_names()
    assert {"A2C2f", "C3TR", "C2fPSA", "ConvTranspose", "GhostBottleneck"} <= names
    assert [n for n in sorted(names) if (e := registry.find(n)) is not None and e.binding.sets] == []


def test_bottleneck_without_attention_is_yolov5s() -> None:
    from ultralytics.nn.modules import Bottleneck

    torch.manual_seed(0)
    for widths, shortcut in (((16, 16), True), ((16, 16), False), ((16, 24), True)):
        host = Bottleneck(*widths, shortcut, 1, (1, 3)).eval()
        own = get_module("BottleneckAttention")(*widths, shortcut, module=None).eval()
        own.load_state_dict(host.state_dict())
        x = torch.randn(2, 16, 7, 5)
        assert torch.equal(own(x), host(x))


def test_conv_is_the_hosts_with_the_module_behind() -> None:
    from ultralytics.nn.modules import Conv

    torch.manual_seed(0)
    host = Conv(8, 16, 3, 2).eval()
    own = get_module("ConvAttention")(8, 16, 3, 2, module="CBAM", kernel_size=3).eval()
    missing, unexpected = own.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected and all(k.startswith("attn.") for k in missing)
    x = torch.randn(2, 8, 9, 7)
    assert torch.equal(own(x), own.attn(host(x)))
    assert type(get_module("SEConv")(8, 16)).__mro__[1] is get_module("ConvAttention")


def test_numbers_of_a_row_mean_what_the_field_means() -> None:
    strides = [[-1, 1, "Conv", [16, 3, 2]]] * 3  # attention over all positions is for small maps
    layers = build(
        *strides,
        [-1, 1, "SEAM", [16, 2, 4]],
        [-1, 1, "MultiSEAM", [16, 1, 3, [3, 5], 4]],
        [-1, 1, "BiLevelRoutingAttention", [16, 4, 2]],
        [-1, 1, "DAttention", [16, [20, 20], 4, 2]],
        [-1, 1, "MHSA", [16, 14, 7, 2]],
        [-1, 1, "SENetV2", [16, 4]],
        [-1, 1, "RFAConv", [32, 3, 2]],
        [-1, 1, "ACmix", [32, 32]],
    ).model[len(strides) :]
    assert (len(layers[1].mix), layers[1].excite.fc1.out_channels) == (2, 4)
    assert [b[0].kernel_size[0] for b in layers[2].branches] == [3, 5]
    assert (layers[3].heads, layers[3].windows) == (4, 2)
    assert (layers[4].heads, layers[4].groups) == (4, 2)
    assert (layers[5].position.columns.num_embeddings, layers[5].position.rows.num_embeddings) == (27, 13)
    assert layers[6].fc1.out_channels == 16
    assert layers[7].conv.conv.out_channels == 32 and layers[7].generate[0].stride == (2, 2)


def test_c2psa_is_the_hosts_with_its_attention_replaced() -> None:
    blocks = pytest.importorskip("ultralytics.nn.modules.block")
    if not hasattr(blocks, "C2PSA"):
        pytest.skip("this ultralytics has no C2PSA")
    torch.manual_seed(0)
    host = blocks.C2PSA(32, 32, 2)
    own = get_module("C2PSAAttention")(32, 32, 2, module="SimAM").eval()
    for unit in host.m:
        unit.attn = get_module("SimAM")()
    own.load_state_dict(host.state_dict())
    x = torch.randn(2, 32, 7, 5)
    assert torch.equal(own(x), host.eval()(x))
    with pytest.raises(ValueError, match="C2PSAAttention keeps its channels, but 16 arrive and 32"):
        get_module("C2PSAAttention")(16, 32)


def test_strides_and_feature_blocks_of_a_yaml_know_the_spellings() -> None:
    from yolo_attn.model_yaml.graph import Graph, is_block, stride_factor

    for name in (
        "Conv_CBAM",
        "ConvSE",
        "CBAMConv",
        "yolo_attn.RFAConv",
        "RFCBAMConv",
        "RFCAConv",
        "CAConv",
        "ConvAttention",
    ):
        assert stride_factor(name.rpartition(".")[2], [64, 3, 2]) == 2, name
    assert stride_factor("ResBlock_CBAM", [64, 2]) == 2
    rows = [[-1, 1, n, [64]] for n in ("Conv_CBAM", "RFAConv", "AFF", "C2PSA_SE", "C3_GC", "C2f_EMA", "BoT3", "CoT3")]
    graph = Graph.of(model(*rows))
    assert [n.module for n in graph.nodes if n.part == "backbone" and is_block(n)] == [
        "C3_GC",
        "C2f_EMA",
        "BoT3",
        "CoT3",
    ]
