"""What earlier releases wrote: it was written before the files of the package moved into folders, and works as it did."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from conftest import Run

# A parser as `yolo-attn patch --diff` extended it, shortened to what it has of YOLO's shape.
PATCHED = """
from torch import nn
from yolo_attn import rows as _yolo_attn_rows

class Conv(nn.Conv2d):
    def __init__(self, c1, c2, k=1, s=1):
        super().__init__(c1, c2, k, s, k // 2)

def parse_model(d, ch):
    ch, layers, c2 = [ch], [], 0
    for i, (f, n, m, args) in enumerate(d["backbone"] + d["head"]):
        m = (_yolo_attn_rows.find(m, args, i, d, lambda: (eval(m) if isinstance(m, str) else m)))
        if m is Conv:
            c1, c2 = ch[f], args[0]
            args = [c1, c2, *args[1:]]
        else:
            m, c2, n, args = _yolo_attn_rows.place(m, ch, f, n, args, i, d, lambda c2: c2)
        layers.append(m(*args))
        ch = [*([] if i == 0 else ch), c2]
    return nn.Sequential(*layers)
"""

USES = """
import torch, yolo_attn
assert yolo_attn.installed() == []
import parser_on_disk
from yolo_attn.rows import find, place
from yolo_attn.trainer import Trainer
assert Trainer is yolo_attn.Trainer
d = {"nc": 1, "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "SE", [{"reduction": 4}]], [-1, 1, "yolo_attn.CBAM", []]],
     "head": [[-1, 1, "Conv", [8]], [-1, 1, "CoordAtt", [8]]]}
model = parser_on_disk.parse_model(d, 3)
assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 8, 16, 16)
print("BUILT", [type(m).__name__ for m in model])
try:
    parser_on_disk.parse_model({**d, "head": [[-1, 1, "SEAttenton", []]]}, 3)
except yolo_attn.YoloAttnError as exc:
    print("SAID", exc)
"""


def test_a_parser_that_was_patched_on_disk(python: Callable[..., Run], tmp_path: Path) -> None:
    """It calls `yolo_attn.rows.find` and `.place`, positionally; and the trainer's old path is the trainer."""
    (tmp_path / "parser_on_disk.py").write_text(PATCHED, encoding="utf-8")
    run = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USES}", env={"YOLO_ATTN_HOOK": "0"})
    assert "BUILT ['Conv', 'SEAttention', 'CBAM', 'Conv', 'CoordAtt']" in run.ok()
    assert "SEAttention" in run.out.partition("SAID")[2] and "row 3" in run.out.partition("SAID")[2]


# The module paths and names under which checkpoints of the first release hold the kit's classes, by row name.
PICKLED = {
    "SE": "yolo_attn.modules.se.SEAttention",
    "ECA": "yolo_attn.modules.eca.ECA",
    "CBAM": "yolo_attn.modules.cbam.CBAM",
    "CoordAtt": "yolo_attn.modules.coord.CoordAtt",
    "SimAM": "yolo_attn.modules.simam.SimAM",
    "BAM": "yolo_attn.modules.bam.BAM",
    "C3SE": "yolo_attn.modules.blocks.C3SE",
    "C3Attention": "yolo_attn.modules.blocks.C3Attention",
    "C2fAttention": "yolo_attn.modules.blocks.C2fAttention",
    "WeightedConcat": "yolo_attn.modules.fusion.WeightedConcat",
    "SEConv": "yolo_attn.modules.blocks.SEConv",
    "SEBottleneck": "yolo_attn.modules.resnet.SEBottleneck",
    "SequentialPolarizedSelfAttention": "yolo_attn.modules.polarized.SequentialPolarizedSelfAttention",
}


def test_classes_are_where_pickles_look_for_them() -> None:
    import yolo_attn

    for name, path in PICKLED.items():
        module, _, cls = path.rpartition(".")
        assert pickle.loads(f"c{module}\n{cls}\n.".encode()) is yolo_attn.get_module(name)


PLUGIN = """
import torch
from torch import nn
import yolo_attn

@yolo_attn.register("OlderGate")
class OlderGate(nn.Module):
    def __init__(self, channels, reduction=4):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))
"""

ROWS: dict[str, Any] = {
    "nc": 3,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "scale": "",
    "backbone": [
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "OlderGate", []],
        [-1, 1, "CBAM", []],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "SE", []],
    ],
    "head": [[-1, 1, "Conv", [64, 3, 2]], [[5, 6], 1, "Detect", ["nc"]]],
}


@pytest.fixture
def older(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plug-in, which this user named in an earlier release, and what that release made with it."""
    folder = tmp_path / "older"
    folder.mkdir()
    file = folder / "older_gate.py"
    file.write_text(PLUGIN, encoding="utf-8")
    kept = tmp_path / "config" / "plugins"
    kept.mkdir(parents=True, mode=0o700)
    stem = f"older_gate.{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    record = {"path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (kept / f"{stem}.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


MADE = """
import copy, sys, torch, yolo_attn
from ultralytics.nn.tasks import DetectionModel
yolo_attn.load_plugin(sys.argv[1])
torch.manual_seed(0)
model = DetectionModel({rows}, verbose=False)
for p in model.parameters():
    p.data.copy_(p.data.half().float())
model.args = {{"imgsz": 64, "task": "detect", "data": "shapes.yaml", "model": "mine.yaml"}}
model.names = {{0: "circle", 1: "square", 2: "triangle"}}
torch.save({{"epoch": -1, "best_fitness": None, "model": copy.deepcopy(model).half(), "ema": None, "updates": None,
            "optimizer": None, "train_args": dict(model.args), "date": "2026-01-01", "version": "8.4.0"}}, "best.pt")
torch.save(model.state_dict(), "state.pt")
"""


def test_a_checkpoint_finds_its_classes_and_a_remembered_plug_in(
    older: Path, python: Callable[..., Run], tmp_path: Path
) -> None:
    """Pickled as `yolo_attn.modules.cbam.CBAM` and `yolo_attn.plugins.older_gate.OlderGate`, loaded by the host alone."""
    env = {"YOLO_ATTN_CONFIG_DIR": str(tmp_path / "config")}
    made = f"import sys; sys.argv[1:] = [{str(older / 'older_gate.py')!r}]\n" + MADE.format(rows=repr(ROWS))
    apart = {"YOLO_ATTN_CONFIG_DIR": str(tmp_path / "elsewhere")}
    where = Path(python(made + "import os; print('IN', os.getcwd())", env=apart).ok().rpartition("IN ")[2].strip())
    with zipfile.ZipFile(where / "best.pt") as file:
        content = file.read(next(n for n in file.namelist() if n.endswith("data.pkl")))
    for name in (b"yolo_attn.modules.cbam", b"yolo_attn.modules.se", b"yolo_attn.plugins.older_gate"):
        assert name in content
    loads = f"""
import torch
from ultralytics import YOLO
model = YOLO({str(where / "best.pt")!r})
state = torch.load({str(where / "state.pt")!r})
assert all(torch.equal(v.float(), state[k].float()) for k, v in model.model.state_dict().items())
import yolo_attn
assert {{type(m).__name__ for m in model.model.modules()}} >= {{"OlderGate", "CBAM", "SEAttention"}}
assert type(yolo_attn.load({str(where / "best.pt")!r}).model.model[3]).__module__ == "yolo_attn.modules.cbam"
print("LOADED")
"""
    assert "LOADED" in python(loads, env=env).ok()


def test_a_remembered_package(tmp_path: Path) -> None:
    """One whose Python files are all that it has is known by the hash that earlier releases took of it."""
    from yolo_attn.registry import memory

    folder = tmp_path / "pack"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__.py", "b.py", "a.py", "inner/__init__.py", "inner/c.py"):
        (folder / name).write_text(f"# {name}\n", encoding="utf-8")
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        told = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\n{told}\n".encode())
    assert memory.digest(folder / "__init__.py") == total.hexdigest()


def test_a_bundle(tmp_path: Path) -> None:
    """Format 1, written out here byte by byte as the first release did."""
    import ultralytics.nn.tasks as tasks
    from safetensors.torch import save

    import yolo_attn

    rows = {**ROWS, "backbone": [r if r[2] != "OlderGate" else [-1, 1, "ECA", []] for r in ROWS["backbone"]]}
    torch.manual_seed(0)
    network = tasks.DetectionModel(json.loads(json.dumps(rows)), verbose=False)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    weights = save({k: v.half() if v.dtype == torch.float32 else v for k, v in state.items()})
    lines = [f"- {json.dumps(row)}" for row in rows["backbone"]], [f"- {json.dumps(row)}" for row in rows["head"]]
    model = "\n".join(
        ["nc: 3", "depth_multiple: 0.33", "width_multiple: 0.25", "backbone:", *lines[0], "head:", *lines[1], ""]
    ).encode()
    manifest: dict[str, Any] = {
        "format": 1,
        "task": "detect",
        "names": {"0": "circle", "1": "square", "2": "triangle"},
        "stride": 16,
        "imgsz": [64, 64],
        "weights": "fp16, exact",
        "attention": {"CBAM": 1, "ECA": 1, "SEAttention": 1},
        "register": {"ECA": "yolo_attn.modules.eca:ECA", "CBAM": "yolo_attn.modules.cbam:CBAM"},
        "versions": {"yolo_attn": "0.1.0", "torch": "2.14.1", "ultralytics": "8.4.190", "python": "3.11.7"},
        "sha256": {"weights.safetensors": hashlib.sha256(weights).hexdigest(), "model.yaml": hashlib.sha256(model).hexdigest()},
    }
    seal = hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    manifest["sha256"]["manifest.json"] = seal
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        file.writestr("manifest.json", json.dumps(manifest, indent=1))
        file.writestr("model.yaml", model)
        file.writestr("weights.safetensors", weights)
    (tmp_path / "best.bundle").write_bytes(content.getvalue())
    found = yolo_attn.load(tmp_path / "best.bundle")
    assert found.names == {0: "circle", 1: "square", 2: "triangle"}
    assert all(torch.equal(v, state[k].half().to(v.dtype)) for k, v in found.model.state_dict().items())


def test_public_names_of_the_first_release() -> None:
    import yolo_attn

    first = """Trainer YoloAttnError __version__ export_model get_module insert install installed list_modules load
    load_plugin register remove set_start transfer uninstall unregister""".split()
    assert set(first) <= set(yolo_attn.__all__)
    assert all(hasattr(yolo_attn, name) for name in first)
