"""What is said of a detector before it is trained: on models for which it holds, and on models for which it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_weights import build, plant, small
from torch import nn
from ultralytics.nn.tasks import DetectionModel

import yolo_attn
from yolo_attn.cli import main
from yolo_attn.weights import checkpoint, start_from
from yolo_attn.weights.untrained import sentence

HOLDS = "attention begins as the identity: the detector is the source's until it is trained"
NOT = "the detector is not the source's until it is trained: "


def told(source: Any, target: DetectionModel) -> str:
    before = torch.get_rng_state()
    said = sentence(source, target, yolo_attn.transfer(source, target, force=True))
    assert torch.equal(torch.get_rng_state(), before)  # of what a training draws, nothing is used up
    return said


def attended(module: str, start: str | None = "identity", where: Any = "backbone", **options: Any) -> DetectionModel:
    return build(yolo_attn.insert(small(), module, where=where, start=start), **options)


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return plant(build(small()))


@pytest.fixture(scope="module")
def file(plain: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.pt"
    torch.save({"model": plain}, path)
    return path


@pytest.mark.parametrize(("module", "where"), [("CBAM", "backbone"), ("SimAM", "neck"), ("ECA", ["inside", "P5"])])
def test_it_holds_and_is_said(plain: Any, file: Path, module: str, where: Any) -> None:
    for source in (plain, checkpoint.read(file)):  # a live model, and a file that no line of is run
        assert told(source, attended(module, where=where)) == HOLDS


def test_the_papers_start(plain: Any) -> None:
    assert told(plain, attended("GAM", None)) == f"{NOT}GAM in rows 3, 6, 9, 12 begins as its paper says"
    assert told(plain, attended("SimAM", "paper")) == f"{NOT}SimAM in rows 3, 6, 9, 12 begins as its paper says"
    assert told(plain, attended("GCT", "paper")) == HOLDS  # the identity is what that paper says


class Halving(nn.Module):
    """Attention that knows no start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def test_a_module_without_start(plain: Any) -> None:
    yolo_attn.register("Halving", Halving)
    try:
        said = told(plain, attended("Halving", None, where="neck"))
        assert said == f"{NOT}Halving in rows 18, 22, 26 has no identity start"
    finally:
        yolo_attn.unregister("Halving")


def test_rows_that_read_other_rows(plain: Any) -> None:
    d = yolo_attn.insert(small(), "SE", where="P5", start="identity")
    d["head"][2][0] = [-1, 5]  # the join of P4 reads the convolution in front of the stage
    assert told(plain, build(d)).startswith(f"{NOT}row 13 reads other inputs")


def test_tensors_that_did_not_come(plain: Any) -> None:
    wide = build(yolo_attn.insert(small(), "SE", where="P5", start="identity"), nc=7)
    assert f"{NOT}6 of its tensors have another shape there (row 25)" in told(plain, wide)
    state = {k: v for k, v in plain.state_dict().items() if not k.startswith("model.4.cv1.")}
    assert "of its tensors have no weights (row 4)" in told(state, attended("SE", where="P5"))
    assert "another shape" in told(
        plain, build(yolo_attn.insert(small(width=0.25), "SE", where="P5", start="identity"))
    )


def test_a_difference_that_only_the_outputs_show(plain: Any, file: Path) -> None:
    """The same tensors in rows that compute something else."""
    d = yolo_attn.insert(small(), "SE", where="P5", start="identity")
    d["backbone"][2][3] = [128, False]  # no shortcut
    assert told(plain, build(d)).startswith(f"{NOT}its output differs from the source's by ")
    assert "not known: the source was built from other rows" in told(checkpoint.read(file), build(d))


def test_a_source_of_tensors_alone(plain: Any) -> None:
    said = told(plain.state_dict(), attended("SE"))
    assert (
        said == f"{HOLDS.partition(':')[0]}: until it is trained the detector is the source's, if that was built as "
        "this YAML without attention: the file holds tensors alone"
    )


def test_a_model_without_attention_is_not_spoken_of(plain: Any) -> None:
    assert told(plain, build(small())) == ""


def test_no_code_of_the_file_is_run(plain: Any, tmp_path: Path) -> None:
    """The YAML in a checkpoint may be anybody's, and a host evaluates its `activation`."""
    bad = build(small())
    bad.yaml["activation"] = "__import__('os').mkdir('ran')"
    torch.save({"model": bad}, tmp_path / "bad.pt")
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert told(checkpoint.read(tmp_path / "bad.pt"), attended("SE")) == HOLDS
    finally:
        os.chdir(before)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "start", "says"),
    [
        ("yolov5n_cbam.yaml", "identity", HOLDS),
        ("yolov5n_cbam.yaml", "paper", f"{NOT}CBAM in rows 3, 6, 9, 12 begins as its paper says"),
        ("yolov5n_cbam.yaml", "yaml", f"{NOT}CBAM in rows 3, 6, 9, 12 begins as its paper says"),
        ("yolov5n_bifpn.yaml", "identity", NOT),
    ],
)
def test_transfer_prints_it(name: str, start: str, says: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": DetectionModel("yolov5n.yaml", verbose=False)}, "n.pt")
    assert main(["transfer", "n.pt", name, "--start", start, "--json", "r.json"]) == 0
    assert says in capsys.readouterr().out
    assert "until_trained" in Path("r.json").read_text(encoding="utf-8")


def test_a_build_keeps_what_it_found(file: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "small.yaml"
    cfg.write_text(yaml.safe_dump(yolo_attn.insert(small(), "ECA", where="neck")), encoding="utf-8")
    _, report = start_from.build(file, cfg)
    assert report.until_trained == HOLDS == report.to_dict()["until_trained"]
