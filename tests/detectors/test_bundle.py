"""A bundle gives the same detector back, without a pickle, anywhere; a changed one is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import yolo_attn
from yolo_attn.detectors.bundle import MANIFEST, MODEL, WEIGHTS, _seal, read_manifest
from yolo_attn.detectors.opening import open_source
from yolo_attn.detectors.source import attention_used
from yolo_attn.errors import CheckpointError, YoloAttnError
from yolo_attn.export.single import export


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of size s with names of its own, and its bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    source = open_source("yolov5s_se.yaml")
    source.model.names = {i: f"thing{i}" for i in range(80)}
    source.model.half()
    source.handle.save(folder / "best.pt")
    return folder / "best.pt", export(folder / "best.pt", format="bundle", log=lambda line: None).path


def rewritten(bundle: Path, target: Path, **changes: bytes) -> Path:
    """Copy a bundle with some of its files replaced."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.split(".")[0], old.read(name)))
    return target


def test_the_same_detector_comes_back(made: tuple[Path, Path]) -> None:
    checkpoint, bundle = made
    want, got = open_source(checkpoint).model, yolo_attn.load(bundle)
    assert bundle.stat().st_size < 1.1 * checkpoint.stat().st_size  # fp16 weights stay fp16 where that is exact
    state = got.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in want.state_dict().items()) and len(state) == len(want.state_dict())
    assert got.names == want.names and got.model.stride.tolist() == want.stride.tolist()
    assert attention_used(got.model) == {"SEAttention": 4}
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(want(x)[0], got.model(x)[0])


def test_what_it_holds(made: tuple[Path, Path]) -> None:
    manifest, content = read_manifest(made[1])
    assert set(content) == {WEIGHTS, MODEL} and manifest["versions"]["yolo_attn"] == yolo_attn.__version__
    assert manifest["register"] == {"SEAttention": "yolo_attn.modules.se:SEAttention"}
    assert b"scale:" not in content[MODEL] and b"scales:" in content[MODEL]


def test_a_detector_fine_tuned_from_one_of_more_classes(tmp_path: Path) -> None:
    """The host keeps the width of the other's class branches, 80 here where the YAML's three classes would give 64."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    many = open_source("yolov5n_se.yaml")
    few = DetectionModel(many.model.yaml, nc=3, verbose=False)
    few.load(many.model, verbose=False)
    few.names, few.args, few.task = {0: "a", 1: "b", 2: "c"}, many.model.args, "detect"
    many.handle.model = few
    many.handle.save(tmp_path / "best.pt")
    bundle = export(tmp_path / "best.pt", format="bundle", log=lambda line: None).path
    for got in (yolo_attn.load(bundle).model, open_source(tmp_path / "best.pt", cfg="yolov5n_se.yaml").model):
        state = got.state_dict()
        assert state.keys() == few.state_dict().keys()
        assert all(torch.equal(v.half().float(), state[k].half().float()) for k, v in few.state_dict().items())
        assert got.names == few.names and got.model[-1].nc == 3
    result = export(
        tmp_path / "best.pt", cfg="yolov5n_se.yaml", imgsz=64, simplify=False, output=tmp_path / "a.onnx",
        log=lambda line: None,
    )  # fmt: skip
    assert result.report["proof"]["passed"] and result.report["names"] == few.names


@pytest.mark.slow
def test_it_needs_no_pickle_and_no_other_file(made: tuple[Path, Path], python: Any, tmp_path: Path) -> None:
    (tmp_path / "moved.bundle").write_bytes(made[1].read_bytes())
    out = python(
        """
        import pickle, torch
        def never(*args, **kwargs):
            raise AssertionError("a pickle was read")
        pickle.load = pickle.loads = torch.load = never
        import numpy as np, yolo_attn
        model = yolo_attn.load("moved.bundle")
        found = model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)
        print(len(found), model.names[79], sum(p.numel() for p in model.model.parameters()))
        """
    ).ok()
    assert out.split()[:2] == ["1", "thing79"] and int(out.split()[2]) > 9_000_000


def test_it_exports_again_with_proof(made: tuple[Path, Path], tmp_path: Path) -> None:
    result = export(made[1], imgsz=64, simplify=False, output=tmp_path / "a.onnx", log=lambda line: None)
    assert result.report["proof"]["passed"] and result.report["names"][79] == "thing79"


def test_a_changed_file_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, content = read_manifest(made[1])
    weights = bytearray(content[WEIGHTS])
    weights[-1] ^= 1
    model = content[MODEL].replace(b"SEAttention", b"ECA")
    for changes, words in (
        ({"weights": bytes(weights)}, "weights.safetensors was changed"),
        ({"model": model}, "model.yaml was changed"),
        ({"manifest": b"{}"}, "not a bundle"),
        ({"manifest": json.dumps({**manifest, "format": 99}).encode()}, "format 99"),
        ({"manifest": json.dumps({**manifest, "names": {"0": "other"}}).encode()}, "manifest.json was changed"),
        ({"manifest": json.dumps({**manifest, "register": {"SEAttention": "os:system"}}).encode()}, "was changed"),
        ({"manifest": b"[" * 100_000}, "damaged"),
    ):
        with pytest.raises(CheckpointError, match=words):
            yolo_attn.load(rewritten(made[1], tmp_path / "x.bundle", **changes))


def test_a_bundle_runs_no_code(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Hashes that fit do not make a stranger's YAML trusted."""
    import hashlib

    manifest, content = read_manifest(made[1])
    flag = tmp_path / "ran"
    for text, words in (
        (content[MODEL] + f"activation: open('{flag}', 'w')\n".encode(), "not evaluated"),
        (content[MODEL].replace(b"SEAttention", b"torch_load"), "is not called"),
        (content[MODEL].replace(b"SEAttention", b"Stranger"), "Stranger"),
        (content[MODEL].replace(b"SEAttention", b"nn.Module"), "is not called"),
        (b"[" * 3_000, "nested more than 50 deep"),
    ):
        manifest["sha256"][MODEL] = hashlib.sha256(text).hexdigest()
        manifest["sha256"][MANIFEST] = _seal(manifest)
        path = rewritten(made[1], tmp_path / "x.bundle", model=text, manifest=json.dumps(manifest).encode())
        with pytest.raises(YoloAttnError, match=words):
            yolo_attn.load(path)
    assert not flag.exists()


def test_a_zip_that_would_grow_or_leave_its_folder(made: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:  # 100 MB of zeros in 100 kB
        file.writestr(MANIFEST, "{}")
        file.writestr(MODEL, "")
        file.writestr(WEIGHTS, bytes(100_000_000))
    with pytest.raises(CheckpointError, match="compressed"):
        yolo_attn.load(path)
    whole = bytearray(made[1].read_bytes())
    whole[whole.find(b"PK\x01\x02") + 8] |= 1  # the flag of encryption
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="encrypted"):
        yolo_attn.load(path)
    with zipfile.ZipFile(rewritten(made[1], path), "a") as file:
        file.writestr("../outside", "x")
    with pytest.raises(CheckpointError, match="is not a bundle"):
        yolo_attn.load(path)
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.slow
def test_a_plug_in_that_is_missing(made: tuple[Path, Path], python: Any, cli: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom yolo_attn import register\n\n\n@register('Mine', kind='channel')\n"
        "class Mine(nn.Module):\n    def __init__(self, channels):\n        super().__init__()\n"
        "        self.gate = nn.Conv2d(channels, channels, 1)\n\n"
        "    def forward(self, x):\n        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()\n"
    )
    _, content = read_manifest(made[1])
    (tmp_path / "yolov5s_mine.yaml").write_bytes(content[MODEL].replace(b"SEAttention", b"Mine"))
    cli("export", "yolov5s_mine.yaml", "--format", "bundle", "--output", "m.bundle", "--plugin", "mine.py").ok()
    code = "import sys, yolo_attn\nprint(yolo_attn.load('m.bundle').model.model[3].__class__.__name__)"
    assert python("import yolo_attn; yolo_attn.load_plugin('mine.py')\n" + code).ok().split()[-1] == "Mine"
    (tmp_path / "mine.py").rename(tmp_path / "elsewhere.py")
    out = python("import yolo_attn\ntry:\n    yolo_attn.load('m.bundle')\nexcept yolo_attn.YoloAttnError as e:\n"
                 "    print('message', e)")  # fmt: skip
    assert "Mine" in out.ok().split("message")[1]


def test_files_that_are_no_bundle(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        yolo_attn.load(tmp_path / "none.bundle")
    (tmp_path / "pt.bundle").write_bytes(made[0].read_bytes())  # a .pt is a zip too
    with pytest.raises(CheckpointError, match="is not a bundle"):
        yolo_attn.load(tmp_path / "pt.bundle")
    (tmp_path / "text.bundle").write_text("text")
    (tmp_path / "cut.bundle").write_bytes(made[1].read_bytes()[:-5000])
    for name in ("text", "cut"):
        with pytest.raises(CheckpointError, match="damaged"):
            yolo_attn.load(tmp_path / f"{name}.bundle")
    assert MANIFEST in zipfile.ZipFile(made[1]).namelist()
