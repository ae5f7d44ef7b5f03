"""What a row's numbers mean: widths, which the graph knows, and options; what could be both is said or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import yolo_attn
from yolo_attn import log
from yolo_attn.errors import RegistryError, RowError
from yolo_attn.hook import seams
from yolo_attn.registry import registry
from yolo_attn.registry.binding import Binding, Mismatch


def make(parameters: str) -> type:
    namespace: dict[str, Any] = {"nn": nn}
    exec(
        f"class M(nn.Module):\n    def __init__({', '.join(['self', parameters])}):\n        super().__init__()\n",
        namespace,
    )
    made: type = namespace["M"]
    return made


def half(c: Any) -> Any:
    return c // 2


@pytest.mark.parametrize(
    ("parameters", "row", "channels", "n", "args", "kwargs", "c2", "repeats"),
    [
        ("channels, *, reduction=16", [], 256, 1, [256], {}, 256, 1),
        ("channels, *, reduction=16", [512], 256, 1, [256], {}, 256, 1),  # nominal width, scaled
        ("channels, *, reduction=16", [256], 256, 1, [256], {}, 256, 1),  # true width
        ("channels, *, reduction=16", [512.0], 256, 1, [256], {}, 256, 1),
        ("channels, *, reduction=16", [{"reduction": 8}], 256, 1, [256], {"reduction": 8}, 256, 1),
        ("channels, *, reduction=16", [512, 8], 256, 1, [256], {"reduction": 8}, 256, 1),  # the field's habit
        ("channels, reduction=16, k=3", [512, 8, 5], 256, 1, [256, 8, 5], {}, 256, 1),
        ("in_channels, reduction=16", [], 256, 3, [256], {}, 256, 3),  # repeated by the parser
        ("c1, c2, k=1", [128, 3], 256, 1, [256, 64, 3], {}, 64, 1),
        ("c1, c2, n=1, shortcut=True", [128, False], 256, 4, [256, 64, 4, False], {}, 64, 1),
        ("inp, oup, reduction=32", [512], 256, 1, [256, 256], {}, 256, 1),
        ("e_lambda=1e-4", [], 256, 1, [], {}, 256, 1),
        ("e_lambda=1e-4", [512], 256, 1, [], {}, 256, 1),  # a width, not e_lambda
        ("e_lambda=1e-4", [{"e_lambda": 0.1}], 256, 1, [], {"e_lambda": 0.1}, 256, 1),
        ("", [], 256, 1, [], {}, 256, 1),
        ("channels", [], [64, 64], 1, [[64, 64]], {}, 64, 1),
        ("c1, c2", [256], [64, 32], 1, [[64, 32], 128], {}, 128, 1),
    ],
)
def test_binding(
    parameters: str,
    row: list[Any],
    channels: Any,
    n: int,
    args: list[Any],
    kwargs: dict[str, Any],
    c2: int,
    repeats: int,
) -> None:
    call = Binding.of(make(parameters)).bind(row, channels, n, half)
    assert (call.args, call.kwargs, call.c2, call.n) == (args, kwargs, c2, repeats)


@pytest.mark.parametrize(
    ("parameters", "row", "channels", "n", "told"),
    [
        ("channels, *, reduction=16", [1024.0], 256, 1, "1024 channels, 512"),
        ("channels", [1024], 256, 1, "1024 channels, 512 after width scaling, but 256 arrive"),
        ("channels, *, reduction=16", [{"reductio": 8}], 256, 1, "reductio.*reduction=16"),
        ("channels, *, reduction=16", [512, 8, 9], 256, 1, "takes reduction=16|too many"),
        ("channels, *, reduction=16", [512, 8, {"reduction": 4}], 256, 1, "given twice"),
        ("c1, c2", [], [64, 32], 1, "output channels is missing"),
        ("c1, c2, n", [], 64, 1, "output channels is missing"),
        ("c1, c2", ["wide"], 256, 1, "'wide'"),
        ("c1, c2", [64], 256, 2, "repeated 2 times"),
        ("channels", [], [64, 32], 1, r"\[64, 32\]"),
        ("channels, groups=4", [24], 32, 1, "24 channels, 12 after width scaling, but 32 arrive"),  # no option is so large
    ],
)
def test_rows_that_contradict(parameters: str, row: list[Any], channels: Any, n: int, told: str) -> None:
    with pytest.raises(Mismatch, match=told):
        Binding.of(make(parameters)).bind(row, channels, n, half)


def test_takes_overrides_the_signature() -> None:
    assert Binding.of(make("width, factor=2"), "channels").bind([], 64, 1, half).args == [64]
    assert Binding.of(make("channels=8"), "").bind([], 64, 1, half).args == []
    with pytest.raises(RegistryError, match="takes="):
        Binding.of(make("c1"), "everything")


def test_out_channels() -> None:
    binding = Binding.of(make("channels"), None, lambda c: c * 4)
    assert binding.bind([], 64, 1, half).c2 == 256


@pytest.mark.parametrize(("given", "told"), [(2, "'from' is 2, but only rows 0 to 1"), (-4, "before the first"), ("x", "row numbers")])
def test_a_row_reads_rows_before_it(given: Any, told: str) -> None:
    """Also where the parser is handed a dictionary that nobody has checked."""
    cls = registry.get_module("SE")
    d = {"yaml_file": "their.yaml", "backbone": [[-1, 1, "Conv", []]] * 2, "head": [[given, 1, "SE", []]]}
    with pytest.raises(RowError, match=rf"^their\.yaml, row 2 \(head\).*{told}"):
        seams.place(cls, [8, 16], given, 1, [], 2, d, half)
    assert seams.place(cls, [8, 16], 0, 1, [], 2, d, half)[1] == 8


# -- the field's rows, on the kit's modules ------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that rows are told of."""
    lines: list[str] = []
    monkeypatch.setattr(seams, "_told", set())
    monkeypatch.setattr(seams, "announce", lambda message, *args: lines.append(message % args))
    return lines


def built(name: str, row: list[Any], channels: Any, width: float = 1.0) -> Any:
    """The layer of a row, on the meta device, as the parse hook builds it."""
    sources = channels if isinstance(channels, list) else [channels]
    d = {"yaml_file": "their.yaml", "backbone": [[-1, 1, "Conv", [c]] for c in sources], "head": [[-1, 1, name, row]]}
    f = list(range(len(sources))) if isinstance(channels, list) else -1
    cls = yolo_attn.get_module(name)
    place = seams.place(cls, sources, f, 1, list(row), len(sources), d, lambda c: int(-(-c * width // 8) * 8))
    builder, c2, *_ = place
    with torch.device("meta"):
        layer = builder()
    layer.c2 = c2
    return layer


def weights(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("name", ["GAM_Attention", "SEAttention", "CoordAtt", "ShuffleAttention", "GCT", "CBAM", "EMA", "NAM"])
@pytest.mark.parametrize(("written", "width"), [(512, 1.0), (1024, 0.5), (512, 0.25)])
def test_a_second_width_is_the_output_width(name: str, written: int, width: float, said: list[str]) -> None:
    channels = int(written * width)
    twice, none = (built(name, row, channels, width) for row in ([written, written], []))
    assert [p.shape for p in twice.parameters()] == [p.shape for p in none.parameters()]
    assert str(twice) == str(none) and twice.c2 == channels and said == []


def test_gam_as_the_field_writes_it_has_its_26_million_weights() -> None:
    assert weights(built("GAM_Attention", [1024, 1024], 1024)) == pytest.approx(26e6, rel=0.02)


@pytest.mark.parametrize(
    ("name", "row", "channels", "same", "told"),
    [
        ("SEAttention", [16], 256, [{"reduction": 16}], "16 is taken for reduction"),
        ("SEAttention", [8], 256, [{"reduction": 8}], "16|8 is taken for reduction"),
        ("TripletAttention", [2], 256, [], "ignored: 2"),
        ("SpatialGroupEnhance", [8, 0.5], 256, [{"groups": 8}], "8 is taken for groups"),
        ("SpatialGroupEnhance", [256, 8, 0.5], 256, [{"groups": 8}], "ignored: 0.5"),
        ("CBAM", [256, 7], 256, [{"kernel_size": 7}], None),
        ("CBAM", [256, 256, 3], 256, [{"kernel_size": 3}], None),
        ("CBAM", [256, 8, 3], 256, [{"reduction": 8, "kernel_size": 3}], None),
        ("DANet", [512, 512, False], 512, [], "ignored: False"),
        ("DANet", [512, 4], 512, [{"reduction": 4}], None),
        ("DoubleAttention", [512, 128, 128, 8], 512, [{"reduction": 4}], "ignored: 128, 8"),
        ("DoubleAttention", [512, 64, 64], 512, [{"reduction": 8}], "ignored: 64"),
        ("DoubleAttention", [512, 8], 512, [{"reduction": 8}], None),
        ("GlobalContextBlock", [512, 0.25, 2, 16], 512, [{"reduction": 4}], "ignored: 2, 16"),
        ("GlobalContextBlock", [512, 8], 512, [{"reduction": 8}], None),
        ("ParNetAttention", [512, 0.5, 2], 512, [], "ignored: 0.5, 2"),
        ("PSA_s", [512, 512, False], 512, [], "ignored: False"),
        ("ShuffleAttention", [512, 16, 8], 512, [{"groups": 8}], "ignored: 16"),
        ("SimAM", [512, 512], 512, [], None),
        ("SE", [512, 32], 512, [{"reduction": 32}], None),
    ],
)
def test_the_fields_spellings(
    name: str, row: list[Any], channels: int, same: list[Any], told: str | None, said: list[str]
) -> None:
    theirs = built(name, row, channels)
    lines = list(said)
    by_name = built(name, same, channels)
    assert str(theirs) == str(by_name)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in by_name.state_dict().items()}
    if told is None:
        assert lines == []
    else:
        assert any(told in line and line.startswith("their.yaml, row 1 (head)") for line in lines) or "|" in told
        built(name, row, channels)
        assert said == lines  # once, however often the model is built


@pytest.mark.parametrize("name", ["Concat_bifpn", "Concat_BiFPN", "BiFPN_Concat2", "BiFPN_Concat3", "WeightedConcat"])
@pytest.mark.parametrize(
    ("row", "told"), [([], 0), ([1], 0), ([128, 128], 0), ([192], 0), ([256, 256], 0), ([640, 640], 2)]
)
def test_fusions_drop_widths(name: str, row: list[Any], told: int, said: list[str]) -> None:
    layer = built(name, row, [128, 64], 0.5)
    assert layer.c2 == 192 and str(layer) == str(built(name, [], [128, 64]))
    assert len(said) == (told and 1)  # one line for one number, however often it is written


@pytest.mark.parametrize(
    ("name", "row", "channels", "width", "told"),
    [
        ("SEAttention", [96], 32, 0.25, r"96 channels, 24 after width scaling, but 32 arrive"),
        ("SEAttention", [64], 256, 1.0, r"64 channels, 64 after width scaling, but 256 arrive"),
        ("SEAttention", [32], 32, 0.5, None),
        ("SEAttention", [512, 1024], 512, 1.0, r"reduction=1024 is above the 512 channels.*\[\{reduction: 16\}\]"),
        ("SEAttention", [1024, 512], 512, 0.5, r"reduction=512 .*width.*\[\{reduction: 16\}\]"),
        ("SEAttention", [{"reduction": 1024}], 512, 1.0, r"reduction=1024 is above the 512"),
        ("ShuffleAttention", [512, 1024], 512, 1.0, r"groups=1024 is above the 512"),
        ("Outlook", [256, 512], 256, 1.0, r"heads=512 is above the 256"),
        ("ShuffleAttention", [{"groups": 64}], 32, 1.0, r"groups=64 is above the 32"),
        ("CBAM", [512, 1024], 512, 1.0, r"kernel_size=1024 .*\[\{kernel_size: 7\}\]"),
        ("TripletAttention", [{"kernel_size": 1025}], 512, 1.0, "kernel_size=1025"),
        ("CBAM", [512, 16], 512, 1.0, r"kernel_size must be odd.*read as kernel_size = 16"),
        ("GCT", [512, 128], 512, 1.0, r"eps=128 is far from 1e-05.*\[\{eps: 1e-05\}\]"),
        ("SimAM", [4], 512, 1.0, r"e_lambda=4 is far from 0.0001"),
        ("DoubleAttention", [512, 200, 200], 512, 1.0, r"reduction .*512"),
        ("SGE", [512, 8, 0.5, 3], 512, 1.0, "more than the 2 numbers"),
    ],
)
def test_numbers_without_a_sense_are_refused(
    name: str, row: list[Any], channels: int, width: float, told: str | None, said: list[str]
) -> None:
    """By file and row, with the row that says it by name."""
    if told is None:
        built(name, row, channels, width)
        assert len(said) == 1
        return
    with pytest.raises(RowError, match=rf"^their\.yaml, row 1 \(head\).*{told}"):
        built(name, row, channels, width)


# -- users' classes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "row", "channels", "args", "kwargs", "notes"),
    [
        # an option that equals the width: the width, and said
        ("channels, groups=4", [32], 32, [32], {}, 1),
        ("channels, groups=4", [64], 32, [32], {}, 0),  # the width before scaling
        ("channels, groups=4", [256], 256, [256], {}, 0),  # no option is that large
        ("channels", [32], 32, [32], {}, 0),  # no option to mistake it for
        ("channels, groups=4", [16], 256, [256, 16], {}, 1),  # no width
        ("channels, groups=4", [64, 16], 32, [32, 16], {}, 0),
        ("channels, groups=4", [64, 64], 32, [32], {}, 0),
        ("inp, oup, reduction=32", [], 256, [256, 256], {}, 0),
        ("inp, oup, reduction=32", [{"reduction": 8}], 256, [256, 256], {"reduction": 8}, 0),
        ("inp, oup, reduction=32", [512, 512], 256, [256, 256], {}, 0),
        ("inp, oup, reduction=32", [512, 512, 16], 256, [256, 256, 16], {}, 0),
        ("c1, c2, k=1", [4, 4], 2, [2, 2, 4], {}, 0),  # numbers as small as a kernel are no widths
        # a number below 8 is no width: an option, whatever arrives
        ("kernel=7", [3], 3, [3], {}, 0),
        ("kernel=7", [5], 256, [5], {}, 0),
        ("kernel=7", [7], 7, [7], {}, 0),
        ("kernel=7", [8], 8, [], {}, 1),
        ("kernel", [11], 11, [11], {}, 0),  # and one that is needed
        ("channels, c_m, c_n", [128, 64], 256, [256, 128, 64], {}, 0),
        ("channels, c_m, c_n", [256, 128, 64], 256, [256, 128, 64], {}, 0),
        # names of the parameter for channels
        *[(f"{n}, r=4", [], 64, [64], {}, 0) for n in
          "gate_channel embed_dim embed_dims n_dims dim_in in_size in_places features n_channels_in channelIn num_feat ch_in "
          "c_in in_chans".split()],
        *[(f"inplanes, {n}", [128], 64, [64, 64], {}, 0) for n in ("dim_out", "planes")],
        ("*, dim, heads=4", [], 64, [], {"dim": 64}, 0),
        ("*, dim, heads=4", [128, 8], 64, [], {"dim": 64, "heads": 8}, 0),
        ("k, channels", [3], 64, [3], {"channels": 64}, 0),
        ("*, dim, dim_out", [256], 64, [], {"dim": 64, "dim_out": 128}, 0),
        ("whatever, r=4", [], 64, [64], {}, 1),
        ("whatever: int, r=4", [128, 8], 64, [64, 8], {}, 1),
        ("mode: str", ["avg"], 64, ["avg"], {}, 0),
        ("kernel_size", [3], 64, [3], {}, 0),
        ("channels, *more", [128, 3, 5], 64, [64, 3, 5], {}, 0),
    ],
)  # fmt: skip
def test_users_classes(
    parameters: str, row: list[Any], channels: int, args: list[Any], kwargs: dict[str, Any], notes: int
) -> None:
    call = Binding.of(make(parameters)).bind(row, channels, 1, half)
    assert (call.args, call.kwargs, len(call.notes)) == (args, kwargs, notes), call.notes


@pytest.mark.parametrize(
    ("parameters", "row", "told"),
    [
        ("in_channels, c_m, c_n", [], r"'c_m'; write e\.g\. \[\{c_m: 16, c_n: 16\}\]"),
        ("d_model, d_k, d_v, h", [], r"write e\.g\. \[\{d_k: 16, d_v: 16, h: 4\}\]"),
        ("in_channels, c_m", [64], r"write e\.g\. \[\{c_m: 16\}\]"),
        ("d_model, d_k, d_v, h", [128, 8], r"write e\.g\. \[\{d_v: 16, h: 4\}\]"),
        ("channels, shortcut=True", [128, 3], r"shortcut=3 is neither True nor False"),
        ("*, dim", [{"dim": 3}], "dim is given twice"),
    ],
)
def test_the_row_that_would_work(parameters: str, row: list[Any], told: str) -> None:
    with pytest.raises(Mismatch, match=told):
        Binding.of(make(parameters)).bind(row, 64, 1, half)


def test_a_guess_is_said(said: list[str]) -> None:
    cls = make("whatever, r=4")
    registry.bind_class(cls)
    d = {"yaml_file": "my.yaml", "backbone": [[-1, 1, "Conv", [8]]], "head": [[-1, 1, "M", []]]}
    seams.place(cls, [8], -1, 1, [], 1, d, half)
    assert len(said) == 1 and "'whatever'" in said[0] and "8 input channels" in said[0] and said[0].startswith("my.yaml, row 1")
    assert log.announce is not seams.announce


def test_positional_names_options() -> None:
    with pytest.raises(RegistryError, match="no such option"):
        Binding.of(make("channels, r=4"), positional=("s",))
