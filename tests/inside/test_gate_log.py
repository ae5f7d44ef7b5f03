"""`--log-gates`: gates into TensorBoard during training, on both hosts, without a trace in the training."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from classic_host import Classic, classic
from conftest import ROOT, run_python

from yolo_attn.errors import CheckpointError, UsageError, YoloAttnError
from yolo_attn.training import gate_log, options
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes

__all__ = ["classic"]  # a fixture

pytest.importorskip("tensorboard")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    return str(make_shapes(tmp_path_factory.mktemp("shapes") / "data", Recipe(train=4, val=6, size=64)))


@pytest.fixture(scope="module")
def network() -> Any:
    from ultralytics import YOLO

    torch.manual_seed(0)
    return YOLO("yolov5n_cbam.yaml").model


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out: dict[str, list[tuple[int, float]]] = {}
    for file in folder.rglob("events.out.tfevents*"):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            if tag.startswith("gates_"):
                out.setdefault(tag, []).extend((s.step, s.value) for s in events.Scalars(tag))
    return out


def test_each_epoch_is_written_once_and_leaves_no_trace(network, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv(gate_log.VARIABLE, "{}")
    monkeypatch.delenv("RANK", raising=False)
    called: dict[str, Any] = {}
    trainer = SimpleNamespace(
        args=SimpleNamespace(imgsz=64, data=shapes), save_dir=tmp_path, ema=SimpleNamespace(ema=network), start_epoch=0,
        epoch=0, add_callback=called.__setitem__,
    )  # fmt: skip
    network.train()
    state, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    for epoch in range(2):
        trainer.epoch = epoch
        for _ in range(3):
            gate_log.before_batch(trainer)
        called["on_fit_epoch_end"](trainer)
    trainer.epoch = 2  # ultralytics calls once more, for the best detector
    called["on_fit_epoch_end"](trainer)
    assert network.training and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    found = logged(tmp_path)
    assert len(found) == 5 * 8  # numbers, gates
    assert [step for step, _ in found["gates_mean/model.3/channel"]] == [0, 1]
    assert all(0 < v < 1 for _, v in found["gates_mean/model.3/spatial"])


def test_only_the_process_that_writes_checkpoints_logs(network, shapes, tmp_path, monkeypatch):
    trainer = SimpleNamespace(ema=SimpleNamespace(ema=network))
    gate_log.before_batch(trainer)  # not asked for
    assert trainer._yolo_attn_gates is None
    monkeypatch.setenv(gate_log.VARIABLE, "{}")
    monkeypatch.setenv("RANK", "1")
    other = SimpleNamespace(ema=SimpleNamespace(ema=network))
    gate_log.before_batch(other)
    gate_log.before_loop(network)
    assert other._yolo_attn_gates is None


def test_classic_callbacks_are_found_by_what_they_can_do(network, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv(gate_log.VARIABLE, gate_log.watched(shapes, 64, tmp_path)[gate_log.VARIABLE])
    monkeypatch.delenv("RANK", raising=False)

    class Callbacks:
        def __init__(self) -> None:
            self.held: dict[str, Any] = {}

        def register_action(self, hook: str, name: str = "", callback: Any = None) -> None:
            self.held[hook] = callback

        def run(self, hook: str, *args: Any) -> None:
            self.held[hook](*args)

    def train(actions: Any, averaged: Any, start_epoch: int = 3) -> None:
        def loss() -> None:
            gate_log.before_loop(network)

        loss()
        for epoch in (3, 4, 4):
            actions.run("on_fit_epoch_end", [0.0], epoch, 0.0, 0.0)

    train(Callbacks(), SimpleNamespace(ema=network, updates=1))
    assert [step for step, _ in logged(tmp_path)["gates_mean/model.6/channel"]] == [3, 4]
    with pytest.raises(UsageError, match="no callbacks"):
        gate_log.before_loop(network)


def test_what_cannot_be_logged_is_said_before_the_first_epoch(shapes, tmp_path, monkeypatch):
    from ultralytics import YOLO

    with pytest.raises(CheckpointError, match="no layer of the model has a gate: it has no attention"):
        gate_log.GateLog(YOLO("yolov5n.yaml").model, shapes, 64, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(YoloAttnError, match="--log-gates writes for TensorBoard, which is not installed: 'pip install tensorboard'"):
        gate_log.require()
    assert options.parse(["--log-gates"]).log_gates


def test_a_resumed_classic_run_says_what_it_was_trained_on(tmp_path):
    (tmp_path / "opt.yaml").write_text("data: my.yaml\nimgsz: 320\n", encoding="utf-8")
    told = gate_log.of_classic(["--resume", "last.pt"], tmp_path)[gate_log.VARIABLE]
    assert '"data": "my.yaml", "imgsz": 320' in told
    assert '"imgsz": 128' in gate_log.of_classic(["--data", "d.yaml", "--imgsz", "128"], tmp_path)[gate_log.VARIABLE]


ARGV = ("--cfg", "yolov5n_se.yaml", "--epochs", "1", "--batch", "4", "--no-export", "--workers", "0", "--log-gates")


@pytest.mark.slow
def test_training_on_ultralytics_logs(shapes, tmp_path):
    argv = [str(ROOT / "train_detect.py"), *ARGV, "--data", shapes, "--img", "64", "--noplots"]
    run_python(*argv, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}).ok()
    assert [step for step, _ in logged(tmp_path)["gates_spread/model.3"]] == [0]


@pytest.mark.slow
def test_training_on_classic_yolov5_logs(classic: Classic, shapes, tmp_path):
    host = "yolov5" if classic.prefix else str(classic.root)
    argv = [str(ROOT / "train_detect.py"), "--host", host, *ARGV, "--data", shapes, "--img", "64"]
    run_python(*argv, cwd=tmp_path, env={**classic.env, "MPLBACKEND": "agg"}).ok()
    assert [step for step, _ in logged(tmp_path)["gates_spread/model.3"]] == [0]
    assert os.environ.get(gate_log.VARIABLE) is None
    best = tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt"
    more = [] if classic.prefix else ["--host", host]
    argv = ["-m", "yolo_attn", "gates", str(best), "--data", shapes, "--imgsz", "64", "--json", *more]
    numbers = json.loads(run_python(*argv, cwd=tmp_path, env=classic.env).ok())
    assert [r["location"] for r in numbers["rows"]] == [f"row {k} (SEAttention)" for k in (3, 6, 9, 12)]
    assert numbers["images"] == 6 and numbers["mAP50-95"]["value"] >= 0
