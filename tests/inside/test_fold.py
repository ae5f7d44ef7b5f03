"""Folding: constant gates go into the layers that read them, exactly; what moves, or cannot go there, stays and is named."""

from __future__ import annotations

import copy
import json
import textwrap
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from classic_host import Classic, classic
from conftest import Run, run_python
from torch import nn
from torch.nn import functional as F

import yolo_attn
from yolo_attn.detectors.opening import open_source
from yolo_attn.errors import CheckpointError, DataError, FileError, UsageError
from yolo_attn.export.onnx import count_nodes
from yolo_attn.inside import fold_rules, fold_trace
from yolo_attn.inside.fold import constant_gates, fold
from yolo_attn.inside.fold_constant import Constant, outputs
from yolo_attn.inside.fold_measure import labelled
from yolo_attn.inside.fold_network import AGREE, difference, fold_network
from yolo_attn.inside.fold_rows import as_yaml, rows_of
from yolo_attn.inside.fold_trace import Refused, backward, forward
from yolo_attn.inside.recording import record_gates
from yolo_attn.training.shapes import Recipe, make
from yolo_attn.weights import start_from
from yolo_attn.weights.attention import attention_in

__all__ = ["classic"]  # a fixture


# -- each operation ------------------------------------------------------------------------------------------------

GATE = torch.linspace(0.2, 1.9, 8, dtype=torch.float64)


class Net(nn.Module):
    """A convolution, a gate, and a function of what comes out of it and of the convolution's output."""

    def __init__(self, then: Any, gate: torch.Tensor = GATE, act: nn.Module | None = None, **layers: nn.Module) -> None:
        super().__init__()
        self.first, self.act, self.gate, self.then = nn.Conv2d(3, 8, 3, bias=False), act or nn.SiLU(), Constant(gate), then
        self.norm = nn.BatchNorm2d(8)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.norm(self.first(x)))
        return self.then(self, self.gate(y), y)


def net(then: Any, **more: Any) -> Net:
    torch.manual_seed(0)
    m = Net(then, **more).double().eval()
    for norm in m.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_()
    return m


def image() -> torch.Tensor:
    return torch.rand(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def conv(*sizes: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(*sizes, 3, padding=1, **more)


TAKES: dict[str, Any] = {
    "convolution": lambda: net(lambda m, g, y: m.c(g), c=conv(8, 5)),
    "grouped": lambda: net(lambda m, g, y: m.c(g), c=conv(8, 12, groups=4)),
    "depthwise": lambda: net(lambda m, g, y: m.c(g), c=conv(8, 8, groups=8)),
    "transposed": lambda: net(lambda m, g, y: m.c(g), c=nn.ConvTranspose2d(8, 6, 2, 2)),
    "transposed, grouped": lambda: net(lambda m, g, y: m.c(g), c=nn.ConvTranspose2d(8, 6, 2, 2, groups=2)),
    "two readers": lambda: net(lambda m, g, y: m.c(g) + F.silu(m.d(g)), c=conv(8, 5), d=nn.Conv2d(8, 5, 1, padding=0)),
    "concat at an offset": lambda: net(lambda m, g, y: m.c(torch.cat((y[:, :3], g, y), 1)), c=conv(19, 5)),
    "chunk": lambda: net(lambda m, g, y: m.c(g.chunk(2, 1)[0]) + m.d(g.chunk(2, 1)[1]), c=conv(4, 5), d=conv(4, 5)),
    "channel shuffle": lambda: net(
        lambda m, g, y: m.c(g.view(2, 2, 4, *g.shape[2:]).transpose(1, 2).reshape(g.shape)), c=conv(8, 6, groups=2)
    ),
    "upsampling": lambda: net(lambda m, g, y: m.c(F.interpolate(g, scale_factor=2)), c=conv(8, 5)),
    "bilinear": lambda: net(lambda m, g, y: m.c(F.interpolate(g, scale_factor=2, mode="bilinear")), c=conv(8, 5)),
    "pools": lambda: net(lambda m, g, y: m.c(F.max_pool2d(g, 5, 1, 2) + F.avg_pool2d(g, 3, 1, 1)), c=conv(8, 5)),
    "zero padding": lambda: net(lambda m, g, y: m.c(F.pad(g, (1, 2, 0, 1))), c=conv(8, 5)),
    "another gate": lambda: net(lambda m, g, y: m.c(g * m.d(g.mean((2, 3), keepdim=True)).sigmoid()), c=conv(8, 5), d=conv(8, 8)),
    "batch norm": lambda: net(lambda m, g, y: m.n(g), n=nn.BatchNorm2d(8)),
    "batch norm, zero": lambda: net(lambda m, g, y: m.n(g), gate=GATE - GATE[2], n=nn.BatchNorm2d(8)),
    "linear": lambda: net(lambda m, g, y: m.c(g.mean((2, 3))), c=nn.Linear(8, 5)),
    "linear, sequence": lambda: net(lambda m, g, y: m.c(g.mean((2, 3)).view(2, 8)), c=nn.Linear(8, 5, bias=False)),
    "relu": lambda: net(lambda m, g, y: m.c(g.clone().relu_() + F.leaky_relu(g, 0.1)), c=conv(8, 5)),
    "negative": lambda: net(lambda m, g, y: m.c(g), gate=-GATE, c=conv(8, 5)),
    "a sum of both": lambda: net(lambda m, g, y: m.c(g + g * 2), c=conv(8, 5)),
    "one everywhere": lambda: net(lambda m, g, y: (g + y).tanh(), gate=torch.ones(8, dtype=torch.float64)),
}
REFUSES: dict[str, Any] = {
    "adds it to features that the gate does not multiply": lambda: net(lambda m, g, y: m.c(g + y), c=conv(8, 5)),
    "is not linear in it (silu)": lambda: net(lambda m, g, y: m.c(F.silu(g)), c=conv(8, 5)),
    "keeps no negative factor": lambda: net(lambda m, g, y: m.c(F.max_pool2d(g, 2)), gate=-GATE, c=conv(8, 5)),
    "keeps no negative factor (relu_)": lambda: net(lambda m, g, y: m.c(g.clone().relu_()), gate=-GATE, c=conv(8, 5)),
    "an output of the detector": lambda: net(lambda m, g, y: g),
    "c.weight is used more than once": lambda: net(lambda m, g, y: m.c(g) + m.c(y), c=conv(8, 5)),
    "computes its weights": lambda: net(lambda m, g, y: F.conv2d(g, m.c.weight * 2), c=conv(8, 5)),
    "pads it with a number": lambda: net(lambda m, g, y: m.c(F.pad(g, (1, 1), value=0.5)), c=conv(8, 5)),
    "divides by it": lambda: net(lambda m, g, y: m.c(y / g), c=conv(8, 5)),
    "different factors": lambda: net(lambda m, g, y: m.c(g.mean(1, keepdim=True).expand_as(g)), c=conv(8, 5)),
    "another gate": lambda: net(lambda m, g, y: m.c(g + g.flip(1)), c=conv(8, 5)),
}


@pytest.mark.parametrize("name", TAKES)
def test_what_takes_a_gate_computes_the_same_without_it(name: str) -> None:
    m = TAKES[name]()
    wanted = outputs(m, image())
    forward(m, m.gate, image())
    assert m.gate.gone
    got = outputs(m, image())
    assert difference(wanted, got) < 1e-12
    m.gate.gone = False
    uniform = bool((m.gate.gate == 1).all())
    assert (difference(wanted, outputs(m, image())) > 1e-3) is not uniform  # the gate matters, and is in the weights now


@pytest.mark.parametrize("why", REFUSES)
def test_what_cannot_take_a_gate_is_named_and_unchanged(why: str) -> None:
    m = REFUSES[why]()
    before = copy.deepcopy(m.state_dict())
    with pytest.raises(Refused) as told:
        forward(m, m.gate, image())
    assert why in str(told.value)
    assert not m.gate.gone
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


@pytest.mark.parametrize("act", [nn.Identity(), nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.1)])
def test_without_a_bent_activation_the_gate_goes_backward(act: nn.Module) -> None:
    m = net(lambda m, g, y: g + m.other, act=act, other=nn.Identity())
    m.then = lambda m, g, y: (g + 1).tanh()  # no layer in front of it could take it
    wanted = outputs(m, image())
    with pytest.raises(Refused):
        forward(m, m.gate, image())
    backward(m, m.gate, image())
    assert difference(wanted, outputs(m, image())) < 1e-12


@pytest.mark.parametrize(
    ("why", "make"),
    [
        ("silu stands before it", lambda: net(lambda m, g, y: g)),
        ("others read", lambda: net(lambda m, g, y: g + y, act=nn.Identity())),
        ("negative", lambda: net(lambda m, g, y: g, gate=-GATE, act=nn.ReLU())),
    ],
)
def test_backward_refuses(why: str, make: Any) -> None:
    m = make()
    with pytest.raises(Refused, match=why):
        backward(m, m.gate, image())


def test_a_batch_norm_that_took_a_gate_trains_on_as_before() -> None:
    m = TAKES["batch norm"]()
    m.n.eps = 1e-12  # what it adds to the variance is not scaled
    wanted = m.train()(image())
    m.eval()
    forward(m, m.gate, image())
    assert torch.allclose(m.train()(image()), wanted, atol=1e-4)


# -- whole detectors -----------------------------------------------------------------------------------------------


def settled(network: Any) -> Any:
    """Batch norms that fit images: otherwise activations fade to a constant, on which no gate moves."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for m in norms:
        m.momentum = None
        m.reset_running_stats()
        m.weight.data.uniform_(0.8, 1.2)
    torch.manual_seed(2)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 128, 128) * torch.linspace(0.1, 2, 4).reshape(-1, 1, 1, 1))
    for m in norms:
        m.momentum = 0.03
    return network.eval()


def still(module: Any) -> None:
    """A gate that is a different constant for each channel: nothing of the image arrives."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.normal_() if name.endswith("bias") else p.zero_()


def planted(network: Any, paths: Any) -> Any:
    torch.manual_seed(3)
    for path in paths:
        still(network.get_submodule(path))
    return network


def detector(name: str, nc: int = 3) -> Any:
    from ultralytics import YOLO

    torch.manual_seed(0)
    handle = YOLO(name)
    handle.model = type(handle.model)({**handle.model.yaml, "nc": nc}, verbose=False)
    handle.model.args, handle.model.task = {"imgsz": 64}, handle.task
    handle.model.names = {i: f"class {i}" for i in range(nc)}
    settled(handle.model)
    return handle


def random_gates(network: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    torch.manual_seed(4)
    hooks = [
        network.get_submodule(p).register_forward_hook(lambda m, i, o, p=p: found.update({p: torch.rand(i[0].shape[1]) + 0.3}))
        for p in attention_in(network)
    ]
    with torch.no_grad():
        network.eval()(torch.rand(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("name", "where", "stays"),
    [
        ("yolov8n-cls.yaml", ["backbone"], {}),
        ("yolov5n.yaml", ["P5", "neck", "before-detect"], {}),
        ("yolo26n.yaml", ["backbone-last2"], {12: "row 11 (SPPF) adds it"}),
        ("yolov8n.yaml", ["inside-P5", "inside-neck-P3"], {8: "row 8 (C2fAttention), m.0, adds it"}),
        pytest.param("yolo12n-seg.yaml", ["inside", "P5"], {2: "m.0, adds it", 4: "m.0, adds it"}, marks=pytest.mark.slow),
        pytest.param("yolov10n.yaml", ["neck"], {}, marks=pytest.mark.slow),
    ],
)
def test_families(name: str, where: list[str], stays: dict[int, str]) -> None:
    """Backbone, neck, head and the blocks' inside: what goes is exact, what stays says what is in the way."""
    plain = detector(name)
    made = yolo_attn.attach(plain, "SE", where=where)
    before = copy.deepcopy(made.model.state_dict())
    gates = random_gates(made.model)
    rows = rows_of(made.model, made.model.yaml)
    out = fold_network(made.model, gates, handle=made)
    assert out.difference < AGREE
    assert all(torch.equal(v, before[k]) for k, v in made.model.state_dict().items())
    if stays:
        assert len(out.rows) + len(out.kept) == len(rows)
        for i, why in out.kept.items():
            assert any(why_ in why for why_ in stays.values()), (i, why)
    else:
        assert out.kept == {} and not attention_in(out.network.model)
        assert out.network.model.yaml["backbone"] == plain.model.yaml["backbone"]
        assert out.network.model.yaml["head"] == plain.model.yaml["head"]
        report = yolo_attn.transfer(out.network.model, copy.deepcopy(plain.model))
        assert report.fraction == 1.0


def test_a_wrong_rule_leaves_the_row_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = yolo_attn.attach(detector("yolov8n-cls.yaml"), "SE", where="P5")
    gates = random_gates(made.model)
    monkeypatch.setitem(fold_trace.CARRIES, "mul", lambda call: call.factor(0) * 2)
    monkeypatch.setattr(fold_trace, "over_positions", lambda factor: fold_rules.over_positions(factor) * 1.5)
    out = fold_network(made.model, gates, handle=made)
    assert out.network is None
    assert all("the outputs would differ" in why for why in out.kept.values()) and out.kept


def test_other_attention_keeps_its_row_and_lets_a_gate_through() -> None:
    """SE after SE: the second one's mean and product carry the first one's gate on, its first layer takes it."""
    made = yolo_attn.attach(yolo_attn.attach(detector("yolov8n-cls.yaml"), "SE", where="P5", start="paper"), "SE", where="P5", start="paper")
    first, second = list(attention_in(made.model))
    gates = random_gates(made.model)
    out = fold_network(made.model, {first: gates[first]}, handle=made)
    assert [r.layers[0] for r in out.rows] == [first]
    assert len(attention_in(out.network.model)) == 1
    assert len(yolo_attn.detach(out.network).model.model) == len(made.model.model) - 2
    assert second != first


def test_a_head_that_has_run_keeps_no_size_without_anchors() -> None:
    """A detector that has run on an image gives one that runs on images of that size."""
    plain = detector("yolov5n.yaml")
    with torch.no_grad():
        plain.model(torch.rand(1, 3, 64, 64))
        made = yolo_attn.attach(plain, "ECA", where="P5")
        assert made.model(torch.rand(1, 3, 64, 64))[0].shape[1] == 7


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fold") / "shapes", Recipe(train=12, val=10, size=64))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOv5n: SE with a constant gate in rows 3 and 6, one that moves in row 9, CBAM in row 12."""
    made = yolo_attn.attach(detector("yolov5n.yaml"), "SE", where="backbone", start="paper", args={"bias": True})
    made = yolo_attn.attach(yolo_attn.detach(made), "SE", after=[2, 4, 6], start="paper", args={"bias": True})
    made = yolo_attn.attach(made, "CBAM", where="P5", start="paper")
    paths = [p for p, kind in attention_in(made.model).items() if kind == "SEAttention"]
    planted(made.model, paths[:2])
    with torch.no_grad():
        for p in made.model.get_submodule(paths[2]).parameters():
            p.normal_(0, 3)
    file = tmp_path_factory.mktemp("fold") / "mixed.pt"
    start_from.save(made.model, file, arguments={"imgsz": 64})
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOv5n with constant gates before Detect only."""
    made = yolo_attn.attach(detector("yolov5n.yaml"), "SE", where="before-detect", start="paper", args={"bias": True})
    planted(made.model, attention_in(made.model))
    file = tmp_path_factory.mktemp("fold") / "whole.pt"
    start_from.save(made.model, file, arguments={"imgsz": 64})
    return file


def test_mixed(mixed: Path, data: Path, tmp_path: Path) -> None:
    """Constant rows go, the moving one and the spatial one stay with their reasons; the outputs are the same."""
    out = tmp_path / "out.pt"
    result = fold(mixed, data, output=out, tell=lambda line: None)
    assert [(r.row, r.folded) for r in result.rows] == [(3, True), (6, True), (9, False), (12, False)]
    assert "its gate moves: in channel" in result.rows[2].why and result.rows[2].moves > 0.02
    assert "several gates (channel, spatial)" in result.rows[3].why
    assert result.rows[0].moves < 1e-5
    assert result.nodes["after"] < result.nodes["before"]
    assert result.map["images"] == 10 and abs(result.map["change"]) < 1e-3
    a, b = open_source(mixed), open_source(out)
    x = torch.rand(1, 3, 96, 64)
    assert difference(outputs(a.model, x), outputs(b.model, x)) < AGREE
    assert b.imgsz == (64, 64) and b.names == a.names
    assert sorted(attention_in(b.model).values()) == ["CBAM", "SEAttention"]
    built, report = start_from.build(out, out.with_suffix(".yaml"), start="yaml")
    assert report.fraction == 1.0 and not report.new
    assert difference(outputs(built.eval(), x), outputs(b.model, x)) == 0


def test_whole_loads_trains_and_exports_without_the_kit(whole: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain.pt"
    result = fold(whole, data, output=out, tell=lambda line: None)
    assert len(result.folded) == len(result.rows) == 3
    bare = tmp_path / "bare.pt"
    start_from.save(detector("yolov5n.yaml").model, bare, arguments={"imgsz": 64})
    assert result.nodes["after"] == count_nodes(open_source(bare))
    with zipfile.ZipFile(out) as file:
        names = [n for n in file.namelist() if n.endswith("data.pkl")]
        assert names and all(b"yolo_attn" not in file.read(n) for n in names)
    code = f"""
        import sys, torch
        from ultralytics import YOLO
        handle = YOLO({str(out)!r})
        handle.train(data={str(data)!r}, epochs=1, imgsz=64, batch=4, workers=0, device="cpu", plots=False, val=False, project={str(tmp_path)!r})
        assert not any(n.partition(".")[0] == "yolo_attn" for n in sys.modules)
        """
    run_python("-c", textwrap.dedent(code), cwd=tmp_path).ok()


def test_a_bundle_in_a_bundle_out(whole: Path, data: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "d.bundle"
    yolo_attn.export_model(whole, format="bundle", output=bundle, log=lambda line: None)
    result = fold(bundle, data, tell=lambda line: None)
    assert result.output == str(tmp_path / "d_folded.bundle")
    a, b = yolo_attn.load(whole), yolo_attn.load(result.output)
    x = torch.rand(1, 3, 64, 64)
    assert difference(outputs(a.model.float(), x), outputs(b.model, x)) < AGREE
    assert not attention_in(b.model)


def cli(*argv: Any, cwd: Path) -> Run:
    return run_python("-m", "yolo_attn", "fold", *map(str, argv), cwd=cwd)


def test_the_command_prints_json_and_says_when_nothing_folds(mixed: Path, data: Path, tmp_path: Path) -> None:
    done = cli(mixed, "--data", data, "--tolerance", 0, "-o", "none.pt", "--json", "--device", "cpu", cwd=tmp_path)
    assert done.code == 1, done.err
    told = json.loads(done.out)
    assert told["output"] is None and not any(r["folded"] for r in told["rows"])
    assert "recording gates on 12 train images" in done.err
    assert not list(tmp_path.iterdir())


def test_bad_input(mixed: Path, whole: Path, data: Path, tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"tell": lambda line: None}
    for tolerance in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="tolerance= must be a number from 0 to 1"):
            fold(mixed, data, tolerance=tolerance, **quiet)
    with pytest.raises(UsageError, match="at least 10"):
        fold(mixed, data, train_images=5, **quiet)
    with pytest.raises(UsageError, match=r"must be a \.pt or a \.bundle"):
        fold(mixed, data, output=tmp_path / "x.onnx", **quiet)
    with pytest.raises(UsageError, match="is the detector itself"):
        fold(mixed, data, output=mixed, **quiet)
    (tmp_path / "there.yaml").write_text("")
    with pytest.raises(FileError, match=r"there\.yaml exists"):
        fold(mixed, data, output=tmp_path / "there.pt", **quiet)
    with pytest.raises(FileError, match="the folder .* does not exist"):
        fold(mixed, data, output=tmp_path / "no" / "x.pt", **quiet)
    with pytest.raises(UsageError, match="is a model YAML"):
        fold("yolov5n_se.yaml", data, **quiet)
    bare = tmp_path / "bare.pt"
    start_from.save(yolo_attn.detach(yolo_attn.load(whole)).model, bare)
    with pytest.raises(CheckpointError, match="has no attention"):
        fold(bare, data, **quiet)
    few = make(tmp_path / "few", Recipe(train=9, val=1, size=32))
    with pytest.raises(DataError, match="has 9 images"):
        fold(mixed, few, **quiet)
    assert not (tmp_path / "bare_folded.pt").exists()
    a_class_more = SimpleNamespace(names=dict.fromkeys(range(4), "x"))
    with pytest.raises(DataError, match="has 3 classes and the detector 4"):
        labelled(a_class_more, str(data))  # type: ignore[arg-type]


CLASSIC = """
{host}
import sys, torch, yolo_attn
from pathlib import Path
from yolo_attn.weights import start_from
from yolo_attn.weights.attention import attention_in
from yolo_attn.inside.fold import fold
from yolo_attn.detectors.opening import open_source
from yolo_attn.inside.fold_constant import outputs
from yolo_attn.inside.fold_network import difference
torch.manual_seed(0)
model = yolo.Model(str(Path(yolo.__file__).parent / "yolov5n.yaml"), nc=3)
model.names = ["a", "b", "c"]
made = yolo_attn.attach(model, "SE", where=["P5", "inside-neck"], start="paper", args={"bias": True})
for m in made.modules():
    if isinstance(m, torch.nn.BatchNorm2d):
        m.running_mean.normal_(0, 0.1), m.running_var.uniform_(0.5, 1.5)
for path in attention_in(made):
    for name, p in made.get_submodule(path).named_parameters():
        p.data.normal_() if name.endswith("bias") else p.data.zero_()
start_from.save(made, Path("classic.pt"), classic=True, arguments={"imgsz": 64})
result = fold("classic.pt", sys.argv[1], tell=lambda line: None)
assert [r.folded for r in result.rows] == [True] * 4, result.rows
assert result.nodes["after"] < result.nodes["before"]
a, b = open_source("classic.pt"), open_source(result.output)
assert a.imgsz == b.imgsz == (64, 64)
x = torch.rand(1, 3, 64, 64)
assert difference(outputs(a.model, x), outputs(b.model, x)) < 1e-5
assert not attention_in(b.model) and [r[2] for r in b.model.yaml["head"]].count("C3") == 4
yolo.Model(result.cfg)
"""


def test_classic(classic: Classic, data: Path, tmp_path: Path) -> None:
    """A row and the inside of blocks, on the classic host, whose YAML is built again."""
    classic.python(CLASSIC, str(data), cwd=tmp_path).ok()
    with zipfile.ZipFile(tmp_path / "classic_folded.pt") as file:
        assert not any(b"yolo_attn" in file.read(n) for n in file.namelist() if n.endswith("data.pkl"))


def test_options_of_a_block_by_name_become_positional() -> None:
    from ultralytics import YOLO

    d = copy.deepcopy(YOLO("yolov5n.yaml").model.yaml)
    d["backbone"][2] = [-1, 3, "C3Attention", [128, {"module": "SE", "reduction": 8, "e": 0.25}]]
    model = type(YOLO("yolov5n.yaml").model)(d, verbose=False)
    (row,) = rows_of(model, model.yaml)
    assert row.tail == [3, "C3", [128, True, 1, 0.25]]
    text = as_yaml(model.yaml, "a head")
    assert "  - [-1, 3, C3Attention, [128, {module: SE, reduction: 8, e: 0.25}]] # 2\n" in text


def test_a_single_image_that_moves_is_enough() -> None:
    """The measure is the furthest image and not the spread: one of many is not lost in a mean."""
    made = yolo_attn.attach(detector("yolov8n-cls.yaml"), "SE", where="P5", start="paper", args={"bias": True})
    (path,) = attention_in(made.model)
    se = made.model.get_submodule(path)
    still(se)
    with record_gates(made.model) as gates, torch.no_grad():
        for k in range(200):
            se.fc2.bias[3] += 0.5 * (k == 150)
            made.model.eval()(torch.rand(1, 3, 32, 32))
            se.fc2.bias[3] -= 0.5 * (k == 150)
    assert float(gates[path].spread.max()) < 0.02
    constants, moves, why = constant_gates(gates, rows_of(made.model, made.model.yaml), 0.02)
    assert constants == {} and "in channel 3" in next(iter(why.values())) and next(iter(moves.values())) > 0.05
