"""The kinds of public attention classes: what their constructors call channels, what they require, how they are called.

Each class is written anew and small; its constructor, its form and its faults are those that people publish.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import yolo_attn
from yolo_attn.errors import PluginError, RowError

HEAD = "import torch\nfrom torch import nn\n\n\n"

# Constructors, with the numbers that they get at a row without numbers where 16 channels arrive.
ONE = """
    channel channels in_channels in_channel input_channels num_channels n_channels gate_channel gate_channels embed_dim
    embed_dims n_dims dim_in in_size in_places features n_channels_in channelIn num_feat ch_in c_in in_chans dim dims inp
    in_planes inplanes planes d_model in_dim hidden_dim c1 ch c nf n_feat in_ch cin inc whatever_it_is
""".split()
TWO = [
    ("inp", "oup"), ("inp", "oup, reduction=32"), ("in_channels", "out_channels"), ("c1", "c2"), ("dim_in", "dim_out"),
    ("inplanes", "planes"), ("in_ch", "out_ch"), ("inp_dim", "out_dim"), ("channelIn", "channelOut"),
]  # fmt: skip
MORE = [
    "channels, reduction=16", "dim, num_heads=2, qkv_bias=False", "in_channels, kernel_size=7, *, bias=False",
    "*, dim", "channels, groups=4", "k_size=3, *, channels", "in_channels, ratio=0.25, pool='att', fusions=('add',)",
]  # fmt: skip


@pytest.fixture
def build(home: Path, request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    yolo_attn.install()

    def built(code: str, entry: Any = "", row: Any = None) -> Any:
        from ultralytics.nn.tasks import DetectionModel

        stem = f"public_{abs(hash(request.node.name + code)):x}"
        (home / f"{stem}.py").write_text(HEAD + textwrap.dedent(code))
        words = entry if isinstance(entry, dict) else {}
        d = {
            "nc": 2,
            "register": {"M": {"from": f"{stem}.py:M", **words}},
            "backbone": [[-1, 1, "Conv", [16, 3, 8]], row or [-1, 1, "M", []], [-1, 1, "Conv", [16, 3, 2]]],
            "head": [[[-1], 1, "Detect", ["nc"]]],
        }
        file = home / f"{stem}.yaml"
        file.write_text(yaml.safe_dump(d))
        return DetectionModel(str(file), verbose=False).model[1]

    return built


def gate(parameters: str, channels: str) -> str:
    return f"""
class M(nn.Module):
    def __init__(self, {parameters}):
        super().__init__()
        self.fc = nn.Conv2d({channels}, 16, 1)

    def forward(self, x):
        return x * self.fc(x).sigmoid()
"""


@pytest.mark.parametrize("name", ONE)
def test_whatever_the_first_parameter_is_called_it_gets_the_channels(build: Any, name: str) -> None:
    assert build(gate(name, name)).fc.in_channels == 16


@pytest.mark.parametrize(("one", "two"), TWO)
def test_a_row_without_a_number_keeps_the_width(build: Any, one: str, two: str) -> None:
    code = gate(f"{one}, {two}", one).replace(", 16, 1)", f", {two.partition(',')[0]}, 1)")
    layer = build(code, {"takes": "c1 c2"} if one == "inp_dim" else "")
    assert (layer.fc.in_channels, layer.fc.out_channels) == (16, 16)


@pytest.mark.parametrize("parameters", MORE)
def test_options_stay_at_their_defaults(build: Any, parameters: str) -> None:
    name = "channels" if "channels" in parameters.split(", ") else parameters.replace("*, ", "").partition(",")[0]
    assert build(gate(parameters, name)).fc.in_channels == 16


@pytest.mark.parametrize(
    ("parameters", "missing"),
    [
        ("in_channels, c_m, c_n", ["c_m", "c_n"]),
        ("d_model, d_k, d_v, h", ["d_k", "d_v", "h"]),
        ("dim, window_size", ["window_size"]),
        ("in_channels, *, kernel", ["kernel"]),
        ("channels, n", ["n"]),
    ],
)
def test_options_that_a_class_requires_are_shown_in_the_row_that_works(
    build: Any, parameters: str, missing: list[str]
) -> None:
    code = gate(parameters, parameters.partition(",")[0])
    with pytest.raises(RowError) as caught:
        build(code)
    told = str(caught.value)
    assert "row 1 (backbone)" in told and "\n" not in told
    proposed = yaml.safe_load(re.search(r"write e.g. (\[\{.*?\}\])", told)[1])  # type: ignore[index]  # or it fails here
    assert sorted(proposed[0]) == sorted(missing)
    assert build(code, row=[-1, 1, "M", proposed]).fc.in_channels == 16


@pytest.mark.parametrize("package", ["einops_not_here", "timm_not_here.layers", "mmcv_not_here.cnn"])
def test_a_missing_package_is_named_with_the_line(build: Any, package: str) -> None:
    with pytest.raises(
        PluginError, match=rf"line 5: ModuleNotFoundError: No module named '{package.partition('.')[0]}'"
    ):
        build(f"import {package}\n{gate('dim', 'dim')}")


# How public classes are called, with what their entry says.
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "self-attention of queries, keys, values": (
        """
        class M(nn.Module):
            def __init__(self, d_model, h=2):
                super().__init__()
                self.att = nn.MultiheadAttention(d_model, h, batch_first=True)

            def forward(self, queries, keys, values, attention_mask=None):
                return self.att(queries, keys, values, attn_mask=attention_mask)[0]
        """,
        {"layout": "sequence", "inputs": 3},
    ),
    "a mixer of positions in channels last": (
        """
        class M(nn.Module):
            def __init__(self, dim, seg_dim=8):
                super().__init__()
                self.mlp_c, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

            def forward(self, x):
                B, H, W, C = x.shape
                a = self.mlp_c(x).permute(0, 3, 1, 2).flatten(2).mean(2)
                return self.proj(x * a.reshape(B, 1, 1, C))
        """,
        {"layout": "last"},
    ),
    "attention and its weights": (
        """
        class M(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.qkv = nn.Linear(dim, 3 * dim)

            def forward(self, x):
                q, k, v = self.qkv(x).chunk(3, -1)
                weight = (q @ k.transpose(1, 2)).softmax(-1)
                return weight @ v, weight
        """,
        {"layout": "sequence", "output": 0},
    ),
    "a reduction of its channels": (
        """
        class M(nn.Module):
            def __init__(self, in_channels):
                super().__init__()
                self.conv = nn.Conv2d(in_channels, in_channels // 4, 1)

            def forward(self, x):
                return self.conv(x)
        """,
        {"out_channels": "c1/4"},
    ),
    "an activation in place first": (
        """
        class M(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1))

            def forward(self, x):
                return self.body(x)
        """,
        {"copy": True},
    ),
}


@pytest.mark.parametrize("kind", FORMS)
def test_without_its_entry_it_is_refused_at_the_row_and_with_it_it_builds(build: Any, kind: str) -> None:
    code, words = FORMS[kind]
    with pytest.raises(RowError, match=r"row 1 \(backbone\)"):
        build(code)
    layer = build(code, words)
    channels = 4 if "out_channels" in words else 16
    x = torch.rand(2, 16, 7, 5)
    kept = x.clone()
    assert layer(x).shape == (2, channels, 7, 5) and torch.equal(x, kept)


@pytest.mark.parametrize("entry", [{"layout": "sequence", "inputs": 3}])
def test_the_entry_travels_in_checkpoints_and_bundles(home: Path, tmp_path: Path, entry: dict[str, Any]) -> None:
    from ultralytics import YOLO

    from yolo_attn.detectors import opening

    code, words = FORMS["self-attention of queries, keys, values"]
    (home / "travels.py").write_text(HEAD + textwrap.dedent(code))
    d = {
        "nc": 2, "register": {"M": {"from": "travels.py:M", **words}},
        "backbone": [[-1, 1, "Conv", [16, 3, 8]], [-1, 1, "M", []], [-1, 1, "Conv", [16, 3, 2]]],
        "head": [[[-1], 1, "Detect", ["nc"]]],
    }  # fmt: skip
    (home / "travels.yaml").write_text(yaml.safe_dump(d))
    model = YOLO(str(home / "travels.yaml"))
    model.model.eval()
    x = torch.rand(1, 3, 32, 32)
    want = model.model(x)[0]
    model.save(str(home / "travels.pt"))
    again = opening.load(home / "travels.pt")
    assert again.model.yaml["register"] == d["register"] and again.model.model[1].forward.times == 3
    assert torch.allclose(again.model.float().eval()(x)[0], want, atol=1e-2 * float(want.abs().max()))
    rebuilt = type(again.model)(again.model.yaml, verbose=False)  # as a resumed run and a worker of a run do
    assert rebuilt.model[1].forward.times == 3
    rebuilt.load_state_dict(model.model.state_dict())
    assert torch.equal(rebuilt.eval()(x)[0], want)


def test_a_checkpoint_counts_the_attention_of_its_plug_in_where_no_yaml_is_read(home: Path, cli: Any) -> None:
    from ultralytics import YOLO

    code, words = FORMS["attention and its weights"]
    (home / "counted.py").write_text(HEAD + textwrap.dedent(code))
    d = {
        "nc": 2, "register": {"M": {"from": "counted.py:M", **words}},
        "backbone": [[-1, 1, "Conv", [16, 3, 8]], [-1, 1, "M", []], [-1, 1, "Conv", [16, 3, 2]]],
        "head": [[[-1], 1, "Detect", ["nc"]]],
    }  # fmt: skip
    (home / "counted.yaml").write_text(yaml.safe_dump(d))
    YOLO(str(home / "counted.yaml")).save(str(home / "counted.pt"))
    run = cli("export", str(home / "counted.pt"), "--imgsz", "32", "--plugin", str(home / "counted.py"))
    assert "attention: M" in run.out, run.err


def test_multi_head_attention_of_a_sequence_is_exported_and_proved(home: Path) -> None:
    """Its fused kernel, which torch takes in eval mode, has no ONNX operator."""
    (home / "fused.py").write_text(
        HEAD
        + textwrap.dedent(
            """
            class M(nn.Module):
                def __init__(self, dim):
                    super().__init__()
                    self.attn = nn.MultiheadAttention(dim, 2, batch_first=True)

                def forward(self, x):
                    return self.attn(x, x, x)
            """
        )
    )
    d = {
        "nc": 2, "register": {"M": {"from": "fused.py:M", "layout": "sequence", "output": 0}},
        "backbone": [[-1, 1, "Conv", [16, 3, 8]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "M", []]],
        "head": [[[1, 2], 1, "Detect", ["nc"]]],
    }  # fmt: skip
    (home / "fused.yaml").write_text(yaml.safe_dump(d))
    before = torch.backends.mha.get_fastpath_enabled()
    result = yolo_attn.export_model(home / "fused.yaml", imgsz=32, output=home / "fused.onnx")
    assert result.path.is_file() and torch.backends.mha.get_fastpath_enabled() is before
