"""What a training says when it is over."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from yolo_attn.model_yaml import find
from yolo_attn.training import closing, options


@pytest.mark.parametrize(
    ("argv", "own_data", "other"),
    [
        ("--cfg yolov5m_se_neck.yaml", "yolov5mu.pt", "--cfg yolov5m_eca_neck.yaml"),
        ("--cfg yolov5l_eca.yaml --data d.yaml --weights w.pt", "w.pt", "--cfg yolov5l_se.yaml --data d.yaml --weights w.pt"),
        ("--cfg yolov5s6_eca_neck.yaml", "yolov5s6u.pt", "--cfg yolov5s6_se_neck.yaml"),
        ("--cfg yolov5n_c3se.yaml", "yolov5nu.pt", "--cfg yolov5n_c3eca.yaml"),
        ("--cfg yolov5x_cbam_neck.yaml", "yolov5xu.pt", "--cfg yolov5x_se_neck.yaml"),
        ("--cfg yolov8s_c2fse.yaml", "yolov8s.pt", "--cfg yolov8s_se.yaml"),
        ("--cfg yolov5m_se_p5.yaml", "yolov5mu.pt", "--cfg yolov5m_eca.yaml"),
        ("--cfg folder/mine.yaml", "", "--cfg yolov5s_se.yaml"),
        ("", "yolov5su.pt", "--cfg yolov5s_eca.yaml"),
    ],
)
def test_next_steps_keep_size_and_placement(
    argv: str, own_data: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.yaml").write_text("nc: 1\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["train_detect.py"])
    lines = closing.next_steps(options.parse(shlex.split(argv)), Path("my best.pt")).splitlines()
    assert lines[0] == "next:" and len(lines) == 4
    assert lines[1].endswith(f" --data my.yaml --weights {own_data}" if own_data else " --data my.yaml")
    assert lines[2].split("python train_detect.py ")[1] == other
    assert "model='my best.pt'" in lines[3]
    assert find.locate(other.split()[1]) is not None


@pytest.mark.parametrize("cfg", ["yolov8n_eca_neck_se_backbone-last2.yaml", "elsewhere/mine.yaml"])
def test_a_model_that_is_in_its_checkpoint_alone(cfg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that `attach` made: the next training starts from the checkpoint, and names no YAML that is not there."""
    monkeypatch.setattr(sys, "argv", ["train_detect.py"])
    asked = options.parse(["--resume", "last.pt"])
    asked.cfg = cfg
    lines = closing.next_steps(asked, Path("best.pt")).splitlines()
    assert lines[1].endswith("python train_detect.py --data my.yaml --weights best.pt") and cfg not in "".join(lines)


ULTRALYTICS = "epoch,train/box_loss,metrics/precision(B),metrics/mAP50(B)\n1,1.5,{0},{1}\n2,1.2,{2},{3}\n"
CLASSIC = "               epoch,      train/box_loss,   metrics/precision,     metrics/mAP_0.5\n{0:>20},0.1,{1},0\n1,0.1,{2},{3}\n"


@pytest.mark.parametrize("text", [ULTRALYTICS, CLASSIC], ids=["ultralytics", "classic"])
def test_a_training_that_found_nothing_says_so(text: str, tmp_path: Path) -> None:
    log = tmp_path / "results.csv"
    assert closing.found_nothing(log) == ""
    log.write_text(text.format(0, 0, 0, 0), encoding="utf-8")
    line = closing.found_nothing(log)
    assert "0 after all 2 epochs" in line and str(tmp_path) in line and "\n" not in line
    log.write_text(text.format(0, 0, 0, 0.01), encoding="utf-8")
    assert closing.found_nothing(log) == ""
    log.write_text("epoch,train/box_loss\n1,2\n", encoding="utf-8")
    assert closing.found_nothing(log) == ""
