"""Freezing the base and the learning rate of attention, through real trainings of the host."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from classic_host import Classic, classic
from conftest import run_python
from torch import nn
from ultralytics import YOLO

import yolo_attn
from yolo_attn.commands.run import leading_options
from yolo_attn.errors import ConfigError, UsageError
from yolo_attn.model_yaml import check, find, load
from yolo_attn.training.schedule import VARIABLE, Pace, Schedule, lengthen, plan
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes

__all__ = ["classic"]

ROWS = (3, 6, 9, 12)  # SE rows of the model below; row 28 is its head


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes"), Recipe(train=8, val=2, size=64))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> YOLO:
    monkeypatch.chdir(tmp_path)
    d = yaml.safe_load((find.configs_folder() / "yolov5_se.yaml").read_text(encoding="utf-8"))
    d["nc"] = 3
    d["scales"] = {"n": [0.33, 0.125, 1024]}
    Path("yolov5n-small.yaml").write_text(yaml.safe_dump(d), encoding="utf-8")
    return YOLO("yolov5n-small.yaml")


def train(model: YOLO, shapes: Path, epochs: int, **more: Any) -> dict[int, dict[str, torch.Tensor]]:
    """Train and return the tensors before each epoch and after the last, by epoch."""
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def keep(trainer: Any, epoch: int | None = None) -> None:
        state = {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}
        seen[trainer.epoch if epoch is None else epoch] = state
        assert not any(p.requires_grad for n, p in trainer.model.named_parameters() if ".dfl" in n)

    model.add_callback("on_train_epoch_start", keep)
    model.add_callback("on_train_epoch_end", lambda t: keep(t, t.epoch + 1))
    settings = {
        "data": str(shapes), "epochs": epochs, "imgsz": 64, "batch": 4, "nbs": 4, "workers": 0, "device": "cpu",
        "plots": False, "val": False, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 0, "mosaic": 0.0, "amp": False,
        "project": str(Path.cwd()), "name": "run", "exist_ok": True, "verbose": False,
    }  # fmt: skip
    model.train(**({**settings, **more} if not more.get("resume") else more))
    return seen


def changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[int]:
    """The rows in which any tensor differs, counters of batches included."""
    return {int(k.split(".")[1]) for k in a if not torch.equal(a[k], b[k])}


def test_the_base_waits_then_trains_and_a_resumed_run_remembers(model: YOLO, shapes: Path) -> None:
    plan(model, freeze_base=2)
    with_weights = {*range(29)} - {15, 16, 19, 20, 23, 26}  # Upsample and Concat have none

    class Stop(Exception):
        pass

    def stop(trainer: Any) -> None:
        if trainer.epoch == 0:
            raise Stop

    model.add_callback("on_fit_epoch_end", stop)
    model.ckpt = {"model": model.model}  # as after .load(): the host trains this model, not the file anew
    with pytest.raises(Stop):
        train(model, shapes, 3, trainer=yolo_attn.Trainer)
    last = Path("run/weights/last.pt")
    assert last.is_file()
    again = YOLO(str(last))
    assert again.model.yaml["schedule"] == {"freeze_base": 2, "lr_new": 1.0, "begun": True}
    seen = train(again, shapes, 3, resume=True)  # with the host's own trainer
    assert sorted(seen) == [1, 2, 3]
    assert changed(seen[1], seen[2]) == {*ROWS, 28}
    assert changed(seen[2], seen[3]) == with_weights


def test_a_second_training_of_one_object_is_not_haunted(
    model: YOLO, shapes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "yolo_attn")
    model.ckpt = {"model": model.model}
    plan(model, freeze_base=1, lr_new=3.0)
    seen = train(model, shapes, 1)
    assert changed(seen[0], seen[1]) == {*ROWS, 28}
    assert model.model.yaml["schedule"]["begun"], "the model is that of best.pt now"
    seen = train(model, shapes, 1)
    assert changed(seen[0], seen[1]) > {0, *ROWS, 28}
    assert "ignoring the schedule" in caplog.text
    assert "schedule" not in model.model.yaml, "nor does a resumed run find the earlier training's"


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_longer_steps_are_a_higher_learning_rate(name: str) -> None:
    def run(rates: tuple[float, float], factor: float) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        groups = [{"params": net[0].parameters(), "lr": rates[0]}, {"params": net[2].parameters(), "lr": rates[1]}]
        optimizer = getattr(torch.optim, name)(groups, weight_decay=0.01)
        if factor != 1:
            lengthen(optimizer, list(net[2].parameters()), factor)
        x = torch.rand(8, 3)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        return list(net.parameters())

    for a, b in zip(run((0.01, 0.05), 1), run((0.01, 0.01), 5)):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_multiplier_reaches_attention_only(model: YOLO, shapes: Path) -> None:
    steps = {}
    start = {k: v.clone() for k, v in model.model.state_dict().items()}
    for factor in (1.0, 4.0):
        model = YOLO("yolov5n-small.yaml")
        model.model.load_state_dict(start)
        model.ckpt = {"model": model.model}
        plan(model, lr_new=factor)
        seen = train(model, shapes, 1, fraction=0.5)  # one step of four images
        steps[factor] = {k: (seen[1][k] - seen[0][k]).double() for k in seen[0] if k.endswith("weight")}
    for k, step in steps[1.0].items():
        times = 4.0 if int(k.split(".")[1]) in ROWS else 1.0
        assert torch.allclose(steps[4.0][k], times * step, rtol=1e-2, atol=2e-6), k


def test_words_and_numbers_are_checked() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'freeze_base'"):
        Schedule.of({"schedule": {"freeze_bas": 3}})
    with pytest.raises(ConfigError, match="Did you mean 'lr_new'"):  # when the file is read, not at the first batch
        check.validate({**load.read(find.require("yolov8.yaml")), "schedule": {"lr_neu": 3}}, "m.yaml")
    for bad in ({"freeze_base": -1}, {"freeze_base": 1.5}, {"lr_new": 0}, {"lr_new": "high"}):
        with pytest.raises(UsageError):
            Schedule(**bad)
    assert Schedule.of({"nc": 80}) is None
    assert pickle.loads(pickle.dumps(Schedule(2, 3.0))) == Schedule(2, 3.0)


def test_ddp_gets_the_gradients_that_it_waits_for(tmp_path: Path) -> None:
    """Both hosts wrap the model before the first epoch, YOLOv5 and older ultralytics without `find_unused_parameters`."""
    from torch import distributed as dist
    from ultralytics.nn.tasks import DetectionModel

    def total(y: Any) -> Any:  # of whatever the host's version returns
        if isinstance(y, torch.Tensor):
            return y.square().mean()
        return sum(total(part) for part in (y.values() if isinstance(y, dict) else y))

    d = yaml.safe_load((find.configs_folder() / "yolov5_se.yaml").read_text(encoding="utf-8"))
    detector = DetectionModel({**d, "scales": {"n": [0.33, 0.0625, 1024]}, "scale": "n"}, nc=1, verbose=False)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(detector)
        optimizer = torch.optim.SGD(detector.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
        pace = Pace(Schedule(freeze_base=1), model)
        states = [{k: v.clone() for k, v in detector.state_dict().items()}]
        for epoch in range(2):
            model.train()
            for _ in range(2):
                pace.settle(epoch, optimizer)
                total(model(torch.rand(2, 3, 64, 64))).backward()
                clipped = [p.grad for n, p in detector.named_parameters() if n.startswith("model.0.")]
                assert all(bool(g.any()) == (epoch > 0) for g in clipped), "nor do they count when clipped"
                optimizer.step()
                optimizer.zero_grad()
            states.append({k: v.clone() for k, v in detector.state_dict().items()})
    finally:
        dist.destroy_process_group()
    assert changed(states[0], states[1]) <= {*ROWS, 28}
    assert changed(states[1], states[2]) >= {0, *ROWS}


def test_words_in_front_of_a_hosts_own_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (VARIABLE, load.START):
        monkeypatch.setenv(variable, "")  # restored afterwards, whatever is set below
    words = ["--plugin", "a.py", "--start=identity", "--freeze", "base:2", "--lr-new", "5", "train.py", "--freeze", "3"]
    assert leading_options(words, "usage") == (["a.py"], ["train.py", "--freeze", "3"])
    assert json.loads(os.environ[VARIABLE]) == {"freeze_base": 2, "lr_new": 5.0, "begun": False}
    for given in (load.load_ultralytics, load.load_classic):
        rows = given("yolov5s_se.yaml", find.require("yolov5s_se.yaml"))["backbone"]
        assert [r[3] for r in rows if r[2] == "SEAttention"] == [[{"start": "identity"}]] * 4
    file = load.classic_file("yolov5s_se.yaml", find.require("yolov5s_se.yaml"))
    assert file.read_text(encoding="utf-8").count("start: identity") == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--freeze", "10", "train.py"], "takes base or base:K.*'10'"),
        (["--freeze", "base:", "train.py"], "got 'base:'"),
        (["--lr-new", "much", "train.py"], "--lr-new takes a number, got 'much'"),
        (["--lr-new", "nan", "train.py"], "lr_new is a positive factor"),
        (["--start", "identitty", "train.py"], "Did you mean 'identity'"),
        (["--start"], "--start needs a value"),
    ],
)
def test_words_in_front_that_make_no_sense(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        leading_options(words, "usage")


# The loops of forks that call things otherwise, hold them in an object, or keep no scheduler.
LOOPS = """
import importlib, os, sys
import torch, yolo_attn
{host}
from torch.optim import lr_scheduler as torch_schedulers
from yolo_attn.errors import YoloAttnError
from yolo_attn.training.schedule import VARIABLE
ComputeLoss = importlib.import_module(yolo.__name__.replace("models.yolo", "utils.loss")).ComputeLoss
HYP = {"cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "box": 0.05, "obj": 1.0, "cls": 0.5, "anchor_t": 4.0}

def detector(d):
    model = yolo.Model(d)
    model.hyp = HYP
    return model

def epochs(model, optim, sched, count):
    frozen = []
    for _ in range(count):
        model.train()
        optim.zero_grad()
        frozen.append(not next(model.parameters()).requires_grad)
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        optim.step()
        sched.step()
    return frozen

def renamed(model, first=0):
    optim = torch.optim.SGD(model.parameters(), lr=0.01)
    lr_scheduler = torch_schedulers.LambdaLR(optim, lr_lambda=lambda x: 1.0)
    if first is not None:
        lr_scheduler.last_epoch = first - 1
    criterion = ComputeLoss(model)
    return epochs(model, optim, lr_scheduler, 4)

class Trainer:
    def __init__(self, model):
        self.optim = torch.optim.SGD(model.parameters(), lr=0.01)
        self.lr_sched = torch_schedulers.LambdaLR(self.optim, lr_lambda=lambda x: 1.0)

    def run(self, model):
        ComputeLoss(model)
        return epochs(model, self.optim, self.lr_sched, 4)

def without(model):
    optim = torch.optim.SGD(model.parameters(), lr=0.01)
    ComputeLoss(model)

d = {**yolo_attn.model_yaml.load.read(yolo_attn.model_yaml.find.require("yolov5_se.yaml")), "scale": "n", "nc": 2}
d["scales"] = {"n": [0.33, 0.125, 1024]}
asked = {**d, "schedule": {"freeze_base": 2}}
assert renamed(detector(d)) == [False] * 4, "none was asked for"
assert renamed(detector(asked)) == [True, True, False, False]
assert renamed(detector(asked), first=None) == [True, True, False, False], "a scheduler that was just made"
model = detector(asked)
assert Trainer(model).run(model) == [True, True, False, False]
begun = detector({**d, "schedule": {"freeze_base": 2, "begun": True}})
assert renamed(begun, first=1) == [True, False, False, False], "resumed after the first epoch"
without(detector(d))
for model, variable in ((asked, ""), (d, '{"lr_new": 3.0}')):
    os.environ[VARIABLE] = variable
    try:
        without(detector(model))
    except YoloAttnError as exc:
        assert "optimizer" in str(exc) and "ComputeLoss" in str(exc) and "--freeze" in str(exc)
    else:
        raise AssertionError("nothing was frozen and nothing said")
print("LOOPS")
"""


def test_loops_that_call_their_scheduler_otherwise(classic: Classic, tmp_path: Path) -> None:
    code = LOOPS.replace("import torch, yolo_attn\n", "import torch, yolo_attn, yolo_attn.model_yaml.find, yolo_attn.model_yaml.load\n")
    assert "LOOPS" in classic.python(code, cwd=tmp_path).ok()


def test_a_script_that_trains_with_another_loss_is_told(classic: Classic, tmp_path: Path) -> None:
    script = tmp_path / "train_otherwise.py"
    script.write_text(f"{classic.imports}print('TRAINED')\n", encoding="utf-8")
    words = ["-m", "yolo_attn", "run", "--freeze", "base:2", str(script)]
    run = run_python(*words, cwd=tmp_path, env=classic.env)
    assert "TRAINED" in run.out and "--freeze and --lr-new had no effect" in run.mistake()


def test_a_plan_for_what_is_no_model() -> None:
    with pytest.raises(UsageError, match="int"):
        plan(3)
