"""Pretrained weights: every tensor in its own layer, attention that starts as the identity, honest reports.

Values are planted, each tensor with its own, and looked for where they belong; counting them would miss the wrong layer.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from classic_host import Classic, classic  # noqa: F401 # fixtures
from conftest import ROOT
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_attn
from yolo_attn.cli import main
from yolo_attn.errors import CheckpointError
from yolo_attn.model_yaml import find, load
from yolo_attn.registry import registry
from yolo_attn.weights import align, checkpoint

ATTENTION = [
    n
    for n in registry.list_modules()
    if registry.get_entry(n).kind in ("channel", "spatial", "both")
    and registry.get_entry(n).cls.__module__.startswith("yolo_attn.modules.")
]
PLACES: dict[str, Any] = {
    "backbone": "backbone",
    "neck": "neck",
    "before-detect": "before-detect",
    "inside": ["inside", "inside-neck"],
    "everywhere": ["backbone", "head", "before-detect"],
}


def small(name: str = "yolov5", width: float = 0.125) -> dict[str, Any]:
    """A narrow detector: the layers and names of the real one, an eighth of its channels."""
    d = yaml.safe_load((find.configs_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    return {**d, "nc": 4, "scales": {"n": [0.33, width, 1024]}, "scale": "n"}


def build(d: dict[str, Any], **options: Any) -> DetectionModel:
    return DetectionModel(dict(d), verbose=False, **options).eval()


def plant(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values that no other one has, within what a network can bear."""
    generator = torch.Generator().manual_seed(seed)
    for k, v in model.state_dict().items():
        if k.endswith(".anchors"):  # what the classic host leaves to the model that is built
            continue
        if v.dtype.is_floating_point:
            noise = torch.rand(v.shape, generator=generator)
            positive = k.endswith(("running_var", "bn.weight"))
            v.copy_(noise + 0.5 if positive else v + 0.02 * (noise - 0.5) if v.ndim > 1 else noise - 0.5)
        else:
            v.fill_(int(torch.randint(1, 10**6, (), generator=generator)))
    return model


def logical(model: Any, tensors: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """The tensors beside attention by logical layer: the number of the row among rows without attention.

    Written for the tests alone: it shares no code with what it checks.
    """
    names = {registry.get_entry(n).cls for n in ATTENTION}
    out, number = {}, 0
    state = tensors if tensors is not None else model.state_dict()
    for i, layer in enumerate(model.model):
        if type(layer) in names or (isinstance(layer, nn.Sequential) and type(layer[0]) in names):
            continue
        inner = tuple(n + "." for n, m in layer.named_modules() if type(m) in names)
        for k in layer.state_dict():
            if not (inner and k.startswith(inner)) and f"model.{i}.{k}" in state:
                out[f"{number}.{k}"] = state[f"model.{i}.{k}"]
        number += 1
    return out


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k].float(), b[k].float()) for k in a)


@pytest.fixture(scope="module")
def plain_detector() -> DetectionModel:
    model = plant(build(small()))
    model.names = dict(enumerate(["cat", "dog", "cow", "hen"]))
    return model


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(1))


# -- every module, every place -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "place"),
    # Each module in each place; that of the first module in every place and of every module in one place is quick.
    [
        pytest.param(m, p, marks=[] if m == "SEAttention" or p == "neck" else [pytest.mark.slow])
        for m in ATTENTION
        for p in PLACES
        if p != "everywhere" or m in ("SEAttention", "ECA")
    ],
)
def test_every_tensor_reaches_its_layer_and_identity_starts_as_the_base(
    plain_detector: DetectionModel, image: torch.Tensor, module: str, place: str
) -> None:
    d = yolo_attn.insert(small(), module, where=PLACES[place], start="identity")
    model = build(d)
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    report = yolo_attn.transfer(plain_detector, model)
    mine, theirs = logical(model), logical(plain_detector)
    assert same(mine, theirs)
    assert report.matched == report.base == len(theirs) and not report.unused and not report.mismatch
    now = model.state_dict()
    assert set(report.new) == set(report.new_attention) == now.keys() - report.mapping.keys()
    assert all(torch.equal(now[k], fresh[k]) for k in report.new)
    assert not report.rewired
    with torch.no_grad():
        a, b = plain_detector(image)[0], model(image)[0]
    assert torch.equal(a, b), f"largest difference {(a - b).abs().max()}"
    assert model.names == plain_detector.names


@pytest.mark.parametrize("name", ["yolov5-p6", "yolov8", "yolo11"])
def test_other_detectors(name: str, image: torch.Tensor) -> None:
    plain = plant(build(small(name)))
    model = build(yolo_attn.insert(small(name), "SE", where=["backbone", "before-detect"], start="identity"))
    yolo_attn.transfer(plain, model)
    assert same(logical(model), logical(plain))
    with torch.no_grad():
        assert torch.equal(plain(image)[0], model(image)[0])


def test_all_427_tensors_of_yolov5s() -> None:
    plain, model = (
        plant(DetectionModel("yolov5s.yaml", verbose=False)),
        DetectionModel("yolov5s_se.yaml", verbose=False),
    )
    report = yolo_attn.transfer(plain, model)
    assert report.matched == report.base == 427 and len(report.new) == 8
    assert same(logical(model), logical(plain))


# -- between models with attention ---------------------------------------------------------------------------------


def attended(module: str, where: Any = "backbone", **options: Any) -> dict[str, Any]:
    return yolo_attn.insert(small(), module, where=where, **options)


@pytest.mark.parametrize("names_only", [False, True])
def test_attention_to_base_and_to_other_attention(names_only: bool) -> None:
    source = plant(build(attended("SEAttention")))
    given: Any = source.state_dict() if names_only else source
    for d in (small(), attended("ECA"), attended("CBAM", "neck")):
        model = build(d)
        report = yolo_attn.transfer(given, model)
        assert same(logical(model), logical(source))
        assert len(report.unused) == 8 and all("fc" in k for k in report.unused)
        assert not report.attention & report.mapping.keys()


@pytest.mark.parametrize("names_only", [False, True])
def test_the_same_attention_comes_along(names_only: bool) -> None:
    source = plant(build(attended("SEAttention", ["P3", "P5"])))
    model = build(attended("SEAttention", ["backbone", "neck"]))
    report = yolo_attn.transfer(source.state_dict() if names_only else source, model)
    assert same(logical(model), logical(source))
    moved = {t: s for t, s in report.mapping.items() if t in report.attention}
    # behind rows 4 and 8 of the base: rows 5 and 10 there, 6 and 12 here
    assert {(t.split(".")[1], s.split(".")[1]) for t, s in moved.items()} == {("6", "5"), ("12", "10")}
    assert all(torch.equal(model.state_dict()[t], source.state_dict()[s]) for t, s in moved.items())


def test_another_kind_of_equal_shape_is_not_taken_for_it() -> None:
    source, model = plant(build(attended("SEAttention"))), build(attended("SEAttention", args={"reduction": 8}))
    report = yolo_attn.transfer(source, model)
    assert not report.attention & report.mapping.keys()  # half a gate is none
    swapped = build(attended("eSE"))
    fresh = {k: v.clone() for k, v in swapped.state_dict().items()}
    report = yolo_attn.transfer(plant(build(attended("SEVar3"))), swapped)  # both hold one C x C layer
    assert all(torch.equal(swapped.state_dict()[k], fresh[k]) for k in report.attention)


@pytest.mark.parametrize("letter", ["n", "m"])
def test_inside_yolo11_every_tensor_keeps_its_name_and_the_outputs_are_equal(letter: str) -> None:
    """From m on, the host makes every C3k2 of C3k blocks, whatever its row says."""
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    if not hasattr(tasks, "C3k2"):  # before 8.3
        pytest.skip("this ultralytics has no C3k2")
    d = load.read(find.require("yolo11n.yaml"))
    d = {**d, "nc": 3, "scales": {"n": [0.5, 0.125, 1024], "m": [0.5, 0.125, 512]}, "scale": letter}
    plain = plant(DetectionModel(d, verbose=False)).eval()
    new = yolo_attn.insert(d, "SEAttention", where="inside", start="identity")
    model = DetectionModel(new, verbose=False).eval()
    report = yolo_attn.transfer(plain, model)
    assert report.fraction == 1 and all(t == s for t, s in report.mapping.items())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x)[0], plain(x)[0])


def test_inside_and_behind_exchange_the_detector() -> None:
    source, model = plant(build(attended("SEAttention", "inside"))), build(attended("SEAttention"))
    report = yolo_attn.transfer(source, model)
    assert same(logical(model), logical(source)) and report.matched == report.base
    back = build(attended("SEAttention", "inside"))
    report = yolo_attn.transfer(source, back)
    assert same(dict(back.state_dict()), dict(source.state_dict())) and not report.new


# -- classes, sizes, architectures ---------------------------------------------------------------------------------


def test_another_number_of_classes(plain_detector: DetectionModel) -> None:
    model = build(attended("ECA"), nc=7)
    report = yolo_attn.transfer(plain_detector, model)
    assert report.classes == (4, 7)
    assert report.mismatch and all(k.startswith("model.28.cv3") for k, _, _ in report.mismatch)
    assert "4 classes there, 7 here" in report.summary()
    mine, theirs = logical(model), logical(plain_detector)
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs if not k.startswith("24.cv3"))


def test_another_architecture_is_refused_unless_forced(plain_detector: DetectionModel) -> None:
    for other in (small("yolov8"), small(width=0.25)):
        model = build(other)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=r"another architecture: \d+ of \d+ tensors"):
            yolo_attn.transfer(plain_detector, model)
        assert same(dict(model.state_dict()), before)
        report = yolo_attn.transfer(plain_detector, model, force=True)
        assert 0 < report.fraction < 0.5


def test_missing_attention_at_inference_is_an_error(plain_detector: DetectionModel) -> None:
    model = build(attended("SEAttention"))
    with pytest.raises(CheckpointError, match="8 of them of attention, first model.3.fc1.weight"):
        yolo_attn.transfer(plain_detector.state_dict(), model, inference=True)
    whole = plant(build(attended("SEAttention")))
    yolo_attn.transfer(whole.state_dict(), model, inference=True)
    assert same(dict(model.state_dict()), dict(whole.state_dict()))


def test_fused_weights_are_named_as_such(plain_detector: DetectionModel) -> None:
    import copy

    with pytest.raises(CheckpointError, match="fused"):
        yolo_attn.transfer(copy.deepcopy(plain_detector).fuse(verbose=False), build(attended("ECA")))


def test_report_as_table_and_json(plain_detector: DetectionModel) -> None:
    report = yolo_attn.transfer(plain_detector, build(attended("SEAttention"), nc=7))
    told = json.loads(report.to_json())
    by_row = {x["row"]: x for x in told["layers"]}
    assert by_row[3]["attention"] and len(by_row[3]["new"]) == 2 and by_row[3]["source_row"] is None
    assert by_row[4]["source_row"] == 3 and by_row[4]["transferred"] == 6
    assert told["detector_tensors"] == 427 and len(told["new_attention"]) == 8
    count = sum(x["transferred"] + len(x["new"]) + len(x["mismatch"]) for x in told["layers"])
    assert count == 435 and told["transferred"] == len(told["mapping"])
    lines = report.table().splitlines()
    assert any(line.split()[:4] == ["3", "-", "SEAttention", "0/2"] for line in lines)
    assert any(line.split()[:4] == ["4", "3", "Conv", "6/6"] for line in lines)


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_classic_checkpoint_needs_no_checkout(tmp_path: Path, plain_detector: DetectionModel) -> None:
    """Classes that exist nowhere any more, as in a file of somebody's fork."""
    home = types.ModuleType("models_of_a_fork")
    sys.modules["models_of_a_fork"] = home

    def renamed(m: nn.Module) -> nn.Module:
        for n, child in list(m.named_children()):
            setattr(m, n, renamed(child))
        if type(m).__module__.startswith("ultralytics"):
            name = type(m).__name__
            if not hasattr(home, name):
                setattr(home, name, type(name, (nn.Module,), {"__module__": "models_of_a_fork"}))
            old, m = m, getattr(home, name).__new__(getattr(home, name))
            m.__dict__.update(old.__dict__)
        return m

    source = plant(build(small()), seed=5)
    expected = {k: v.clone() for k, v in source.state_dict().items()}
    reference = logical(source)
    stranger: Any = renamed(source)
    torch.save({"epoch": 3, "model": stranger.half(), "ema": None, "best_fitness": 0.5}, tmp_path / "fork.pt")
    del sys.modules["models_of_a_fork"]
    found = checkpoint.read(tmp_path / "fork.pt")
    assert list(found.tensors) == list(expected)
    model = build(attended("SEAttention"))
    yolo_attn.transfer(tmp_path / "fork.pt", model)
    assert all(torch.equal(v, reference[k].half().float()) for k, v in logical(model).items() if v.is_floating_point())


@pytest.mark.parametrize("kind", ["plain", "nested", "wrapped"])
def test_state_dicts(tmp_path: Path, plain_detector: DetectionModel, kind: str) -> None:
    state = dict(plain_detector.state_dict())
    content = {
        "plain": state,
        "nested": {"state_dict": state, "epoch": 3},
        "wrapped": {f"module.{k}": v for k, v in state.items()},
    }[kind]
    torch.save(content, tmp_path / "state.pt")
    model = build(attended("ECA"))
    yolo_attn.transfer(tmp_path / "state.pt", model)
    assert same(logical(model), logical(plain_detector))


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    class Deeper:
        def __reduce__(self) -> Any:
            return subprocess.check_output, (["touch", str(tmp_path / "ran")],)

    for content in ({"model": Payload()}, {"model": {"model.0.w": torch.ones(1), "x": Deeper()}}, [Payload()]):
        torch.save(content, tmp_path / "bad.pt")
        try:
            checkpoint.read(tmp_path / "bad.pt")
        except CheckpointError:
            continue
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut short"])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        yolo_attn.transfer(tmp_path / "x.pt", build(small()))
    with pytest.raises(CheckpointError, match="not found"):
        yolo_attn.transfer(tmp_path / "none.pt", build(small()))


def test_safetensors_say_what_is_missing(tmp_path: Path, plain_detector: DetectionModel) -> None:
    if not checkpoint_has_safetensors():
        (tmp_path / "x.safetensors").write_bytes(b"")
        with pytest.raises(CheckpointError, match="pip install safetensors"):
            checkpoint.read(tmp_path / "x.safetensors")
        return
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in plain_detector.state_dict().items()}, str(tmp_path / "x.safetensors"))
    model = build(attended("ECA"))
    yolo_attn.transfer(tmp_path / "x.safetensors", model)
    assert same(logical(model), logical(plain_detector))


def checkpoint_has_safetensors() -> bool:
    import importlib.util

    return importlib.util.find_spec("safetensors") is not None


# -- the hosts' own ways in ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the small detectors as files."""
    monkeypatch.chdir(tmp_path)
    d = {k: v for k, v in small().items() if k != "scale"}
    Path("yolov5n-small.yaml").write_text(yaml.safe_dump(d), encoding="utf-8")
    se = yolo_attn.insert(d, "SEAttention", where="backbone")
    Path("yolov5n-small-se.yaml").write_text(yaml.safe_dump(se), encoding="utf-8")
    return tmp_path


def test_the_hosts_load_goes_by_layer(folder: Path) -> None:
    plain = YOLO("yolov5n-small.yaml")
    plant(plain.model)
    plain.model.names = dict(enumerate(["cat", "dog", "cow", "hen"]))
    plain.save("plain.pt")
    model = YOLO("yolov5n-small-se.yaml").load("plain.pt")
    expected = {k: v.half().float() if v.is_floating_point() else v for k, v in logical(plain.model).items()}
    assert same(logical(model.model), expected)
    assert model.model.names == plain.model.names
    direct = DetectionModel("yolov5n-small-se.yaml", nc=6, verbose=False)
    direct.load({"model": plain.model, "ema": None}, verbose=False)
    mine = logical(direct)
    assert all(torch.equal(mine[k], v.float()) for k, v in logical(plain.model).items() if "cv3" not in k)
    back = YOLO("yolov5n-small.yaml").load(model.model)
    assert same(logical(back.model), logical(model.model))


def test_a_head_with_anchors_has_no_place_in_one_without() -> None:
    report = align.Report("old.pt", [], {}, ["model.24.m.0.weight", "model.24.anchors"], set())
    assert report.summary().endswith("has no place in this anchor-free one and begins anew")
    report.unused.pop()
    assert "anchor" not in report.summary()


def test_a_training_names_its_weights_once_and_then_what_the_classes_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No temporary path as the source, and no second count that contradicts the first."""
    from ultralytics.nn.tasks import DetectionModel

    source, target = (DetectionModel("yolov5n_se.yaml", nc=nc, verbose=False) for nc in (80, 3))
    source.weights_from, source.pt_path = "base.pt", "/tmp/draft.pt"
    with caplog.at_level("INFO", "yolo_attn"):
        target.load(source)
    told = [r.getMessage() for r in caplog.records if r.name == "yolo_attn"]
    assert told == ["the data set has 3 classes and base.pt has 80: 6 tensors of the head begin anew"]


def test_the_load_says_what_came_and_how_attention_begins(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "yolo_attn")
    plain = DetectionModel("yolov5n-small.yaml", verbose=False)
    DetectionModel("yolov5n-small-se.yaml", verbose=False).load(plain)
    assert "427 of 427 tensors" in caplog.text and "8 of attention are new" in caplog.text
    assert "{start: identity}" in caplog.text
    caplog.clear()
    build(attended("SEAttention", start="identity")).load(plain)
    assert "427 of 427 tensors" in caplog.text and "{start: identity}" not in caplog.text
    caplog.clear()
    DetectionModel("yolov5n-small.yaml", verbose=False).load(plain)
    assert "yolo_attn" not in [r.name for r in caplog.records]


def test_the_host_refuses_to_detect_with_attention_that_got_no_weights(folder: Path) -> None:
    plain, quiet = YOLO("yolov5n-small.yaml"), {"imgsz": 64, "verbose": False, "device": "cpu"}
    picture = torch.zeros(1, 3, 64, 64)
    model = YOLO("yolov5n-small-se.yaml").load(plant(plain.model))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"8 tensors of attention \(first model.3.*Train it first"):
            model.predict(picture, **quiet)
    with pytest.raises(CheckpointError, match="no weights"):
        model.val(data="no-matter.yaml", **quiet)
    model.load(build(attended("SEAttention")))  # the very same architecture
    assert len(model.predict(picture, **quiet)) == 1
    Path("yolov5n-start.yaml").write_text(
        yolo_attn.insert("yolov5n-small.yaml", "SEAttention", where="backbone", start="identity"), encoding="utf-8"
    )
    assert len(YOLO("yolov5n-start.yaml").load(plain.model).predict(picture, **quiet)) == 1


def test_uninstalled_the_host_loads_as_ever(folder: Path) -> None:
    plain = plant(DetectionModel("yolov5n-small.yaml", verbose=False))
    model = DetectionModel("yolov5n-small-se.yaml", verbose=False)
    yolo_attn.uninstall()
    try:
        model.load(plain, verbose=False)
        assert not same(logical(model), logical(plain))
    finally:
        yolo_attn.install()
    model.load(plain, verbose=False)
    assert same(logical(model), logical(plain))


def test_models_without_attention_pass_through_untouched() -> None:
    one, other = plant(build(small())), build(small("yolov8"))
    expected = build(small("yolov8"))
    expected.load_state_dict(other.state_dict())
    yolo_attn.uninstall()
    try:
        expected.load(one, verbose=False)
    finally:
        yolo_attn.install()
    other.load(one, verbose=False)
    assert same(dict(other.state_dict()), dict(expected.state_dict()))


def test_transfer_into_yolo_survives_into_training(folder: Path) -> None:
    plain = plant(DetectionModel("yolov5n-small.yaml", verbose=False))
    model = YOLO("yolov5n-small-se.yaml")
    yolo_attn.transfer(plain, model)
    assert model.ckpt  # what the host's train() asks before it hands the weights to its trainer
    again = DetectionModel(model.model.yaml, verbose=False)
    again.load(model.model, verbose=False)
    assert same(dict(again.state_dict()), dict(model.model.state_dict()))


def test_command(folder: Path, capsys: Any, image: torch.Tensor) -> None:
    plain = YOLO("yolov5n-small.yaml")
    plant(plain.model).eval()
    torch.save({"model": plain.model}, "plain.pt")
    assert main("transfer plain.pt yolov5n-small-se.yaml -o init.pt --json report.json".split()) == 0
    shown = capsys.readouterr().out
    assert "427 of 427 tensors of the detector received weights of plain.pt, 8 of attention are new" in shown
    assert "begins as the identity" in shown
    assert json.loads(Path("report.json").read_text())["fraction"] == 1.0
    model = YOLO("init.pt")
    assert [r[3] for r in model.model.yaml["backbone"] if r[2] == "SEAttention"] == [[{"start": "identity"}]] * 4
    with torch.no_grad():
        assert torch.equal(model.model.eval()(image)[0], plain.model(image)[0])
    assert main("transfer plain.pt yolov5n-small-se.yaml -o init.pt".split()) == 1
    assert "init.pt exists" in capsys.readouterr().err
    assert main("transfer plain.pt yolov8n_se.yaml".split()) == 1
    assert "another architecture" in capsys.readouterr().err


CLASSIC = """
import copy, json, os, sys
import yolo_attn
{host}
import torch, yaml
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_weights import ATTENTION, PLACES, logical, plant, same

sys.modules[yolo.__name__.rpartition("models")[0] + "utils.torch_utils"].thop = None  # no count of FLOPs, half of a build

def small():
    from yolo_attn.model_yaml import find
    d = yaml.safe_load((find.configs_folder() / "yolov5.yaml").read_text())
    return {**d, "nc": 4, "scales": {"n": [0.33, 0.125, 1024]}, "scale": "n"}

Model = yolo.Model
base = plant(Model(small()).eval())
image = torch.rand(1, 3, 64, 96)
intersect_dicts = getattr(general, "intersect_dicts", None)
if intersect_dicts is None:
    from utils.torch_utils import intersect_dicts
done = 0
for module in ATTENTION:
    for place in sys.argv[2].split(","):
        where = PLACES[place]
        d = yolo_attn.insert(small(), module, where=where, start="identity")
        model = Model(d).eval()
        ckpt = {"model": base}
        # as the host's train.py does it
        csd = ckpt["model"].float().state_dict()
        csd = intersect_dicts(csd, model.state_dict(), exclude=["anchor"])
        model.load_state_dict(csd, strict=False)
        assert same(logical(model), logical(base)), (module, place)
        with torch.no_grad():
            a, b = base(image)[0], model(image)[0]
        assert torch.equal(a, b), (module, place, float((a - b).abs().max()))
        done += 1
print(json.dumps({"done": done}))
"""


def test_a_full_disk_is_one_message(python: Any, tmp_path: Path) -> None:
    """What stood there stays; no draft is left."""
    pytest.importorskip("resource")
    (tmp_path / "init.pt").write_text("before")
    python(
        """
        import resource, signal, sys
        from pathlib import Path
        import yolo_attn
        from ultralytics import YOLO
        from yolo_attn import errors
        from yolo_attn.weights import start_from
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        model = YOLO("yolov5n_se.yaml").model
        sys.dont_write_bytecode = True  # Python before 3.12 leaves a cut file, which the next process reads
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
        try:
            start_from.save(model, Path("init.pt"))
        except errors.FileError as exc:
            assert "init.pt: cannot be written: File too large" in str(exc)
        else:
            raise AssertionError("it was written")
        """
    ).ok()
    assert [p.name for p in tmp_path.iterdir()] == ["init.pt"] and (tmp_path / "init.pt").read_text() == "before"


# What a process needs on its path that imports this file.
HELPERS = os.pathsep.join(map(str, (Path(__file__).parent, ROOT / "tests", ROOT / "tools")))


@pytest.mark.slow
def test_classic_host(classic: Classic, tmp_path: Path) -> None:  # noqa: F811
    places = list(PLACES) if os.environ.get("YOLO_ATTN_YOLOV5") else ["everywhere", "inside"]
    out = classic.python(CLASSIC, HELPERS, ",".join(places), cwd=tmp_path).ok()
    assert json.loads(out.splitlines()[-1])["done"] == len(places) * len(ATTENTION)


# -- by two state dicts, as classic YOLOv5 loads: no caller's variable is the detector -------------------------------

HELD = """
import gc, json, os, sys, weakref
import yolo_attn
{host}
import copy, torch
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_weights import logical, plant, same, small

class Held:
    def __init__(self, model):
        self.model = model

def misplaced(moved, model, base):
    model.load_state_dict(moved, strict=False)
    return not same(logical(model), logical(base))

base = plant(build(small()).eval())
attended = yolo_attn.insert(small(), "SEAttention", where="backbone")
held = Held(build(attended))
moved = intersect_dicts(base.float().state_dict(), held.model.state_dict())
assert len(moved) == len(base.state_dict()) - anchors, (len(moved), len(base.state_dict()))
assert not misplaced(moved, held.model, base)

# a detector that was copied, one that was unpickled, part of a state dict, a source that is held as well
for made in (copy.deepcopy, lambda m: torch.load(pickled(m), weights_only=False)):
    held = Held(made(build(attended)))
    assert not misplaced(intersect_dicts(Held(base).model.state_dict(), held.model.state_dict()), held.model, base)
part = {k: v for k, v in held.model.state_dict().items() if "anchor" not in k}
assert not misplaced(intersect_dicts(base.state_dict(), part), held.model, base)

# attention without a tensor of its own shifts the layers as well
held = Held(build(yolo_attn.insert(small(), "SimAM", where="backbone")))
assert not misplaced(intersect_dicts(base.state_dict(), held.model.state_dict()), held.model, base)

# of which detector it is cannot be told: an error, never a copy by name
for state in (lambda: {k: v.clone() for k, v in held.model.state_dict().items()}, lambda: build(attended).state_dict()):
    state = state()
    gc.collect()
    try:
        intersect_dicts(base.state_dict(), state)
    except yolo_attn.YoloAttnError as exc:
        assert "cannot tell which detector" in str(exc) and "transfer(" in str(exc)
    else:
        raise AssertionError("it was copied by name")

# a plain detector beside these goes as the host does, a copy of its state dict too
plain = build(small())
for state in (plain.state_dict(), {k: v.clone() for k, v in plain.state_dict().items()}):
    assert len(intersect_dicts(base.state_dict(), state)) == len(base.state_dict())

# nothing is kept alive
gone = weakref.ref(held.model)
del held, part, state
gc.collect()
assert gone() is None
print("HELD")
"""
HELD = HELD.replace("import copy, torch", "import copy, io, torch\n\ndef pickled(m):\n    file = io.BytesIO()\n    torch.save(m, file)\n    file.seek(0)\n    return file")  # fmt: skip


def test_a_detector_held_by_an_object_gets_its_own_tensors(python: Any) -> None:
    host = """
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import intersect_dicts
build, anchors = lambda d: DetectionModel(dict(d), verbose=False), 0
"""
    assert "HELD" in python(HELD.replace("{host}", host), HELPERS).ok()


def test_a_classic_detector_held_by_an_object_gets_its_own_tensors(classic: Classic, tmp_path: Path) -> None:  # noqa: F811
    host = """{host}
intersect_dicts = getattr(general, "intersect_dicts", None)
if intersect_dicts is None:
    from utils.torch_utils import intersect_dicts
build, anchors = lambda d: yolo.Model(dict(d)), 0
"""
    code = HELD.replace("{host}", host, 1)
    assert "HELD" in classic.python(code, HELPERS, cwd=tmp_path).ok()


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5n_se.yaml"])
def test_a_state_dict_stays_plain(cfg: str) -> None:
    """It can be saved, copied and read by anybody: which detector it is of is kept beside it."""
    model = DetectionModel(cfg, verbose=False)
    state = model.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    assert list(read) == list(state) and vars(state).keys() == {"_metadata"} and vars(read).keys() == {"_metadata"}
    assert same(dict(copy.deepcopy(state)), dict(state)) and pickle.loads(pickle.dumps(state)).keys() == state.keys()


def test_nothing_is_kept_of_a_state_dict_that_is_gone() -> None:
    from yolo_attn.weights import built

    model = DetectionModel("yolov5n_se.yaml", verbose=False)
    before = len(built._states)
    state = model.state_dict()
    assert built.owner(state, "target's") is model and len(built._states) == before + 1
    del state
    assert len(built._states) == before


class GateOne(nn.Module):
    """Two kinds of attention whose tensors have the same names and shapes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class GateTwo(GateOne):
    pass


@pytest.fixture
def gates() -> Any:
    for cls in (GateOne, GateTwo):
        registry.register(cls.__name__, cls, kind="channel")
    yield
    for cls in (GateOne, GateTwo):
        registry.unregister(cls.__name__)


def test_attention_goes_into_its_own_kind_where_another_has_the_same_shapes(gates: None) -> None:
    """Behind one row and inside a block: a kind that is not in the source starts new, one that is finds its own."""
    two = plant(build(yolo_attn.insert(yolo_attn.insert(small(), "GateTwo", after=2), "GateOne", after=2)))
    kinds = [type(m).__name__ for m in two.model if type(m).__name__.startswith("Gate")]
    assert kinds == ["GateOne", "GateTwo"]
    second = next(m for m in two.model if type(m) is GateTwo)
    model = build(yolo_attn.insert(small(), "GateTwo", after=2))
    report = yolo_attn.transfer(two, model)
    found = next(m for m in model.model if type(m) is GateTwo)
    assert not report.new and torch.equal(found.fc.weight, second.fc.weight)

    one = plant(build(yolo_attn.insert(small(), "GateOne", where="inside")))
    model = build(yolo_attn.insert(small(), "GateTwo", where="inside"))
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    report = yolo_attn.transfer(one, model)
    assert report.new_attention and set(report.new_attention) == set(report.new)
    assert all(torch.equal(model.state_dict()[k], fresh[k]) for k in report.new_attention)


def test_class_names_come_with_a_whole_head_alone() -> None:
    source = build(small())
    source.names = {i: f"thing {i}" for i in range(len(source.names))}
    whole, part = build(small()), build(small())
    part.model[-1].cv2[0][2] = nn.Conv2d(part.model[-1].cv2[0][2].in_channels, 12, 1)
    yolo_attn.transfer(source, whole)
    yolo_attn.transfer(source, part)
    assert whole.names == source.names and part.names != source.names
