"""Modules that users bring, tried at their row: what is wrong is named there, with the entry that works, which is then tried."""

from __future__ import annotations

import copy
import io
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from classic_host import Classic, classic

import yolo_attn
from yolo_attn.errors import PluginError, RowError, YoloAttnError
from yolo_attn.registry import registry

__all__ = ["classic"]

HEAD = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\n\n\n"
count = iter(range(10_000))


class Own:
    """A file with one class `M`, and models that name it in row 1, where 16 channels arrive.

    At an eighth of the image: strides are measured at 256 pixels, of which half are too many positions for attention.
    """

    def __init__(self, folder: Path, code: str) -> None:
        self.stem = f"mods_{next(count)}"
        self.folder = folder
        (folder / f"{self.stem}.py").write_text(HEAD + textwrap.dedent(code))

    def write(self, entry: Any = None, row: Any = None, register: Any = None) -> Path:
        words = entry if isinstance(entry, dict) else {}
        d = {
            "nc": 2,
            "register": register or {"M": {"from": f"{self.stem}.py:M", **words} if words else f"{self.stem}.py:M"},
            "backbone": [[-1, 1, "Conv", [16, 3, 8]], row or [-1, 1, "M", []], [-1, 1, "Conv", [16, 3, 2]]],
            "head": [[[-1], 1, "Detect", ["nc"]]],
        }
        file = self.folder / f"{self.stem}.yaml"
        file.write_text(yaml.safe_dump(d))
        return file

    def build(self, entry: Any = None, row: Any = None, register: Any = None) -> Any:
        from ultralytics.nn.tasks import DetectionModel

        return DetectionModel(str(self.write(entry, row, register)), verbose=False)


@pytest.fixture
def own(home: Path) -> Any:
    yolo_attn.install()
    return lambda code: Own(home, code)


def refusal(build: Any) -> str:
    with pytest.raises(RowError) as caught:
        build()
    told = str(caught.value)
    assert "\n" not in told and re.search(r"mods_\d+\.yaml, row 1 \(backbone\)", told), told
    return told


def entry_in(told: str) -> dict[str, Any]:
    """The entry that a message proposes, as YAML reads it."""
    match = re.search(r"'register:'  (M: \{.*\})", told)
    assert match, told
    return {k: v for k, v in yaml.safe_load(match.group(1))["M"].items() if k != "from"}


# What is wrong, and whether the entry that the message shows makes it right.
BROKEN = {
    "halves its channels": """
        class M(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.conv = nn.Conv2d(channels, channels // 2, 1)

            def forward(self, x):
                return self.conv(x)
        """,
    "doubles its channels": """
        class M(nn.Module):
            def forward(self, x):
                return torch.cat((x, x), 1)
        """,
    "returns a tuple": """
        class M(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.fc = nn.Conv2d(dim, 1, 1)

            def forward(self, x):
                gate = self.fc(x).sigmoid()
                return gate, x * gate
        """,
    "wants a sequence": """
        class M(nn.Module):
            def __init__(self, dim, heads=2):
                super().__init__()
                self.qkv, self.heads = nn.Linear(dim, 3 * dim), heads

            def forward(self, x):
                B, N, C = x.shape
                q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
                return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(B, N, C)
        """,
    "wants a sequence and gives two": """
        class M(nn.Module):
            def __init__(self, embed_dim):
                super().__init__()
                self.attn = nn.MultiheadAttention(embed_dim, 2, batch_first=True)
                self.norm = nn.LayerNorm(embed_dim)

            def forward(self, x):
                x = self.norm(x)
                return self.attn(x, x, x)
        """,
    "wants channels last": """
        class M(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.mlp = nn.Linear(dim, dim)

            def forward(self, x):
                b, h, w, c = x.shape
                return x * self.mlp(x).mean((1, 2), keepdim=True)
        """,
    "takes two inputs": """
        class M(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.conv = nn.Conv2d(2 * channels, channels, 1)

            def forward(self, x, y):
                return self.conv(torch.cat((x, y), 1))
        """,
    "changes its input": """
        class M(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

            def forward(self, x):
                return x.mul_(torch.sigmoid(self.bias))
        """,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_module_that_does_not_fit_is_named_at_its_row_with_the_entry_that_works(own: Any, kind: str) -> None:
    model = own(BROKEN[kind])
    told = refusal(model.build)
    assert "(2, 16, 13, 11)" in told or "takes 2 inputs (x, y), and the row names one" in told
    words = entry_in(told)
    built = model.build(words)
    layer = built.model[1]
    assert type(layer).__name__ == "M" and layer.i == 1
    x = torch.rand(2, 3, 64, 96)
    before = copy.deepcopy(x)
    built.eval()(x)
    assert torch.equal(x, before)
    assert not any("inner" in k or "module" in k for k in layer.state_dict())


def test_the_messages_name_what_arrived_and_what_came_out(own: Any) -> None:
    assert "M gets (2, 16, 13, 11) and gives (2, 8, 13, 11)" in refusal(own(BROKEN["halves its channels"]).build)
    told = refusal(own(BROKEN["returns a tuple"]).build)
    assert "2 outputs ((2, 1, 13, 11), (2, 16, 13, 11))" in told and "output: 1" in told
    told = refusal(own(BROKEN["wants channels last"]).build)
    assert "mat1 and mat2 shapes cannot be multiplied" in told and "layout: " in told
    assert "[[-1, 0], 1, M, []]" in refusal(own(BROKEN["takes two inputs"]).build)


def test_a_module_of_a_fixed_size_is_told_with_the_size(own: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    model = own(
        """
        class M(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.pos = nn.Parameter(torch.zeros(1, dim, 32, 32))

            def forward(self, x):
                return x + self.pos
        """
    )
    model.build()  # strides are measured at 256 pixels, which is that size here
    (line,) = [r.getMessage() for r in caplog.records if "not on every size" in r.getMessage()]
    assert "maps of 32 x 32 and" in line and "row 1 (backbone)" in line
    caplog.clear()
    model = own(
        """
        class M(nn.Module):
            def forward(self, x):
                b, c, h, w = x.shape
                return x.view(b, c, h // 8, 8, w // 8, 8).flip(3).reshape(b, c, h, w)
        """
    )
    model.build()
    (line,) = [r.getMessage() for r in caplog.records if "not on every size" in r.getMessage()]
    assert "maps of 8 x 8, 16 x 16" in line and "row 1 (backbone)" in line


def test_a_batch_of_one_is_told_and_the_model_builds(own: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    model = own(
        """
        class M(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.bn = nn.BatchNorm2d(channels)

            def forward(self, x):
                return x * self.bn(x.mean((2, 3), keepdim=True)).sigmoid()
        """
    )
    model.build()
    assert any("cannot be trained on a batch of one" in r.getMessage() for r in caplog.records)


def test_the_trial_touches_neither_weights_nor_statistics_nor_random_numbers(own: Any) -> None:
    code = """
        import random
        calls = []

        class M(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.conv, self.bn = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
                self.seen = None

            def forward(self, x):
                calls.append(tuple(x.shape))
                self.seen = x
                random.random()
                return self.bn(self.conv(x)) + 0 * torch.rand(1).to(x.device)
        """
    model = own(code)
    file = model.write()
    from ultralytics.nn import tasks

    d = tasks.yaml_model_load(str(file))
    torch.manual_seed(0)
    layers, _ = tasks.parse_model(d, 3, verbose=False)
    module = layers[1]
    assert module.seen is None and int(module.bn.num_batches_tracked) == 0
    assert torch.equal(module.bn.running_var, torch.ones(16))
    torch.manual_seed(0)  # by hand: the same constructors in the same order, and nothing between
    first = tasks.Conv(3, 16, 3, 2)
    assert torch.equal(first.conv.weight, layers[0].conv.weight)
    assert torch.equal(type(module)(16).conv.weight, module.conv.weight)
    last = tasks.Conv(16, 16, 3, 2)
    assert torch.equal(last.conv.weight, layers[2].conv.weight)


def test_the_kits_own_modules_are_not_tried(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolo_attn.hook import seams

    def fail(*_: Any) -> None:
        raise AssertionError("tried")

    monkeypatch.setattr(seams, "try_out", fail)
    model = own("class M(nn.Module):\n    def forward(self, x):\n        return x\n")
    with pytest.raises(AssertionError, match="tried"):
        model.build()
    model.build(row=[-1, 1, "SE", []])


@pytest.mark.parametrize(
    ("forward", "row", "words"),
    [
        ("self, x, y", [[-1, 0], 1, "M", []], {}),  # one by one, as forward asks
        ("self, *maps", [[-1, 0], 1, "M", []], {}),
        ("self, maps", [[-1, 0], 1, "M", []], {}),  # a list
        ("self, x, y=None", [[-1, 0], 1, "M", []], {"inputs": 2}),
        ("self, q, k, v", [-1, 1, "M", []], {"inputs": 3}),  # the same one three times
    ],
)
def test_a_list_of_inputs_arrives_as_forward_asks(own: Any, forward: str, row: list[Any], words: Any) -> None:
    body = {
        "self, x, y": "x + y", "self, *maps": "sum(maps)", "self, maps": "maps[0] + maps[1]",
        "self, x, y=None": "x + y", "self, q, k, v": "q + k + v",
    }[forward]  # fmt: skip
    model = own(f"class M(nn.Module):\n    def forward({forward}):\n        return {body}\n")
    layer = model.build(words, row).model[1]
    x = torch.rand(1, 16, 6, 5)
    if isinstance(row[0], list):
        assert torch.equal(layer([x, x]), 2 * x)
    else:
        assert torch.equal(layer(x), 3 * x)


def test_height_and_width_follow_where_forward_asks_for_them(own: Any) -> None:
    model = own(
        """
        class M(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.fc, self.dw = nn.Linear(dim, dim), nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

            def forward(self, x, H, W):
                B, N, C = x.shape
                y = self.dw(x.transpose(1, 2).reshape(B, C, H, W)).flatten(2).transpose(1, 2)
                return self.fc(x + y)
        """
    )
    layer = model.build({"layout": "sequence"}).model[1]
    x = torch.rand(2, 16, 6, 4)
    y = layer.fc(x.flatten(2).transpose(1, 2) + layer.dw(x).flatten(2).transpose(1, 2))
    assert torch.allclose(layer(x), y.transpose(1, 2).reshape(2, 16, 6, 4), atol=1e-6)


SEQUENCE = BROKEN["wants a sequence"]


def test_the_example_of_a_mapping(own: Any) -> None:
    """`takes`, `out_channels`, `layout` and `inputs` together; names of weights stay the module's own."""
    model = own(
        """
        class M(nn.Module):
            def __init__(self, one, two, scale=1.0):
                super().__init__()
                self.q, self.k = nn.Linear(one, two), nn.Linear(one, two)

            def forward(self, x, y):
                return self.q(x) + self.k(y)
        """
    )
    words = {"takes": "c1 c2", "out_channels": 64, "layout": "sequence", "inputs": 2}
    built = model.build(words, [[-1, 0], 1, "M", []])
    layer = built.model[1]
    assert sorted(layer.state_dict()) == ["k.bias", "k.weight", "q.bias", "q.weight"]
    assert layer.q.out_features == 64 and built.model[2].conv.in_channels == 64
    assert model.build(words, [[-1, 0], 1, "M", [64]]).model[2].conv.in_channels == 64


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"layuot": "sequence"}, "has 'layuot', which is none of from, takes, out_channels.*Did you mean 'layout'"),
        ({"layout": "flat"}, "layout='flat' is none of"),
        ({"inputs": 0}, "inputs=0"),
        ({"output": "first"}, "output='first'"),
        ({"copy": "yes please"}, "copy='yes please'"),
        ({"out_channels": "all"}, "out_channels='all'"),
        ({"out_channels": -1}, "out_channels=-1"),
        ({"takes": 3}, "takes=3"),
        ({"takes": "c2 c1"}, "takes='c2 c1'"),
    ],
)
def test_an_entry_that_says_nonsense_is_refused(own: Any, words: dict[str, Any], told: str) -> None:
    with pytest.raises(YoloAttnError, match=f"mods_.*'register: M'.*{told}"):
        own(SEQUENCE).build(words)


def test_an_entry_without_a_class_shows_the_mapping(own: Any) -> None:
    with pytest.raises(PluginError, match=r"M: \{from: file.py:Class, takes, out_channels"):
        own(SEQUENCE).build(register={"M": {"layout": "sequence"}})


def test_a_corrected_entry_counts_in_the_same_process_and_a_plain_name_is_as_registered(own: Any) -> None:
    model = own(
        "@__import__('yolo_attn').register('Corrected')\n" + textwrap.dedent(BROKEN["halves its channels"]).lstrip()
    )
    for words in ({"out_channels": "c1/2"}, {"out_channels": 8}):
        assert model.build(words).model[2].conv.in_channels == 8
    with pytest.raises(RowError, match=r"@yolo_attn.register\('Corrected', out_channels='c1/2'\)|Corrected: \{from"):
        model.build(row=[-1, 1, "Corrected", []])
    registry.unregister("Corrected")


def test_a_class_that_is_registered_anew_is_bound_anew(own: Any) -> None:
    class Again(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    yolo_attn.register("Again", Again)
    try:
        assert registry.bind_class(Again) is registry.get_entry("Again").binding
        registry.bind_class(Again, {"copy": True})
        yolo_attn.register("Again", Again, output=0)
        assert registry.bind_class(Again).form.output == 0
        assert registry.binding_of(Again) is registry.get_entry("Again").binding
    finally:
        registry.unregister("Again")


def test_register_takes_the_same_words(own: Any) -> None:
    class Seq(torch.nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(dim, dim // 2)

        def forward(self, x: Any) -> Any:
            return self.fc(x), None

    yolo_attn.register("WordsOfRegister", Seq, layout="sequence", output=0, out_channels="c1/2")
    try:
        built = own(SEQUENCE).build(row=[-1, 1, "WordsOfRegister", []])
        assert built.model[2].conv.in_channels == 8
        inside = own(SEQUENCE).build(row=[-1, 1, "C3Attention", [16, {"module": "SE"}]])
        assert inside.model[1].m[0].attn is not None
    finally:
        registry.unregister("WordsOfRegister")


def test_attention_in_a_block_takes_its_form_with_it(own: Any) -> None:
    model = own(SEQUENCE)
    block = model.build({"layout": "sequence"}, [-1, 1, "C3Attention", [16, {"module": "M"}]]).model[1]
    attn = block.m[0].attn
    x = torch.rand(1, 8, 4, 6)
    y = type(attn).forward(attn, x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(1, 8, 4, 6)
    assert torch.equal(attn(x), y)


def test_copies_pickles_and_traces_keep_the_form(own: Any) -> None:
    layer = own(SEQUENCE).build({"layout": "sequence"}).model[1].eval()
    x = torch.rand(1, 16, 6, 5)
    want = layer(x)
    twin = copy.deepcopy(layer)
    assert twin.forward.module is twin and torch.equal(twin(x), want)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    for safe in (False, True):
        buffer.seek(0)
        with torch.serialization.safe_globals([torch.nn.Linear]):
            again = torch.load(buffer, weights_only=safe)
        assert type(again) is type(layer) and again.forward.module is again and torch.equal(again(x), want)
    assert torch.allclose(torch.jit.trace(layer, x)(x), want)


ON_CLASSIC = '''

import yolo_attn
{host}
from pathlib import Path
Path("half.py").write_text("""from torch import nn
class Half(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.c = nn.Conv2d(channels, channels // 2, 1)
    def forward(self, x):
        return self.c(x)
class Two(nn.Module):
    def forward(self, x, y):
        return x + y
""")
text = """nc: 2
anchors: 3
depth_multiple: 1.0
width_multiple: 1.0
register: {Half: %s, Two: 'half.py:Two'}
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Half, []]
  - [[1, 1], 1, Two, []]
  - [-1, 1, %s]
head:
  - [[3], 1, Detect, [nc, anchors]]
"""
entry = "{from: 'half.py:Half', out_channels: c1/2}"
for words, row in (("'half.py:Half'", "Conv, [16]"), (entry, "Conv, [16, [3], {}]"), (entry, "Conv, [16]"),
                   (entry, "BottleneckAttention, [8, {module: ECA}]")):
    Path("m.yaml").write_text(text % (words, row))
    try:
        model = yolo.Model("m.yaml")
        unit = getattr(model.model[3], "cv1", None)
        print("BUILT", type(model.model[1]).__name__, unit and unit.conv.kernel_size)
    except yolo_attn.YoloAttnError as exc:
        print("REFUSED", type(exc).__name__, exc)
'''


def test_on_classic_yolov5_modules_are_tried_and_errors_of_the_host_have_a_row(
    classic: Classic, tmp_path: Path
) -> None:
    run = classic.python(ON_CLASSIC, cwd=tmp_path)
    told = [x for x in run.out.splitlines() if x.startswith(("BUILT", "REFUSED"))]
    assert len(told) == 4, run.out + run.err
    assert "REFUSED RowError m.yaml, row 1 (backbone)" in told[0] and "out_channels: c1/2" in told[0]
    assert told[1].startswith("REFUSED RowError m.yaml, row 3 ") and "by the host: RuntimeError" in told[1]
    assert told[2] == "BUILT Half None"
    assert told[3] == "BUILT Half (1, 1)"  # YOLOv5's bottleneck, and not ultralytics'
