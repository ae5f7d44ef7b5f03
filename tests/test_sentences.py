"""Every sentence that a command prints about a model, on a model for which it would be false.

One test a sentence; those on how a detector begins are in ``test_untrained``, those on a head that reads a join in
``test_config``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_weights import build, plant, small
from ultralytics.nn.tasks import DetectionModel

import yolo_attn
from yolo_attn.cli import main
from yolo_attn.commands import _tables
from yolo_attn.export.single import export
from yolo_attn.model_yaml import find
from yolo_attn.model_yaml.schedule import Schedule
from yolo_attn.training.closing import next_steps, published
from yolo_attn.training.schedule import Pace
from yolo_attn.weights import attention

GATE = """
import torch
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels, reduction=4):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
    def forward(self, x):
        return x * torch.sigmoid(self.fc(x))

class Coord(nn.Module):
    def __init__(self, inp, oup):
        super().__init__()
        self.fc = nn.Conv2d(inp, oup, 1)
    def forward(self, x):
        return x * torch.sigmoid(self.fc(x))

class Stage(nn.Module):
    def __init__(self, c1, c2, n=1):
        super().__init__()
        self.cv = nn.Conv2d(c1, c2, 1)
    def forward(self, x):
        return self.cv(x)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small detector with attention of the user's own: behind a row, inside a block, with stated channels."""
    monkeypatch.chdir(tmp_path)
    Path("truth_gates.py").write_text(GATE, encoding="utf-8")
    d = small()
    d["register"] = {n: f"truth_gates.py:{n}" for n in ("Gate", "Coord", "Stage")}
    d = yolo_attn.insert(d, "Gate", where=["P4", "inside-P5"])
    d["backbone"].insert(3, [-1, 1, "Stage", [128]])
    d["backbone"].insert(3, [-1, 1, "Coord", [128]])
    d = {**d, **_shifted(d, 2)}
    Path("ownn.yaml").write_text(yaml.safe_dump(d), encoding="utf-8")
    return Path("ownn.yaml")


def _shifted(d: dict[str, Any], by: int) -> dict[str, Any]:
    head = []
    for f, n, m, args in d["head"]:
        moved = [x + by if x > 2 else x for x in f] if isinstance(f, list) else f
        head.append([moved, n, m, args])
    return {"head": head}


def test_export_attention_none(own: Path) -> None:
    """Said of modules that `register:` names; inside blocks they count as well, blocks of the user's own do not."""
    lines: list[str] = []
    result = export(own, imgsz=64, log=lines.append)
    assert any("attention: Coord, 2 x Gate" in line for line in lines), lines
    assert result.report["attention"] == {"Coord": 1, "Gate": 2}
    plain: list[str] = []
    export("yolov5n.yaml", imgsz=64, output="plain.onnx", log=plain.append)
    assert any("attention: none" in line for line in plain)


def test_what_is_attention_is_one_answer(own: Path) -> None:
    model = DetectionModel(str(own), verbose=False)
    inside = {f"model.{i}" for i, row in enumerate(model.model) if type(row).__name__ in ("Gate", "Coord")}
    found = attention.attention_in(model)
    assert {p for p in found if p.count(".") == 1} == inside and len(found) == 3
    bare = yolo_attn.remove(model.yaml, all=True)
    assert [r[2] for r in bare["backbone"] if r[2] not in ("Conv", "C3", "SPPF")] == ["Stage"]
    pace = Pace(Schedule(lr_new=2.0), model)
    assert len(pace._new) == sum(len(list(model.get_submodule(p).parameters())) for p in found)


def test_show_without_attention(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said where attention stays: a stage of a residual network has no form without it."""
    d = yolo_attn.insert(small(), "SE", where="P5")
    d["backbone"][2] = [-1, 3, "SEResNetLayer", [128]]
    Path("mixedn.yaml").write_text(yaml.safe_dump(d), encoding="utf-8")
    assert main(["show", "mixedn.yaml", "--imgsz", "64"]) == 0
    told = capsys.readouterr().out
    assert "\nwithout its rows" in told and "\nwithout attention" not in told
    assert "in both: SEAttention" in told
    assert main(["show", str(own), "--imgsz", "64"]) == 0
    assert "without attention" in capsys.readouterr().out


def test_load_new_attention_changes_the_features(caplog: pytest.LogCaptureFixture) -> None:
    """Said of attention whose own start is the identity, and of a row that has the word in it for another reason."""
    plain = plant(build(small()))
    with caplog.at_level("INFO", logger="yolo_attn"):
        model = build(yolo_attn.insert(small(), "GCT", where="neck"))
        model.load(plain)
        assert "does not begin as the identity" not in caplog.text
        from yolo_attn.weights import host_loading

        host_loading.check_filled(model)  # and it may detect
        caplog.clear()
        build(yolo_attn.insert(small(), "SE", where="neck")).load(plain)
        assert "does not begin as the identity" in caplog.text


def test_train_attention_and_head(caplog: pytest.LogCaptureFixture) -> None:
    """Said of a model that has no attention."""
    model = build(small())
    with caplog.at_level("INFO", logger="yolo_attn"):
        Pace(Schedule(freeze_base=1), model).settle(0, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "train the head alone: the model has no attention" in caplog.text


@pytest.mark.parametrize(
    ("cfg", "coco"),
    [
        ("yolov5s_se.yaml", "yolov5su.pt"),
        ("yolov5l6_se.yaml", "yolov5l6u.pt"),
        ("yolov8n_se.yaml", "yolov8n.pt"),
        ("yolo11x.yaml", "yolo11x.pt"),
        ("yolov5_seresnet50.yaml", ""),
        ("dense.yaml", ""),
    ],
)
def test_train_weights_that_would_start_from_coco(
    cfg: str, coco: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of yolov5s were named for every model, which refuses them as another architecture."""
    assert published(*find.split_scale(Path(cfg).stem)) == coco
    monkeypatch.chdir(tmp_path)
    if not coco:
        Path("dense.yaml").write_text(yaml.safe_dump(small()), encoding="utf-8")  # a user's own, known to nobody
    told = next_steps(argparse.Namespace(cfg=cfg, weights="", data=""), Path("best.pt"))
    assert f"--weights {coco}" in told if coco else "--weights" not in told


@pytest.mark.parametrize("kind", ["block", "fusion", "channel"])
def test_list_row(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The row that is printed for a module is one that builds."""
    for name in [r["name"] for r in _tables.catalog() if r["kind"] == kind]:
        assert main(["list", name]) == 0
        row = yaml.safe_load(next(x for x in capsys.readouterr().out.splitlines() if x.startswith("row"))[10:])
        arrive = 256 if kind == "block" else 64  # C2PSA keeps its width, and a block's row says 256
        d = {"nc": 2, "backbone": [[-1, 1, "Conv", [64, 3, 2]]] * 7 + [[6, 1, "Conv", [arrive, 1, 1]]], "head": []}
        d["head"] = [row, [[8], 1, "Detect", ["nc"]]]
        DetectionModel(d, verbose=False)


def test_list_of_a_users_own(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`no attention module is called` was said of one that a plug-in had just registered."""
    code = GATE.replace("class Gate", "@yolo_attn.register('TruthGate')\nclass Gate").replace(
        "import torch\n", "import torch, yolo_attn\n", 1
    )
    Path("truth_listed.py").write_text(code, encoding="utf-8")
    assert main(["list", "TruthGate", "--plugin", "truth_listed.py"]) == 0
    told = capsys.readouterr().out
    assert "reduction=4" in told and "[-1, 1, TruthGate, []]" in told
    assert main(["list", "TruthGat", "--plugin", "truth_listed.py"]) == 1
    assert "Did you mean 'TruthGate'" in capsys.readouterr().err
    yolo_attn.unregister("TruthGate")


def test_insert_of_a_users_own_that_states_its_outputs(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`Coord(inp, oup)` in a row without a number keeps the width, and what is written builds."""
    assert main(f"insert {own} --module Coord --after SPPF --where backbone -o coordn.yaml".split()) == 0
    assert "1 rows more" in capsys.readouterr().out
    model = DetectionModel("coordn.yaml", verbose=False)
    assert attention.attention_used(model) == {"Coord": 2, "Gate": 2}
    assert main("insert coordn.yaml --remove -o again.yaml".split()) == 0
    assert Path("again.yaml").read_bytes() == own.read_bytes()


def test_insert_rows_more(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said where blocks change as well."""
    command = "insert yolov5n.yaml --module ECA --where P4 inside -o both.yaml".split()
    assert main(command) == 0
    assert "both.yaml: 1 rows more, 4 blocks changed, 26 rows" in capsys.readouterr().out
    assert main("insert both.yaml --remove -o back.yaml".split()) == 0
    assert "1 rows fewer, 4 blocks changed, 25 rows" in capsys.readouterr().out
    assert main("insert back.yaml --remove -o same.yaml".split()) == 0
    assert "nothing changed" in capsys.readouterr().out


@pytest.mark.parametrize(("cfg", "has"), [("yolov5n.yaml", False), ("yolov5n_se.yaml", True), ("yolov5n_c3se.yaml", True)])
def test_train_on_the_classic_host_how_attention_begins(cfg: str, has: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Said of a model that has attention with a choice, and of no other; the option goes to the host all the same."""
    from yolo_attn.training import classic, options

    asked = options.parse(["--host", "yolov5", "--cfg", cfg, "--weights", "yolov5n.pt"])
    with caplog.at_level("INFO", logger="yolo_attn"):
        words = classic._in_front(asked)
    assert words == ["--start", "identity"]
    assert ("begins as the identity" in caplog.text) == has
