"""Other families and tasks of the ultralytics host, its versions, and the start of a multi-GPU worker."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import sys
from pathlib import Path

import prepare_hosts
import pytest
import torch
from classic_host import installed
from conftest import ROOT, run_python
from test_configs import tensors
from ultralytics.nn import tasks

import yolo_attn
from yolo_attn.hook.flops import at_full_size, count
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes

MODELS = {
    "yolov8n.yaml": "DetectionModel",
    "yolov8n-seg.yaml": "SegmentationModel",
    "yolov8n-pose.yaml": "PoseModel",
    "yolov8n-obb.yaml": "OBBModel",
    "yolo11n.yaml": "DetectionModel",
    "yolo11n-seg.yaml": "SegmentationModel",
    "yolo26n.yaml": "DetectionModel",
}


@pytest.mark.parametrize("name", MODELS)
def test_attention_in_other_families(name: str) -> None:
    """Inserted behind the backbone's blocks: builds, runs forward and backward, with a gradient in every gate."""
    try:
        d = tasks.yaml_model_load(name)
    except FileNotFoundError:
        pytest.skip(f"this ultralytics has no {name}")
    new = yolo_attn.insert(d, "SEAttention", where="backbone")
    torch.manual_seed(0)
    model = getattr(tasks, MODELS[name])(copy.deepcopy(new), verbose=False).train()
    gates = [m for m in model.model if type(m).__name__ == "SEAttention"]
    assert len(gates) == len(new["backbone"]) - len(d["backbone"]) > 0
    sum(t.float().square().mean() for t in tensors(model(torch.rand(2, 3, 64, 64))) if t.is_floating_point()).backward()
    grads = [p.grad for m in gates for p in m.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    assert any(g.abs().sum() > 0 for g in grads if g is not None)


@pytest.mark.parametrize("name", ["yolov5n_se.yaml", "yolov5n_cbam.yaml", "yolov5n_c3se.yaml", "yolo11n_se.yaml"])
def test_gflops_of_the_summary(name: str) -> None:
    """As the host's own counter has them at the real size; the model is left as it was."""
    import thop

    d = tasks.yaml_model_load(name)
    model = tasks.DetectionModel(copy.deepcopy(d), verbose=False)
    before = copy.deepcopy(model.state_dict())
    want = thop.profile(copy.deepcopy(model), inputs=[torch.zeros(1, 3, 256, 256)], verbose=False)[0] / 1e9 * 2
    assert model.info(imgsz=256)[3] == pytest.approx(want, rel=1e-9)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.stride.tolist() == [8, 16, 32]
    plain = tasks.DetectionModel(f"{name.partition('_')[0]}.yaml", verbose=False)
    assert at_full_size(plain, 256) is None
    uncopied = tasks.DetectionModel(copy.deepcopy(d), verbose=False)
    uncopied.criterion = next(uncopied.parameters()) * 2  # a tensor with a history refuses to be copied
    assert at_full_size(uncopied, 256) is None
    assert uncopied.info(imgsz=256)[3] >= want  # the host's way


class _Operations(torch.nn.Module):
    """Each operator that is counted, and some that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(4, 6, 3, stride=2, groups=2), torch.nn.BatchNorm2d(6), torch.nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2),
            yolo_attn.get_module("SEAttention")(8), torch.nn.Conv2d(8, 8, (1, 5), dilation=2), torch.nn.Flatten(2), torch.nn.Linear(165, 7),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)  # (2, 8, 7)
        square = torch.baddbmm(torch.zeros(2, 8, 8), y, y.transpose(1, 2)) @ y
        return square[0] @ torch.ones(7, 3) + torch.nn.functional.conv1d(y, torch.ones(3, 8, 2))[1, :, :1].sum()


def test_operations_are_counted_alike_before_torch_2_1(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = _Operations().eval(), torch.randn(2, 4, 11, 23)
    want = count(module, x)
    monkeypatch.setitem(sys.modules, "torch.utils.flop_counter", None)
    assert count(module, x) == want > 10_000


GATE = """
from torch import nn
import torch
class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, 1, 1))
    def forward(self, x):
        return x * (1 + self.weight)
"""

# What the parent of a run on several GPUs does before it launches the workers, for each of the two ways to start.
PARENT = """
import sys
import yolo_attn
from pathlib import Path
from ultralytics import YOLO
from ultralytics.utils.dist import generate_ddp_file
from ultralytics.models.yolo.detect import DetectionTrainer
trainer_class = {"kit": lambda: yolo_attn.Trainer, "host": lambda: DetectionTrainer}[sys.argv[1]]()
model = YOLO("yolov5n_mine.yaml")
overrides = {"model": "yolov5n_mine.yaml", "data": sys.argv[2], "epochs": 1, "imgsz": 64, "batch": 4, "plots": False,
             "device": "cpu", "project": sys.argv[3], "name": sys.argv[1], "exist_ok": True, "task": "detect"}
trainer = trainer_class(overrides=overrides)
print("SCRIPT" + generate_ddp_file(trainer))
"""


@pytest.mark.slow
@pytest.mark.parametrize("who", ["kit", "host"])
def test_a_worker_of_several_gpus(tmp_path: Path, who: str) -> None:
    """The script that each worker starts with, run for real: a module from `register:` is there, and it trains."""
    (tmp_path / "gate.py").write_text(GATE, encoding="utf-8")
    text = (ROOT / "model_cfgs" / "yolov5_se.yaml").read_text(encoding="utf-8")
    text = "register:\n  Gate: gate.py:Gate\n" + text.replace("SEAttention, []", "Gate, []")
    (tmp_path / "yolov5n_mine.yaml").write_text(text, encoding="utf-8")
    shapes = make_shapes(tmp_path / "shapes", Recipe(train=8, val=4, size=64))
    env = {"YOLO_ATTN_CONFIG_DIR": str(tmp_path / "config")}
    parent = run_python("-c", PARENT, who, str(shapes), str(tmp_path / "runs"), cwd=tmp_path, env=env)
    script = parent.ok().rpartition("SCRIPT")[2].strip()
    worker = run_python(script, cwd=tmp_path, env=env)
    worker.ok()
    assert (tmp_path / "runs" / who / "weights" / "last.pt").is_file()


OLD = """
import json, logging, sys, hashlib
import torch
{first}
import ultralytics
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage().strip())
LOGGER.addHandler(handler)
torch.manual_seed(0)
model = tasks.DetectionModel(sys.argv[1])
digest = hashlib.sha256()
for key, value in model.state_dict().items():
    digest.update(key.encode() + value.numpy().tobytes())
rows = [[m.i, m.f, m.type] for m in model.model]
table = [line for line in lines if line[:1].isdigit()]
print("TOLD" + json.dumps([ultralytics.__version__, digest.hexdigest(), rows, model.save, table]))
"""


@pytest.fixture(scope="module")
def lowest_host() -> tuple[Path, tuple[str, ...]]:
    """A folder with the lowest version, and those with what it imports; the newest is what other tests run on."""
    host, *needs = installed(prepare_hosts.lowest())
    return Path(host), tuple(needs)


def lowest() -> str:
    return prepare_hosts.lowest().partition("==")[2]


def paths(folder: Path, needs: tuple[str, ...]) -> dict[str, str]:
    """The environment in which the host of a folder is found first."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), *needs])}


@pytest.mark.slow
def test_the_lowest_version_trains_and_exports(lowest_host: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    """With the torch of today, whose defaults that version does not know."""
    shapes = make_shapes(tmp_path / "shapes", Recipe(train=8, val=4, size=64))
    argv = ["--cfg", "yolov5n_se.yaml", "--data", str(shapes), "--epochs", "1", "--img", "64", "--batch", "4"]
    run = ["--device", "cpu", "--project", str(tmp_path), "--name", "a"]
    trained = run_python(str(ROOT / "train_detect.py"), *argv, *run, cwd=tmp_path, env=paths(*lowest_host))
    assert "next:" in trained.ok()
    best = str(tmp_path / "a" / "weights" / "best.pt")
    told = run_python("-m", "yolo_attn", "env", cwd=tmp_path, env=paths(*lowest_host)).ok()
    assert re.search(rf"ultralytics\s+{re.escape(lowest())}", told), told
    exported = run_python("-m", "yolo_attn", "export", best, "--imgsz", "64", cwd=tmp_path, env=paths(*lowest_host))
    assert "equal to PyTorch" in exported.ok()


@pytest.mark.slow
def test_the_lowest_version_builds_as_a_hand_edited_one(
    lowest_host: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    """Weights, rows and the printed table."""
    cfg = tmp_path / "yolov5n_gate.yaml"
    cfg.write_text((ROOT / "model_cfgs" / "yolov5_se.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    by_hook = run_python("-c", OLD.format(first="import yolo_attn"), str(cfg), env=paths(*lowest_host))
    edited = tmp_path / "edited"
    shutil.copytree(lowest_host[0], edited)
    file = edited / "ultralytics" / "nn" / "tasks.py"
    text = file.read_text(encoding="utf-8")
    default = "        else:\n            c2 = ch[f]\n"
    assert text.count(default) == 1
    branch = "        elif m is SEAttention:\n            c2 = ch[f]\n            args = [c2, *args[1:]]\n"
    text = text.replace(default, branch + default)
    text = text.replace("\nimport torch\n", "\nimport torch\nfrom yolo_attn.modules.se import SEAttention\n", 1)
    file.write_text(text, encoding="utf-8")
    first = "import yolo_attn; yolo_attn.uninstall()"
    by_hand = run_python("-c", OLD.format(first=first), str(cfg), env=paths(edited, lowest_host[1]))
    hook, hand = (json.loads(run.ok().rpartition("TOLD")[2]) for run in (by_hook, by_hand))
    assert hook[0] == lowest()
    assert len(hook[-1]) == len(hook[2]) > 20
    assert hook == hand
