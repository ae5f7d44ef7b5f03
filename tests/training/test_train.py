"""The main job as a user runs it, and every mistake before it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import ROOT, Run, run_python

from yolo_attn import cli
from yolo_attn.detectors.opening import open_source
from yolo_attn.errors import CheckpointError, DataError, UsageError
from yolo_attn.evaluation import dataset
from yolo_attn.export.described import weights_digest
from yolo_attn.training import classic, options, ultralytics
from yolo_attn.training.shapes import NAMES, Recipe
from yolo_attn.training.shapes import make as make_shapes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", Recipe(train=8, val=4, size=64))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(shapes: Path, folder: Path, **keys: Any) -> str:
    """The data YAML with keys changed, or removed where None."""
    import yaml

    d = {**yaml.safe_load(shapes.read_text(encoding="utf-8")), **keys}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in d.items() if v is not None}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--cfg", "yolov5s_see.yaml"], "yolov5s_see.yaml.*Did you mean 'yolov5_se'"),
        (["--data", "nowhere.yaml"], "data set YAML not found: nowhere.yaml"),
        (["--weights", "nowhere/best.pt"], "weights not found: nowhere/best.pt"),
        (["--weights", "cut.pt"], r"cut.pt .*cut short \(100 bytes\)"),
        (["--resume", "nowhere.pt"], "nowhere.pt: checkpoint not found"),
        (["--resume"], "no last.pt in .*--resume PATH"),
        (["--hyp", "nowhere.yaml"], "--hyp nowhere.yaml: cannot be read"),
        (["--epochs", "many"], "invalid int value: 'many'"),
        (["--epochs", "-3"], "--epochs must not be negative"),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
        (["lr=0.1"], "'lr' is not a training argument.*Did you mean .*'lr0'"),
        (["stray"], "'stray' is neither an option nor key=value"),
        (["--freeze", "backbone"], "--freeze takes .*backbone"),
        (["--freeze", "base"], "they need --weights"),
        (["--start", "identity"], "--start needs --weights"),
        (["--plugin", "nowhere.py"], "plug-in file not found: nowhere.py"),
        (["--plugin", "broken.py"], "broken.py fails on import: line 2: RuntimeError: on purpose"),
        (["--project", "a_file"], "cannot write to .*a_file is a file"),
        (["--device", "97"], "--device 97"),
        (["--device", "gpu"], "--device gpu: .*cpu"),
        (["--batch", "-5"], "--batch -5: .*number of images, or -1"),
        (["batch=0"], "--batch 0: .*number of images"),
        (["imgsz=wide"], "--imgsz wide: .*number of pixels"),
        (["epochs=0"], "epochs.*0"),
        (["lr0=abc"], "'lr0=abc' is of invalid type"),
        (["mosaic=7"], "'mosaic=7' is an invalid value"),
        (["model=yolov8n.yaml"], "'model='.* --cfg"),
        (["--cfg", "yolov5n_se.yaml", "--freeze", "99"], "--freeze 99: the rows are 0 to 28"),
        (["--cfg", "headless.yaml"], "headless.yaml: the last row is Conv; a detector's last row is Detect"),
        (["--export", "onxx"], "--export onxx: .*onnx"),
        (["--data", "."], "--data takes .*YAML.* . is a folder .*twice.yaml"),
        (["--hyp", "twice.yaml"], "--hyp twice.yaml: line 2: 'lr0' .*twice.* line 1"),
        (["--host", "no_such_folder"], "no_such_folder"),
    ],
)
def test_mistakes_cost_one_message(here: Path, capfd: pytest.CaptureFixture[str], argv: list[str], told: str) -> None:
    """Exit code not 0, one line that says what to do, and nothing written."""
    Path("cut.pt").write_bytes(b"PK\x03\x04" + b"\0" * 96)
    Path("broken.py").write_text("import os\nraise RuntimeError('on purpose')\n", encoding="utf-8")
    Path("a_file").write_text("", encoding="utf-8")
    Path("headless.yaml").write_text("nc: 3\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: []\n", encoding="utf-8")
    Path("twice.yaml").write_text("lr0: 0.1\nlr0: 0.2\n", encoding="utf-8")
    before = sorted(p.name for p in here.iterdir())
    assert cli.main(["train", *argv]) in (1, 2)
    err = capfd.readouterr().err
    message = [t for t in err.splitlines() if t.startswith("yolo-attn train:")]
    assert len(message) == 1, err
    assert re.search(told, message[0]), message[0]
    assert sorted(p.name for p in here.iterdir() if p.name != "__pycache__") == before


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"train": None}, "has no 'train:'"),
        ({"names": None, "nc": None}, "neither 'names:' nor 'nc:'"),
        ({"nc": 7}, "'nc: 7' contradicts the 3 'names'"),
        ({"val": "images/nowhere"}, "'val:' points to .*nowhere, which does not exist"),
        ({"train": "labels/train"}, "'train:' has no images"),
        ({"names": "circle", "nc": None}, "'names:' must be a list"),
        ({"names": []}, "'names:' must be a list"),
        ({"names": {1: "a", 2: "b", 5: "c"}}, r"'names:' must number its 3 classes 0 to 2, got \[1, 2, 5\]"),
        ({"names": None, "nc": "three"}, "'nc:' must be .*'three'"),
    ],
)
def test_data_sets_are_checked_first(
    here: Path, shapes: Path, capfd: pytest.CaptureFixture[str], keys: dict[str, Any], told: str
) -> None:
    assert cli.main(["train", "--data", edited(shapes, here, **keys)]) == 1
    assert re.search(told, capfd.readouterr().err)


def test_class_names_beyond_ascii_may_need_a_font(shapes: Path, tmp_path: Path) -> None:
    assert dataset.check(edited(shapes, tmp_path, names=["圆", "方", "三角"])) is True
    assert dataset.check(str(shapes)) is False


def test_a_data_set_without_labels(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = make_shapes(here / "shapes", Recipe(train=2, val=2, size=64))
    for label in (made.parent / "labels" / "train").glob("*.txt"):
        label.unlink()
    assert cli.main(["train", "--data", str(made)]) == 1
    assert "has 2 images and no labels: looked for" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("7 0.5 0.5 0.2 0.2", "class 7, .*0 to 2"),
        ("-1 0.5 0.5 0.2 0.2", "class -1"),
        ("0 1.5 0.5 0.2 0.2", "1.5 is outside the image"),
        ("0 nan 0.5 0.2 0.2", "nan is outside the image"),
        ("0 0.5 0.5 0.2", "4 numbers, .*5"),
        ("cat 0.5 0.5 0.2 0.2", "'cat 0.5 0.5 0.2 0.2' is not all numbers"),
    ],
)
def test_labels_of_which_none_can_be_used(shapes: Path, tmp_path: Path, line: str, told: str) -> None:
    """File and line are named; one good file is enough, as for the hosts, which leave the bad ones out."""
    made = make_shapes(tmp_path / "shapes", Recipe(train=2, val=1, size=64))
    first, second = sorted((made.parent / "labels" / "train").glob("*.txt"))
    good = second.read_text()
    for file in (first, second):
        file.write_text(f"0 0.5 0.5 0.2 0.2\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"(?s)'train:'.*2 images and no labels that can.*{first.name}, line 3: {told}"):
        dataset.check(str(made))
    second.write_text(good)
    assert dataset.check(str(made)) is False


def test_one_class_takes_labels_of_any(tmp_path: Path) -> None:
    made = make_shapes(tmp_path / "shapes", Recipe(train=1, val=1, size=64))
    for file in (made.parent / "labels").rglob("*.txt"):
        file.write_text("7 0.5 0.5 0.2 0.2\n")
    assert dataset.check(str(made), single_cls=True) is False
    with pytest.raises(DataError, match="class 7"):
        dataset.check(str(made))


def test_polygons_are_pictured_as_their_boxes(tmp_path: Path) -> None:
    from yolo_attn.training import pictures

    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.1 0.9 0.5 0.5 0.7\n0 0.5 0.5 0.2 0.4\n")
    boxes = pictures._truth(tmp_path / "images" / "a.png", (100, 200, 3))
    assert [(c, [round(v) for v in box]) for c, box, _ in boxes] == [(1, [100, 10, 180, 70]), (0, [80, 30, 120, 70])]


def test_a_transformers_head_is_refused_with_the_hosts_own_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`yolo-attn train` trains YOLO detectors; RT-DETR has a class and a trainer of its own."""
    import yolo_attn
    from yolo_attn.cli import main

    monkeypatch.chdir(tmp_path)
    Path("rtdetr_eca.yaml").write_text(yolo_attn.insert("rtdetr-l.yaml", module="ECA", where="neck"), encoding="utf-8")
    capsys.readouterr()
    assert main(["train", "--cfg", "rtdetr_eca.yaml", "--device", "cpu", "--epochs", "1"]) == 1
    err = capsys.readouterr().err
    assert "RTDETR('rtdetr_eca.yaml').train(data=...)" in err and "Traceback" not in err


def test_wide_images_fill_their_cells_and_no_name_covers_a_small_object() -> None:
    import numpy as np
    from PIL import ImageFont

    from yolo_attn.training import pictures

    assert pictures._cell([(96, 96, 3)]) == (256, 256)
    cell = pictures._cell([(720, 1280, 3)] * 3 + [(100, 100, 3)])
    assert cell[0] / cell[1] == pytest.approx(1280 / 720, rel=0.01)
    assert cell[0] * cell[1] == pytest.approx(256 * 256, rel=0.01)
    assert pictures._cell([(100, 9000, 3)])[1] > 150
    image = np.zeros((720, 1280, 3), np.uint8)
    corners = [(0, 0), (300, 300), (360, 300), (420, 300), (700, 10), (1220, 0), (1220, 660), (600, 655), (601, 590)]
    boxes: list[pictures.Box] = [(k % 3, [x, y, x + 50, y + 50], None) for k, (x, y) in enumerate(corners)]
    for x, y in corners:
        image[y : y + 50, x : x + 50] = 255
    names = {0: "circle", 1: "triangle", 2: "square"}
    panel = pictures._panel(image, boxes, names, ImageFont.load_default(), cell)
    assert panel.shape == (cell[1], cell[0], 3)
    scale = cell[0] / 1280
    for x, y in corners:  # inside the line around it, the object is as it was
        inner = panel[round(y * scale) + 3 : round((y + 50) * scale) - 3, round(x * scale) + 3 : round((x + 50) * scale) - 3]
        assert (inner > 200).all(), (x, y)


def test_flags_become_arguments_of_the_host(tmp_path: Path) -> None:
    argv = (
        "--data my.yaml --img 320 --batch-size 4 --epochs 7 --optimizer AdamW --cos-lr --freeze 0 1 2 lr0=0.1 "
        "--cache --single-cls --noplots --seed 3 --device 0,1 mosaic=0.5 close_mosaic=null --name lr0=x"
    ).split()
    args = options.host_arguments(options.parse(argv))
    expected = {
        "imgsz": 320, "batch": 4, "epochs": 7, "optimizer": "AdamW", "cos_lr": True, "freeze": [0, 1, 2], "lr0": 0.1,
        "cache": "ram", "single_cls": True, "plots": False, "seed": 3, "device": "0,1", "mosaic": 0.5, "name": "lr0=x",
        "patience": 100, "workers": 8,
    }  # fmt: skip
    assert {k: args[k] for k in expected} == expected
    from ultralytics.utils import DEFAULT_CFG_DICT

    assert not set(args) - set(DEFAULT_CFG_DICT)


def test_a_classic_hyperparameter_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What belongs to the anchor-based loss is left out, because the same words mean other numbers here."""
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("lr0: 0.02\nbox: 0.05\ncls: 0.5\nobj: 1.0\nanchor_t: 4.0\nfliplr: 0.1\n", encoding="utf-8")
    with caplog.at_level("INFO", "yolo_attn"):
        args = options.host_arguments(options.parse(["--data", "x.yaml", "--hyp", str(hyp), "lr0=0.03"]))
    assert (args["lr0"], args["fliplr"]) == (0.03, 0.1)
    assert not {"box", "cls", "obj", "anchor_t"} & set(args)
    assert "anchor_t, box, cls, obj" in caplog.text


def test_weights_that_a_classic_host_would_not_read(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    with pytest.raises(CheckpointError, match=r"best\.safetensors: classic YOLOv5 starts from \.pt files"):
        classic._weights(str(tmp_path / "best.safetensors"))
    (tmp_path / "best.PT").write_bytes(b"weights")
    assert classic._weights(str(tmp_path / "best.PT")) == str(tmp_path / "best.PT")


def test_an_export_of_an_earlier_epoch_is_none_of_this_run(tmp_path: Path) -> None:
    """What a resumed run takes for its own export, and does not make again."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    best = tmp_path / "best.pt"
    model = DetectionModel("yolov5n_se.yaml", verbose=False)
    torch.save({"model": model.half(), "train_args": {}}, best)
    assert not ultralytics._exported(best)
    (tmp_path / "best.onnx").write_bytes(b"a graph")
    told = {"sha256": "", "proof": {"passed": True}, "weights": weights_digest(open_source(best).model)}
    (tmp_path / "best.onnx.json").write_text(json.dumps(told), encoding="utf-8")
    assert ultralytics._exported(best)
    with torch.no_grad():
        next(model.parameters()).add_(1)  # an epoch later
    torch.save({"model": model, "train_args": {}}, best)
    assert not ultralytics._exported(best)


def test_unknown_option_is_not_abbreviated() -> None:
    with pytest.raises(UsageError, match="--exist"):
        options.parse(["--exist"])


def test_embedded_data(tmp_path: Path) -> None:
    """Seeded, in YOLO layout, boxes inside the picture; made once; never over other files."""
    recipe = Recipe(train=6, val=2, size=96, seed=5)
    first, second = make_shapes(tmp_path / "a", recipe), make_shapes(tmp_path / "b", recipe)
    for kind in ("images", "labels"):
        for file in sorted((first.parent / kind).rglob("*.*")):
            assert file.read_bytes() == (second.parent / file.relative_to(first.parent)).read_bytes()
    assert len(list((first.parent / "images" / "train").iterdir())) == 6
    rows = [t.split() for f in (first.parent / "labels").rglob("*.txt") for t in f.read_text().splitlines()]
    assert {int(r[0]) for r in rows} <= set(range(len(NAMES)))
    for _, x, y, w, h in rows:
        x, y, w, h = map(float, (x, y, w, h))
        assert 0 <= x - w / 2 < x + w / 2 <= 1
        assert 0 <= y - h / 2 < y + h / 2 <= 1
    stamp = first.stat().st_mtime_ns
    assert make_shapes(tmp_path / "a", recipe) == first
    assert first.stat().st_mtime_ns == stamp
    other = make_shapes(tmp_path / "c", Recipe(train=6, val=2, size=96, seed=6))
    assert (other.parent / "images/train/0000.png").read_bytes() != (
        first.parent / "images/train/0000.png"
    ).read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years")
    with pytest.raises(DataError, match="contains other files"):
        make_shapes(tmp_path / "mine", recipe)
    with pytest.raises(DataError, match="contains a data set"):
        make_shapes(tmp_path / "a", Recipe(train=5, val=2, size=96, seed=5))


@pytest.mark.parametrize(
    ("optimizer", "epoch", "told"),
    [({}, 3, "To resume: .*--resume .*last.pt"), ({}, 9, "All epochs are done"), (None, -1, "All epochs are done")],
)
def test_a_resume_is_offered_where_there_is_one(
    tmp_path: Path, optimizer: dict[str, int] | None, epoch: int, told: str
) -> None:
    """The host's checkpoint counts epochs from 0, and loses its optimizer when the run is over."""
    import torch

    from yolo_attn.training import ultralytics as train

    last = tmp_path / "last.pt"
    assert "nothing to resume" in train._how_to_resume(last)
    torch.save({"optimizer": optimizer, "epoch": epoch, "train_args": {"epochs": 10}}, last)
    assert re.search(told, train._how_to_resume(last))


def test_freezing_rows_says_which_attention_goes_with_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "yolo_attn")
    from ultralytics import YOLO

    from yolo_attn.training import checks

    model, given = YOLO("yolov5n_se.yaml"), options.parse(["--cfg", "yolov5n_se.yaml"])
    instead = "use --freeze base:3 to train it first"
    for freeze, rows in ((10, "[3, 6, 9]"), ([0, 6], "[6]"), (3, None), (None, None)):
        checks.check_model(given, model, {"freeze": freeze})
        assert caplog.messages == (
            [f"--freeze freezes the attention in rows {rows} as well; {instead}"] if rows else []
        )
        caplog.clear()


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume(tmp_path: Path, shapes: Path) -> None:
    """Interrupted after an epoch: exit code 130 and the command that goes on."""
    argv = [sys.executable, str(ROOT / "train_detect.py"), "--cfg", "yolov5n_eca.yaml", "--data", str(shapes),
            "--epochs", "500", "--img", "64", "--batch", "4", "--noplots", "--device", "cpu"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        argv, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    last = tmp_path / "runs" / "train" / "exp" / "weights" / "last.pt"
    deadline = time.monotonic() + 600
    while not last.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    err = ""
    for _ in range(8):  # an interrupt that hits a destructor is printed as ignored, and Python goes on
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            err = process.communicate(timeout=120)[1]
            break
    assert process.returncode == 130, err
    assert "Traceback" not in err or "Exception ignored" in err
    assert f"--resume {last}" in err


@pytest.mark.slow
def test_a_second_run_leaves_the_first_alone(tmp_path: Path, shapes: Path) -> None:
    first = tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt"
    first.parent.mkdir(parents=True)
    first.write_bytes(b"a month of training")
    argv = ["--cfg", "yolov5n_se.yaml", "--data", str(shapes), "--epochs", "1", "--img", "64", "--batch", "4",
            "--noplots", "val=False", "--device", "cpu"]  # fmt: skip
    run = run_python(str(ROOT / "train_detect.py"), *argv, cwd=tmp_path)
    run.ok()
    assert "exists: " in run.err and "--exist-ok" in run.err
    assert [p for p in (tmp_path / "runs/train/exp").rglob("*") if p.is_file()] == [first]
    assert first.read_bytes() == b"a month of training"
    (second,) = (p for p in (tmp_path / "runs" / "train").iterdir() if p.name != "exp")
    assert (second / "weights" / "best.pt").is_file()
    message = run_python(str(ROOT / "train_detect.py"), "--resume", str(second), cwd=tmp_path).mistake()
    assert "cannot be resumed" in message and "--weights" in message


@pytest.mark.slow
def test_the_main_job(tmp_path: Path, python: Callable[..., Run]) -> None:
    """`python train_detect.py --cfg yolov5s_se.yaml` on a fresh machine, with nothing else given."""
    started = time.monotonic()
    run = run_python(str(ROOT / "train_detect.py"), "--cfg", "yolov5s_se.yaml", cwd=tmp_path, timeout=1500)
    out, took = run.ok(), time.monotonic() - started
    folder = tmp_path / "runs" / "train" / "exp"
    for name in ("weights/best.pt", "weights/last.pt", "weights/best.onnx", "results.csv", "results.png",
                 "truth_and_prediction.jpg", "args.yaml"):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    rows = list(csv.DictReader((folder / "results.csv").open()))
    best = max(float(r["metrics/mAP50(B)"]) for r in rows)
    print(f"mAP50 {best:.3f} after {len(rows)} epochs in {took:.0f} s")
    assert best >= 0.6
    for word in ("next:", "your own data", "other attention", "predict", "train_detect.py --cfg yolov5s_eca.yaml"):
        assert word in out
    assert re.search(r"(?i)largest difference|relative", out)
    code = """
    import sys, yolo_attn
    from ultralytics import YOLO
    names = [type(m).__name__ for m in YOLO(sys.argv[1]).model.model]
    assert names.count("SEAttention") == 4, names
    """
    python(code, str(folder / "weights" / "best.pt")).ok()


@pytest.mark.parametrize("repaired", [False, True])
def test_the_lines_in_front_of_a_workers_script(python: Callable[..., Run], repaired: bool) -> None:
    """Run in a fresh process they import the kit, and repair hosts where this process does."""
    code = "import yolo_attn\nfrom yolo_attn.hook import install\nfrom yolo_attn.kit import KIT\n"
    lines = python(code + ("install.repair()\n" if repaired else "") + "print(KIT.worker_lines())").ok()
    asks = "\nimport ultralytics.nn.tasks\nprint('HOOKED', yolo_attn.installed(), yolo_attn.hook.install.repairing())"
    assert f"HOOKED ['ultralytics'] {repaired}" in python(lines + asks).ok()
