"""Every format is run by its own runtime and compared with PyTorch; what differs, crashes or is missing is one message."""

from __future__ import annotations

import faulthandler
import functools
import importlib.util
import json
import os
import pickle
import shutil
import signal
import struct
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from busy import make_busy
from classic_host import Classic, classic  # noqa: F401  # the fixture
from conftest import ROOT, slow_but
from torch import nn

from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.detectors.source import Source
from yolo_attn.errors import DataError, ExportError, FileError, UsageError, YoloAttnError
from yolo_attn.evaluation.figures import Split
from yolo_attn.export import accuracy, proof, report, several
from yolo_attn.export.asked import Asked
from yolo_attn.export.beside import of_other_weights
from yolo_attn.export.formats import apart, base, elsewhere, int8, litert_int8, table, write
from yolo_attn.export.formats.host import calibration
from yolo_attn.export.int8 import agreement, few_images, labelled_images
from yolo_attn.export.proof import read_images
from yolo_attn.export.several import export_several, formats_of
from yolo_attn.export.single import export_source
from yolo_attn.model_yaml import find
from yolo_attn.runtime.boxes import iou_matrix, suppress
from yolo_attn.runtime.child import Apart, Died, Killed
from yolo_attn.runtime.engines import litert
from yolo_attn.runtime.engines.network import refused
from yolo_attn.runtime.image import blob, letterbox, unletterbox
from yolo_attn.runtime.predict import look, predict
from yolo_attn.runtime.proved import read_report, report_path
from yolo_attn.runtime.session import Detector
from yolo_attn.weights.attention import attention_in

sys.path.insert(0, str(ROOT / "tools"))
import deploy_matrix

INSTALLED = {
    name: all(importlib.util.find_spec(n.module) is not None for n in f.needs) for name, f in table.FORMATS.items()
}
EVERYWHERE = ("openvino", "ncnn", "mnn", "torchscript")  # the extra `deploy`, and PyTorch itself
IN_CI = bool(os.environ.get("CI"))


def runtimes(*names: str) -> list[Any]:
    """The formats whose packages are installed; with CI set, those of the extra `deploy` are never skipped."""
    return [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                not INSTALLED[name] and not (IN_CI and name in EVERYWHERE),
                reason=f'needs pip install "yolo_attn[{table.FORMATS[name].extra}]"',
            ),
        )
        for name in names
    ]


RUN_HERE = runtimes(*(name for name, f in table.FORMATS.items() if f.runtime))


def lively(source: Source) -> Source:
    """A detector whose detections are many and whose gates are not those of the first step: fresh weights, perturbed."""
    torch.manual_seed(0)
    gates = [source.model.get_submodule(path) for path in attention_in(source.model)]
    assert len(gates) == 4  # of yolov5n_se.yaml; what is perturbed nowhere proves nothing

    def stir(gate: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """Move a gate's weights; the first ones by what arrives, so that it neither stays at a half nor saturates."""
        for p in gate.parameters():
            p += 0.3 * torch.randn_like(p)
        means = given[0].mean((2, 3))
        first = next(gate.parameters())
        first /= means.square().mean().sqrt() * (means.shape[1] / 32) ** 0.5
        first *= torch.sign(first.flatten(1) @ means[0])[:, None, None, None]  # no unit is dead

    hooks = [gate.register_forward_pre_hook(stir) for gate in gates]
    make_busy(source.model)
    with torch.no_grad():
        source.model.eval()(torch.from_numpy(blob([letterbox(drawn_images(1)[0], (64, 96))[0]])))
    for hook in hooks:
        hook.remove()
    source.model.names = {i: f"thing{i}" for i in range(80)}
    return source


@pytest.fixture(scope="module")
def source() -> Source:
    torch.manual_seed(0)  # the fresh weights are the same in every order of the tests
    return lively(open_source("yolov5n_se.yaml"))


@pytest.fixture(scope="module")
def forgiving(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A detector that rounding hardly moves, with a gate that it needs: what int8 is measured on.

    Noise of half a grey level moves its boxes by 0.02 pixels. It moves those of :func:`lively`, whose sixty convolutions in a
    row add to each error, by 5 pixels, and any layer alone in int8 by more. With a constant for its gate, the mean that the
    gate has, its boxes move by 0.5 pixels.
    """
    source = deploy_matrix.detector("SEAttention", tmp_path_factory.mktemp("forgiving"))
    with torch.no_grad():
        source.model.model[-3].fc2.weight.mul_(10)  # gates from 0.1 to 0.9
    return source


def moved(full: Detector, rounded: Detector, job: base.Job) -> tuple[float, float]:
    """The mean differences of two files on a job's pictures: of the sides of boxes, in pixels, and of scores."""
    apart = np.mean([np.abs(full(x) - rounded(x))[0] for x in calibration(job)], axis=0)
    return float(apart[:4].mean()), float(apart[4:].mean())


@pytest.fixture(scope="module")
def labelled(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose objects are the three surest detections of PyTorch in each of four drawn pictures."""
    folder = tmp_path_factory.mktemp("labelled")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for k, picture in enumerate(drawn_images(4, seed=5)):
        cv2.imwrite(str(folder / "images" / f"{k}.png"), picture)
        fitted, fit = letterbox(picture, (64, 96))
        with torch.inference_mode():
            found = suppress(source.model(torch.from_numpy(blob([fitted])))[0][0].numpy(), "anchor-free")[:3]
        found[:, :4] = unletterbox(found[:, :4], fit)
        h, w = picture.shape[:2]
        rows = [[c, (a + x) / 2 / w, (b + y) / 2 / h, (x - a) / w, (y - b) / h] for a, b, x, y, _, c in found.astype(float).tolist()]
        (folder / "labels" / f"{k}.txt").write_text("".join(" ".join(map(str, [int(r[0]), *r[1:]])) + "\n" for r in rows))
    data = {"train": "images", "val": "images", "names": source.names}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    return folder / "data.yaml"


@pytest.fixture(scope="module")
def source_for(source: Source) -> Any:
    """The detector to export to a format, as a function.

    What computes in fp16 alone gets fresh gates: with perturbed ones, rounding moves the boxes of a random head by more
    than a few per cent.
    """

    @functools.cache
    def calm() -> Source:
        torch.manual_seed(0)
        fresh = open_source("yolov5n_se.yaml")
        make_busy(fresh.model)
        fresh.model.names = source.model.names
        return fresh

    return lambda name: calm() if name in table.FORMATS and table.FORMATS[name].precision != "fp32" else source


@pytest.fixture(scope="module")
def made(source: Source, source_for: Any, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each format's file at 64 x 96, written once; as a function."""
    folder, kept = tmp_path_factory.mktemp("formats"), {}

    def get(name: str, like: str = "") -> Any:
        of = source_for(like or name)
        calm = of is not source
        if (name, calm) not in kept:
            place = folder / f"{'calm' if calm else 'best'}{table.suffix_of(name)}"
            asked = Asked(format=name, imgsz=[64, 96], output=place, data=None if calm else labelled)
            kept[name, calm] = export_source(of, asked.checked(), lambda line: None)
        return kept[name, calm]

    return get


def quiet(source: Source, **options: Any) -> Any:
    return export_source(source, Asked(imgsz=[64, 96], **options).checked(), lambda line: None)


# --- proved ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_file_is_run_by_its_runtime_and_equals_pytorch(made: Any, name: str) -> None:
    result = made(name)
    report = json.loads(result.report_path.read_text())
    assert report["sha256"] == result.report["sha256"] and report["path"] == str(result.path)
    exact = table.FORMATS[name].precision == "fp32"  # RKNN's NPU knows fp16 alone
    assert report["proof"]["passed"] and report["proof"]["largest_difference"] <= (1e-4 if exact else 2e-2)
    assert sum(r["detections"]["compared"] for r in report["proof"]["runs"]) > 50
    assert report["versions"][table.FORMATS[name].runtime] and report["attention"] == {"SEAttention": 4}
    assert [p.name for p in result.path.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", RUN_HERE)
def test_detect_finds_with_it_what_it_finds_with_onnx(made: Any, name: str) -> None:
    detectors = [Detector(made(n, name).path, threads=1) for n in ("onnx", name)]
    assert detectors[1].runtime == table.FORMATS[name].runtime and detectors[1].size == (64, 96)
    assert detectors[1].names[79] == "thing79" and detectors[1].stride == 32
    images = [im[:301, :453] for im in drawn_images(3, seed=5)]
    if table.FORMATS[name].precision != "fp32":  # rounding chooses other boxes of a random head's crowd: what NMS is given
        for image in images:
            a, b = (d(blob([letterbox(image, (64, 96))[0]])) for d in detectors)
            assert max(proof.largest_difference(a, b, "anchor-free").values()) <= 5e-2
            assert len(predict(detectors[1], [image])[0]) > 10
        return
    for a, b in zip(*(predict(d, images) for d in detectors)):
        same = (iou_matrix(a[:, :4], b[:, :4]) > 0.99) & (a[:, None, 5] == b[None, :, 5])
        # The runtimes' last bits can tip a pair of boxes at NMS's limit, among more than a hundred of a random model.
        assert len(a) > 10 and same.any(0).mean() >= 0.97 and same.any(1).mean() >= 0.97
        np.testing.assert_allclose(a[same.any(1), 4], b[same.argmax(1)[same.any(1)], 4], atol=1e-3)


def test_several_formats_at_once_and_one_that_fails(source: Source, tmp_path: Path, monkeypatch: Any) -> None:
    """The others are written; the outcome says of each what became of it."""
    path = tmp_path / "best.pt"
    source.handle.save(path)
    assert formats_of(["onnx,torchscript", "LiteRT", "onnx"]) == ["onnx", "torchscript", "tflite"]
    failing = replace(table.FORMATS["torchscript"], convert=lambda job: (_ for _ in ()).throw(OSError(28, "disk full")))
    monkeypatch.setitem(table.FORMATS, "torchscript", failing)
    lines: list[str] = []
    done = export_several(path, ["torchscript", "onnx"], Asked(imgsz=64, output=tmp_path), log=lines.append)
    assert "disk full" in done[0].problem and done[0].result is None
    assert done[1].result is not None and done[1].result.path == tmp_path / "best.onnx"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.onnx", "best.onnx.json", "best.pt"]


@pytest.mark.parametrize("name", runtimes("openvino"))
@pytest.mark.parametrize("task", slow_but(("seg", "pose", "obb", "cls"), "seg"))
def test_other_tasks(task: str, name: str, tmp_path: Path) -> None:
    """Proved, and `detect` finds with the file what the host's `predict` finds with the network."""
    torch.manual_seed(0)
    other = open_source(f"yolov8n-{task}.yaml")
    if task != "cls":
        make_busy(other.model)
    result = export_source(other, Asked(name, imgsz=[64, 96], output=tmp_path).checked(), lambda line: None)
    assert result.path == tmp_path / f"yolov8n-{task}{table.suffix_of(name)}"
    assert result.report["proof"]["passed"] and result.report["proof"]["largest_difference"] <= 1e-4
    image = drawn_images(1, seed=5)[0][:301, :453]
    detector, conf = Detector(result.path, threads=1), 0.15 if task == "pose" else 0.4  # of one class
    (seen,) = look(detector, [image], conf=conf)
    (want,) = other.handle.predict(image, imgsz=[64, 96], rect=False, conf=conf, iou=0.7, verbose=False, device="cpu")
    if task == "cls":
        assert seen.scores is not None
        np.testing.assert_allclose(seen.scores, want.probs.data.numpy(), rtol=1e-3)
        return
    boxes = (want.obb if task == "obb" else want.boxes).data.numpy()
    assert len(boxes) > 10 and abs(len(seen.boxes) - len(boxes)) <= 0.03 * len(boxes)  # at NMS's limit a last bit tips a pair
    confidence = boxes[:, 5 if task == "obb" else 4]
    assert abs(seen.boxes[0, 4] - confidence[0]) < 1e-3 and len(seen.fields) == len(seen.boxes)


@pytest.fixture(scope="module")
def classifier() -> Source:
    torch.manual_seed(0)
    return open_source("yolov8n-cls.yaml")


@pytest.mark.parametrize("name", runtimes(*(name for name, f in table.FORMATS.items() if f.half and f.runtime)))
def test_half(classifier: Source, name: str, tmp_path: Path) -> None:
    half = export_source(classifier, Asked(name, imgsz=32, half=True, output=tmp_path).checked(), lambda line: None)
    parameters = sum(p.numel() for p in classifier.model.parameters())
    assert half.report["precision"] == "fp16" and half.report["bytes"] < 2.4 * parameters
    assert 0 < half.report["proof"]["largest_difference"] <= 5e-2


@pytest.mark.parametrize("name", runtimes("openvino"))
def test_dynamic_shapes_are_proved_at_several(source: Source, name: str, tmp_path: Path) -> None:
    result = quiet(source, format=name, dynamic=True, output=tmp_path / f"d{table.suffix_of(name)}")
    assert len({tuple(r["shape"]) for r in result.report["proof"]["runs"]}) == 3
    detector = Detector(result.path)
    assert detector.size is None and detector.batch is None
    assert detector(np.zeros((2, 3, 64, 160), np.float32)).shape[:2] == (2, 84)


def test_gates_of_the_detector_under_proof_are_not_constant(source: Source) -> None:
    """A gate that is the same everywhere hides a runtime that computes it wrongly."""
    seen: list[torch.Tensor] = []

    def keep(m: nn.Module, x: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
        seen.append((y / x[0]).nanmedian(dim=-1).values.nanmedian(dim=-1).values)

    hooks = [source.model.get_submodule(p).register_forward_hook(keep) for p in attention_in(source.model)]
    with torch.inference_mode():
        source.model.eval()(torch.from_numpy(blob([letterbox(drawn_images(1)[0], (64, 96))[0]])))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 4 and all(g.std() > 0.02 for g in seen)


@pytest.mark.parametrize("name", runtimes("mnn"))
def test_int8_of_weights_alone_says_so(source: Source, name: str, tmp_path: Path) -> None:
    """MNN's: nothing is calibrated, and the pictures are those that detections are compared on."""
    lines: list[str] = []
    asked = Asked(name, imgsz=[64, 96], int8=drawn_images(2, seed=3), output=tmp_path).checked()
    result = export_source(source, asked, lines.append)
    near, small = result.report["int8"], Path(result.report["int8"]["path"])
    assert small.name == f"yolov5n_se_int8{table.suffix_of(name)}" and result.report["proof"]["passed"]
    assert near["bytes"] < 0.35 * result.report["bytes"] and near["calibrated_on"] == 0
    assert near["same_iou_0.5"] >= 0.4 * near["found"] > near["same_iou_0.9"]  # so much that the layers are told
    assert [type(source.model.get_submodule(row["layer"])).__name__ for row in near["layers"]] == ["Conv2d"] * 5
    assert any("weights alone, without calibration" in line for line in lines) and "calibrated on" not in "".join(lines)
    assert Detector(small).names[79] == "thing79" and Detector(small).notes == []
    told = read_report(small)
    assert told is not None and told["fp32"] == result.path.name and told["weights"] == result.report["weights"]
    # an export of newer weights leaves the int8 file, and names it
    newer = {**{k: v for k, v in result.report.items() if k != "int8"}, "weights": "newer"}
    result.report_path.write_text(json.dumps(newer), encoding="utf-8")
    assert of_other_weights([(result.path, result.report)]) == []
    (line,) = of_other_weights([(result.path, newer)])
    assert f"{small} is of other weights than this export" in line
    assert "is of other weights than" in Detector(small).notes[0]
    report_path(small).unlink()  # as of an earlier version
    (line,) = of_other_weights([(result.path, newer)])
    assert f"{small} is of an earlier export, whose weights are not known" in line


def test_what_is_told_of_a_loss_of_int8() -> None:
    """What is known of the cause, and a remedy that is not the very format; every format that has int8."""
    for name in (name for name, f in table.FORMATS.items() if f.int8):
        told = int8.lost(name, table.FORMATS[name].precision)
        assert f"keep the {table.FORMATS[name].precision} file" in told
        assert ("compare with --format openvino" in told) == (name != "openvino")


def test_int8_of_few_images_is_told() -> None:
    """From 32 images on, four of five others stay within the values that these have."""
    assert "only 1 image: its values are all" in (few_images(1) or "") and "counted on it tells" in (few_images(1) or "")
    assert "only 31 images: their values are all" in (few_images(31) or "") and few_images(32) is None


@pytest.mark.parametrize("name", runtimes("openvino"))
def test_int8_stands_beside_the_proved_file(forgiving: Source, made: Any, name: str, tmp_path: Path) -> None:
    """The sigmoids, the decoding and attention stay in fp32; detections are compared by the runtime itself.

    With a file of the same runtime open in this process, whose threads a fork would lack. Boxes move by 0.08 pixels and scores
    by 0.008; with the decoding or the gate in int8, by 0.2 pixels, and with a constant for the gate by 0.5 and 0.05.
    """
    busy = Detector(made(name).path, threads=4)
    busy(np.zeros((1, 3, 64, 96), np.float32))
    pictures = drawn_images(3, seed=3)
    target = tmp_path / f"best{table.suffix_of(name)}"
    lines: list[str] = []
    result = export_source(forgiving, Asked(name, imgsz=[64, 96], int8=pictures, output=target).checked(), lines.append)
    small = Path(result.report["int8"]["path"])
    reports = [result.report_path.name, f"{small.name}.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([small.name, result.path.name, *reports])
    assert small.name == f"best_int8{table.suffix_of(name)}" and result.report["proof"]["passed"]
    near = result.report["int8"]
    assert near["bytes"] < 0.45 * result.report["bytes"] and near["calibrated_on"] == 3
    assert sum("calibrated on only 3 images" in line for line in lines) == 1
    assert near["found"] > 200 and near["same_iou_0.5"] >= 0.98 * near["found"] and near["extra"] <= 0.02 * near["found"]
    boxes, scores = moved(Detector(target, threads=1), Detector(small, threads=1), base.Job(forgiving, (64, 96), pictures=pictures))
    assert 0 < boxes < 0.14 and scores < 0.015
    text = next(small.glob("*.xml")).read_text(encoding="utf-8")
    assert "FakeQuantize" in text
    # what loses most, in paths of the network; attention is not among them
    worst = [row["layer"] for row in near["layers"]]
    assert len(worst) == 5 and all(forgiving.model.get_submodule(name) is not None for name in worst)
    assert not set(worst) & {f"{p}.{n}" for p in attention_in(forgiving.model) for n in ("fc1", "fc2")}
    convolutions = sum(isinstance(m, nn.Conv2d) for m in forgiving.model.modules())
    assert near["fp32"] == 2 + 1 and near["quantized"] == convolutions - 3  # the gate's two, and that of the distribution


@pytest.mark.parametrize("name", runtimes("tflite"))
def test_int8_of_litert_keeps_attention_and_decoding(source: Source, made: Any, name: str, tmp_path: Path) -> None:
    target = tmp_path / "best.tflite"
    shutil.copy(made(name).path, target)
    small, job = quantized(source, target, tmp_path)
    about = json.loads((tmp_path / "work" / litert_int8.ABOUT).read_text())
    before, after = (list(litert_int8.read_operators(p.read_bytes())) for p in (target, small))
    assert about["quantized"] + about["fp32"] == len(before) and about["quantized"] > 2 * about["fp32"]
    assert small.stat().st_size < 0.45 * target.stat().st_size and Detector(small).names[79] == "thing79"
    for path in attention_in(source.model):
        inside = litert_int8.within(source.model, path)
        gates = [[op.kind for op in ops if inside.search(litert_int8.own(op.scope))] for ops in (before, after)]
        assert {"CONV_2D", "LOGISTIC", "MEAN", "MUL"} == set(gates[0])
        n = len(gates[0])  # nothing is rounded in between, and the result once for each who takes it
        assert gates[1][:n] == gates[0] and set(gates[1][n:]) == {"QUANTIZE"}
    _, operators, kept = litert_int8.chosen(job)
    found = dict(litert_int8.of_layers(source.model, operators))
    assert all(found[path] for path in found) and len(found) == 28 + 6 + 1
    filters = {path: {operators[k].filters for k in found[path]} - {0} for path in found if ".cv" in path}
    assert filters == {f"model.28.cv{n}.{k}": {64 if n == 2 else 80} for n in (2, 3) for k in range(3)}  # boxes, scores
    last = [op.scope for k, op in enumerate(operators) if k in kept and op.kind == "CONV_2D"]
    assert len(last) == 6 + 1 + 2 * 4  # the head's, that of the distribution focal loss, the gates'


@pytest.mark.parametrize("name", runtimes("tflite"))
def test_int8_of_litert_finds_what_fp32_finds(forgiving: Source, name: str, tmp_path: Path) -> None:
    """And the layers that lose most are named: first the one whose ranges are far too wide.

    With the decoding in int8, as the host has it, boxes move by 0.38 pixels, in the kit's file by 0.1.
    """
    source = forgiving
    target = quiet(source, format=name, output=tmp_path / "best.tflite").path
    small, job = quantized(source, target, tmp_path)
    full, rounded = (Detector(p, threads=1) for p in (target, small))
    near = agreement(full, rounded, job.pictures or [], (64, 96))
    assert near["same_iou_0.5"] == near["found"] > 200 and near["extra"] == 0 and near["same_iou_0.9"] > 0.85 * near["found"]
    boxes, scores = moved(full, rounded, job)
    assert 0 < boxes < 0.2 and scores < 0.02

    stored = tmp_path / "work" / litert_int8.RANGES
    ranges = pickle.loads(stored.read_bytes())
    wide = litert_int8.within(source.model, "model.3.conv")  # what its activation takes: no other layer does
    inside = [tensor for tensor in ranges if wide.search(litert_int8.own(tensor))]
    assert inside
    for tensor in inside:
        ranges[tensor] = {k: v * 1000 for k, v in ranges[tensor].items()}
    stored.write_bytes(pickle.dumps(ranges))
    place = tmp_path / "layers"
    place.mkdir()
    lost = json.loads(apart.convert_apart(litert_int8.losses, place, "LiteRT's quantizer", job, tmp_path / "work").read_text())
    assert [row["layer"] for row in lost if row["error"] > 0.1] == ["model.3"] and lost[0]["type"] == "Conv", lost
    branches = {f"model.4.cv{n}.{k}" for n in (2, 3) for k in range(2)}
    assert {row["layer"] for row in lost} == {"model.0", "model.1", "model.3", *branches}  # not the attention, model.2


def quantized(source: Source, target: Path, folder: Path) -> tuple[Path, base.Job]:
    """Write LiteRT's int8 file below `folder`, and return it with the job."""
    job = base.Job(source, (64, 96), pictures=drawn_images(3, seed=3), proved=target)
    (folder / "work").mkdir()
    return apart.convert_apart(litert_int8.quantize, folder / "work", "LiteRT's quantizer", job), job


def test_what_decodes_is_found_backwards() -> None:
    """Up to the last convolutions, and through that of the distribution focal loss; a branch of one class ends there too."""
    chain = [("CONV_2D", (0,), 64), ("LOGISTIC", (1,), 0), ("CONV_2D", (2,), 64), ("SOFTMAX", (3,), 0), ("CONV_2D", (4,), 1)]
    chain += [("CONV_2D", (1,), 1), ("LOGISTIC", (6,), 0), ("CONCATENATION", (5, 7), 0)]
    operators = [litert_int8.Operator(kind, f"{k}", taken, (k + 1,), filters) for k, (kind, taken, filters) in enumerate(chain)]
    assert litert_int8.decoding(operators) == {2, 3, 4, 5, 6, 7}


def test_classic_detectors(classic: Classic, tmp_path: Path) -> None:  # noqa: F811
    """Converted by the kit itself, proved and run: in a process of its own, as the host is."""
    formats = [name for name in ("torchscript", "openvino", "rknn", "tflite") if INSTALLED[name] or (IN_CI and name in EVERYWHERE)]
    code = """
    {host}
    import os, sys, json, torch, numpy as np
    from yolo_attn.cli import main
    from yolo_attn.detectors.opening import open_source
    from yolo_attn.runtime.session import Detector
    from yolo_attn.weights.attention import attention_in
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = yolo.Model(sys.argv[1], ch=3, nc=3)
    with torch.no_grad():
        gates = [model.get_submodule(p) for p in attention_in(model)]
        for p in (p for gate in gates for p in gate.parameters()):
            p += 0.3 * torch.randn_like(p)
        for conv in model.model[-1].m:  # candidates enough to compare
            conv.bias.normal_(0.0, 0.5)
    torch.save({"model": model, "ema": None, "epoch": -1, "opt": {"imgsz": 64}}, "best.pt")
    assert main(["export", "best.pt", "--format", sys.argv[2], "--imgsz", "64", "96"]) == 0
    os.mkdir("other")
    assert main(["export", "best.pt", "--format", "coreml,torchscript", "-o", "other"]) == 1
    with open("other/best.torchscript.json") as file:
        assert json.load(file)["imgsz"] == [64, 64]  # as trained
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96)).astype(np.float32) / 255  # an NPU takes bytes
    with torch.inference_mode():
        want = open_source("best.pt").model.float().eval()(torch.from_numpy(x))[0].numpy()
    for name in sys.argv[2].split(","):
        path = "best." + name if name in ("torchscript", "tflite") else f"best_{name}_model"
        with open(path + ".json") as file:
            report = json.load(file)
        detector = Detector(path, threads=1)
        near = 1e-2 if report["precision"] == "fp32" else 2.0  # pixels
        print("SEEN", name, len(gates), report["host"], report["proof"]["passed"], report["attention"], detector.layout or "later",
              sum(r["detections"]["compared"] for r in report["proof"]["runs"]) > 10, bool(np.abs(detector(x) - want).max() < near))
    """
    body = textwrap.dedent(code).replace("{host}", classic.imports)
    out = classic.python(body, str(find.configs_folder() / "yolov5n_se.yaml"), ",".join(formats), cwd=tmp_path).ok()
    seen = [line.split() for line in out.splitlines() if line.startswith("SEEN")]
    assert [s[1] for s in seen] == formats
    for line in seen:
        assert line[3:5] == ["yolov5", "True"] and "SEAttention" in " ".join(line) and line[-2:] == ["True", "True"], line


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (lambda boxes, masks: [boxes, masks], 0, "proved: equal to PyTorch"),
        (lambda boxes, masks: [masks, boxes], 0, "proved: equal to PyTorch"),  # by name, in no order
        (lambda boxes, masks: [boxes], 1, "no output has the shape"),
        (lambda boxes, masks: [boxes, masks * 1.01], 1, "output 1 differ by"),
        (lambda boxes, masks: [boxes + np.eye(6)[5][None, :, None] * 0.01, masks], 1, "output 0 differ by"),  # a score
        (lambda boxes, masks: [], 1, "it has no output"),
    ],
)
def test_the_script_that_proves_elsewhere(change: Any, code: int, told: str, tmp_path: Path, capsys: Any) -> None:
    """Of a model for segmentation: boxes of hundreds of pixels hide no score, and no output may be missing."""
    rng = np.random.default_rng(0)
    boxes = rng.random((1, 6, 20)) * np.array([640, 640, 640, 640, 1, 1])[None, :, None]
    masks = rng.random((1, 4, 8, 8))
    np.savez(tmp_path / "e.npz", images=np.zeros((1, 8, 8, 3), np.uint8), output0=boxes, output1=masks)
    text = elsewhere.proof_script("coreml", "a.mlpackage", "e.npz", None, 1e-4, 0.99)
    space: dict[str, Any] = {"__name__": "proving", "__file__": str(tmp_path / "a.prove.py")}
    exec(compile(text, "a.prove.py", "exec"), space)
    space["run"] = lambda path, images: change(boxes, masks)
    assert space["main"]() == code and told in capsys.readouterr().out


def test_a_format_that_classic_detectors_lack_is_told_before_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installing them would not help; the message lists what there is, by the table of formats."""
    monkeypatch.setattr(several, "is_classic", lambda path: "models")
    with pytest.raises(UsageError, match=r"a.pt: --format coreml is for detectors of ultralytics.*one of onnx, openvino, .*tflite, executorch, rknn") as caught:
        export_several(tmp_path / "a.pt", ["coreml"], Asked())
    assert "one of" in str(caught.value) and "coreml" not in str(caught.value).partition("one of")[2]
    lacking = [name for name, f in table.FORMATS.items() if not f.classic]
    done = export_several(tmp_path / "a.pt", [*lacking, "coreml"], Asked())
    assert [d.format for d in done][: len(lacking)] == lacking and all("is for detectors of ultralytics" in d.problem for d in done)


# --- mAP beside PyTorch's -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnx", *RUN_HERE])
def test_map_of_a_file_is_that_of_pytorch(made: Any, labelled: Path, name: str) -> None:
    if name in table.FORMATS and table.FORMATS[name].precision != "fp32":
        pytest.skip("its fresh gates are of another detector than the labels")
    found = json.loads(made(name).report_path.read_text())["map"]
    assert found["images"] == 4 and found["data"] == str(labelled) and found["pytorch"]["mAP50-95"] > 0.3
    for figure in ("mAP50", "mAP50-95"):
        assert abs(found["file"][figure] - found["pytorch"][figure]) < 0.001


def test_a_loss_of_map_is_told(source: Source, labelled: Path) -> None:
    """PyTorch is run once for all files; boxes that are half as wide are seen."""
    network, runs = report.reference(source, end2end=False), []

    def pytorch(x: torch.Tensor) -> list[Any]:
        runs.append(x)
        return network(x)

    def narrow(x: np.ndarray) -> list[Any]:
        y = network(torch.from_numpy(x))[0].detach().numpy().copy()
        y[:, 2] *= 0.5
        return [y]

    measure, about = accuracy.Accuracy(str(labelled)), {"imgsz": [64, 96], "seconds": {}}
    for _ in range(2):
        found = measure.measure(narrow, pytorch, "anchor-free", source, about)
    assert len(runs) == 4 and about["seconds"]["map"] > 0
    told, equal = accuracy.told(found, "fp32"), accuracy.told({**found, "file": found["pytorch"]}, "fp32")
    assert len(equal) == 2 and "only 4 images" in equal[1] and equal[0].startswith(f"mAP50-95 {found['pytorch']['mAP50-95']:.4f}, PyTorch ")
    assert len(told) == 3 and found["file"]["mAP50-95"] < found["pytorch"]["mAP50-95"] - 0.1
    assert f"differs from PyTorch's by {found['file']['mAP50-95'] - found['pytorch']['mAP50-95']:+.4f}" in told[2]


def test_what_map_leaves_out_is_told(source: Source, labelled: Path, tmp_path: Path) -> None:
    """What `yolo-attn val` tells: an image that is damaged, few images, and a class of another name."""
    measure, network, layout = accuracy.Accuracy(str(labelled)), report.reference(source, end2end=False), "anchor-free"
    (tmp_path / "bad.jpg").write_text("no image", encoding="utf-8")
    split = measure._split
    measure._split = type(split)("val", [*split.files[:1], tmp_path / "bad.jpg"], ["other", *split.names[1:]])

    def run(x: np.ndarray) -> list[Any]:
        return [network(torch.from_numpy(x))[0].detach().numpy()]

    found = measure.measure(run, network, layout, source, {"imgsz": [64, 96], "seconds": {}})
    lost, few, names = found["notes"]
    assert found["images"] == 1 and lost.startswith("1 of 2 images of 'val'") and lost.endswith(str(tmp_path / "bad.jpg"))
    assert "measured on only 1 image " in few and "compared by number: 0 is other and " in names
    assert [line for line in accuracy.told(found, "fp32") if line.startswith("note: ")] == [f"note: {n}" for n in found["notes"]]


def test_what_map_cannot_be_measured_of(source: Source, labelled: Path, classifier: Source, tmp_path: Path) -> None:
    """One message, and nothing is written."""
    other = tmp_path / "data.yaml"
    other.write_text(labelled.read_text().replace("train:", f"path: {labelled.parent}\ntrain:").replace("  79: thing79\n", ""))
    for of, asked, told in (
        (source, Asked("coreml", data=labelled), "--format coreml has no --data: its file runs on macOS or iOS alone"),
        (source, Asked("bundle", data=labelled), "--format bundle has no --data"),
        (source, Asked("onnx", data=other), "has 79 classes, and yolov5n_se.yaml detects 80"),
        (classifier, Asked("onnx", data=labelled), "--data is for detectors only; .* is a model for 'classify'"),
    ):
        with pytest.raises(YoloAttnError, match=told):
            export_source(of, replace(asked, output=tmp_path).checked(), lambda line: None)
    with pytest.raises(UsageError, match="--data cannot be combined with --nms"):
        Asked(nms=True, data=labelled).checked()
    with pytest.raises(DataError, match="no.yaml"):
        Asked(data="no.yaml").checked()
    assert list(tmp_path.iterdir()) == [other]


# --- what differs is found ------------------------------------------------------------------------------------------


def other_gate(job: base.Job) -> base.Job:
    """Change an operator of the gates: a hyperbolic tangent of the sigmoid. In the converter's process, which ends."""
    cls = next(type(m) for m in job.source.model.modules() if type(m).__name__ == "SEAttention")
    own = cls.forward
    cls.forward = lambda self, x: x * (own(self, x) / (x + 1e-3)).tanh()  # type: ignore[method-assign]
    return job


def xml(path: Path) -> None:
    """Edit an OpenVINO file: the activation behind the first pooling of SE."""
    (file,) = path.glob("*.xml")
    text = file.read_text(encoding="utf-8")
    start = text.index('type="Sigmoid"', text.index('type="ReduceMean"'))
    file.write_text(text[:start] + text[start:].replace('type="Sigmoid"', 'type="Tanh"', 1), encoding="utf-8")


def param(path: Path) -> None:
    """Edit an NCNN file likewise."""
    (file,) = path.glob("*.param")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    means = ("Reduction", "Pooling")  # a pooling over the whole map has 4=1
    pooled = next(i for i, line in enumerate(lines) if line.startswith(means[0]) or (line.startswith(means[1]) and "4=1" in line))
    gate = next(i for i in range(pooled, len(lines)) if lines[i].startswith("Sigmoid"))
    lines[gate] = lines[gate].replace("Sigmoid", "TanH   ", 1)
    file.write_text("".join(lines), encoding="utf-8")


def tflite(path: Path) -> None:
    """Edit a LiteRT file likewise: the activation behind the first mean."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    with zipfile.ZipFile(path) as file:
        about = file.read("metadata.json")
    model = flatbuffer_utils.read_model(str(path))
    kinds, ops = [code.builtinCode for code in model.operatorCodes], model.subgraphs[0].operators
    first = next(k for k, op in enumerate(ops) if kinds[op.opcodeIndex] == schema.BuiltinOperator.MEAN)
    gate = next(op for op in ops[first:] if kinds[op.opcodeIndex] == schema.BuiltinOperator.LOGISTIC)
    other = schema.OperatorCodeT()
    other.builtinCode = other.deprecatedBuiltinCode = schema.BuiltinOperator.TANH
    other.version = 1
    model.operatorCodes.append(other)
    gate.opcodeIndex = len(kinds)
    flatbuffer_utils.write_model(model, str(path))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("metadata.json", about)


SIGMOID, POOLING, TANH = 4, 19, 43  # of the union XNodeUnion in ExecuTorch's schema of networks for XNNPACK


def pte(path: Path) -> None:
    """Edit an ExecuTorch file likewise: one byte, in the network for XNNPACK within its program."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from flatbuffers.table import Table

    (file,) = path.glob("*.pte")
    data = bytearray(file.read_bytes())
    begin = data.index(XNNHeader.EXPECTED_MAGIC) - 4
    header = XNNHeader.from_bytes(bytes(data[begin : begin + XNNHeader.EXPECTED_LENGTH]))
    begin += header.flatbuffer_offset
    graph = Table(data, begin + int.from_bytes(data[begin : begin + 4], "little"))
    field = graph.Offset(6)  # the operators, in the order of the network
    first = graph.Vector(field)
    kinds = []  # where the kind of each operator stands
    for k in range(graph.VectorLen(field)):
        node = Table(data, graph.Indirect(first + 4 * k))
        kinds.append(node.Pos + node.Offset(4))
    pooled = next(i for i, at in enumerate(kinds) if data[at] == POOLING)
    gate = next(at for at in kinds[pooled:] if data[at] == SIGMOID)
    data[gate] = TANH
    file.write_bytes(data)


def onnx_file(path: Path) -> None:
    """Edit what RKNN's simulator compiles likewise."""
    import onnx

    (file,) = path.glob("*.onnx")
    model = onnx.load(str(file))
    gate = next(n for n in model.graph.node if n.name == "/model.3/gate/Sigmoid")
    gate.op_type = "Tanh"
    onnx.save(model, str(file))


def torchscript(path: Path) -> None:
    """Edit a TorchScript file likewise: the code of the first gate."""
    with zipfile.ZipFile(path) as file:
        entries = {info.filename: file.read(info) for info in file.infolist()}
    # Where this process has traced a gate before, torch puts the next one's code into _base/___torch_mangle_N.py.
    name = next(n for n, code in sorted(entries.items()) if "yolo_attn/modules/_base" in n and n.endswith(".py") and b"torch.sigmoid(" in code)
    entries[name] = entries[name].replace(b"torch.sigmoid(", b"torch.tanh(", 1)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in entries.items():
            file.writestr(name, data)


def mnn(path: Path) -> None:
    """Edit an MNN file likewise: the number of the first gate's function, by the tables of the file's own format (flatbuffers)."""
    net, op, unary, sigmoid, tanh = {"ops": 3}, {"main": 2, "name": 3}, {"function": 0}, 29, 30  # from MNN's schema
    data = bytearray(path.read_bytes())

    def number(at: int, kind: str = "i") -> int:
        return int(struct.unpack_from(f"<{kind}", data, at)[0])

    def field(table: int, k: int) -> int:
        """Return the place of a table's entry."""
        return table + number(table - number(table) + 4 + 2 * k, "H")

    def follow(at: int) -> int:
        return at + number(at, "I")

    ops = follow(field(follow(0), net["ops"]))
    for k in range(number(ops)):
        node = follow(ops + 4 + 4 * k)
        text = follow(field(node, op["name"]))
        if data[text + 4 : text + 4 + number(text)] == b"/model.3/gate/Sigmoid_output_0":
            place = field(follow(field(node, op["main"])), unary["function"])
            assert number(place) == sigmoid
            struct.pack_into("<i", data, place, tanh)
            path.write_bytes(data)
            return
    raise AssertionError("the file has no such gate")


EDITS = {"openvino": xml, "ncnn": param, "mnn": mnn, "tflite": tflite, "executorch": pte, "rknn": onnx_file, "torchscript": torchscript}
PLANTED = [(name, edit, p.marks) for p in RUN_HERE for name in p.values for edit in (None, EDITS.get(str(name)))[: 1 + (name in EDITS)]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the change is to the converter's process")
@pytest.mark.parametrize(
    ("name", "edit"), [pytest.param(n, e, marks=m, id=f"{n}{'-edited' if e else ''}") for n, e, m in PLANTED]
)
def test_a_wrong_operator_is_found(
    source_for: Any, name: str, edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted in the network that is converted, or in the converted file: never under its good name, never called good.

    Of the same detector at the same size, the file without it equals PyTorch, by the first test here.
    """
    own = table.FORMATS[name]

    def changed(job: base.Job) -> Path:
        path = own.convert(job if edit else other_gate(job))
        if edit:
            edit(path)
        return path

    monkeypatch.setitem(table.FORMATS, name, replace(own, convert=changed))
    lines: list[str] = []
    target = tmp_path / f"best{own.suffix}"
    with pytest.raises(ExportError, match=r"does not match .*(differ by|are missing)") as caught:
        export_source(source_for(name), Asked(name, imgsz=[64, 96], output=target).checked(), lines.append)
    assert not any("verified" in line for line in lines)
    kept = f"best_failed{own.suffix}"
    assert kept in str(caught.value) and sorted(p.name for p in tmp_path.iterdir()) == [kept, f"{kept}.json"]
    assert json.loads((tmp_path / f"{kept}.json").read_text())["proof"]["passed"] is False


# --- crashes, and a full disk ---------------------------------------------------------------------------------------


def fake(name: str, convert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.FORMATS, name, replace(table.FORMATS[name], convert=convert, needs=()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a converter that crashes ends the export where processes do not fork")
@pytest.mark.parametrize(
    ("convert", "told"),
    [
        (lambda job: (faulthandler.disable(), os.kill(os.getpid(), signal.SIGSEGV)), r"crashed \(signal 11, SIGSEGV\) while converting"),
        (lambda job: os.kill(os.getpid(), signal.SIGKILL), r"was ended by SIGKILL, as when memory runs out while converting. Try again"),
        (lambda job: (os.write(1, b"no room\n"), os._exit(3)), "with code 3 .*printed last: no room"),
        (lambda job: sys.exit("stop"), "SystemExit: stop"),
        (lambda job: Path("model.mnn"), "reported success and wrote nothing"),
        (lambda job: Path("model.mnn").write_bytes(b"no network") and Path("model.mnn"), "does not match"),
    ],
    ids=["crash", "killed", "exit", "SystemExit", "nothing", "no network"],
)
def test_a_converter_that_crashes_is_one_message(
    source: Source, convert: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("mnn", convert, monkeypatch)
    with pytest.raises(ExportError, match=told) as caught:
        export_source(source, Asked("mnn", imgsz=64, output=tmp_path / "a.mnn").checked(), lambda line: None)
    assert "\n" not in str(caught.value) and not (tmp_path / "a.mnn").exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"a_failed.mnn", "a_failed.mnn.json"}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_runtime_that_is_killed_is_no_verdict(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of memory, say: the file is not called one that differs, and the table's tool writes no line of it."""
    (tmp_path / "draft.mnn").write_bytes(b"network")
    sys.path.insert(0, str(ROOT / "tools"))
    import deploy_matrix

    def killed(*a: Any, **k: Any) -> Any:
        raise Killed("mnn was ended by SIGKILL on this file")

    found: dict[str, Any] = {"precision": "fp32", "seconds": {}, "nms": False, "dynamic": False, "imgsz": [64, 64]}
    places = {"target": tmp_path / "a.mnn", "failed": tmp_path / "a_failed.mnn"}
    more: Any = {"images": None, "tolerance": 1e-4, "log": print, "publish": write.move, "opened": killed, **places}
    with pytest.raises(Killed, match="a.mnn: was not compared, and nothing was written: mnn was ended by SIGKILL"):
        report.prove(tmp_path / "draft.mnn", found, source, **more)
    assert [p.name for p in tmp_path.iterdir()] == ["draft.mnn"]
    monkeypatch.setattr(deploy_matrix, "export_source", killed)
    with pytest.raises(Killed):
        deploy_matrix.try_one(source, "SEAttention", "mnn", "fp32", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_runtime_that_crashes_is_one_message(made: Any) -> None:
    with Apart(made("torchscript").path, "torchscript") as network:
        os.kill(network._process.pid, signal.SIGTERM)
        with pytest.raises(Killed, match="torchscript was ended by SIGTERM on this file, of which nothing is known. Try again"):
            network(np.zeros((1, 3, 64, 96), np.float32))
    with Apart(made("torchscript").path, "torchscript") as network:
        os.kill(network._process.pid, signal.SIGSEGV)
        with pytest.raises(Died, match=r"torchscript crashed \(signal 11, SIGSEGV\) on this file"):
            network(np.zeros((1, 3, 64, 96), np.float32))


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk_leaves_nothing(made: Any, tmp_path: Path, python: Any) -> None:
    out = python(
        """
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        from yolo_attn.errors import YoloAttnError
        from yolo_attn.export.single import export
        sys.dont_write_bytecode = True  # Python before 3.12 leaves a cut file, which the next process reads
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, -1))
        try:
            export("yolov5n_se.yaml", imgsz=64, format="torchscript", output="x.torchscript", log=lambda line: None)
        except YoloAttnError as exc:
            print("one message:", exc)
        """
    ).ok()
    assert out.count("one message:") == 1 and len(out.splitlines()) == 1
    assert "frame #" not in out and out.strip().endswith("Files may have 3 MB at most in this process (ulimit -f): raise that limit")
    assert list(tmp_path.iterdir()) == []


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_a_package_that_is_missing_or_too_old(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before the checkpoint is opened, with the extra that brings it; nothing is installed."""
    found = {"openvino": "2023.1.0", "nncf": "3.0", "rknn-toolkit2": "2.3.2", "onnx": "1.20.0", "numpy": "1.26.4", "setuptools": "80"}

    def version(name: str) -> str:
        if name not in found:
            raise base.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(base.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for name, words in (
        ("openvino", r"openvino 2024.0 or later, and 2023.1.0 is installed"),
        ("ncnn", "ncnn, which is not installed; pnnx, which is not installed"),
        ("tflite", "litert-torch, which is not installed"),
        ("rknn", "needs onnx below 1.19, and 1.20.0 is installed. "),
    ):
        with pytest.raises(ExportError, match=words) as caught:
            Asked(name).checked()
        assert f'pip install "yolo_attn[{table.FORMATS[name].extra}]"' in str(caught.value)


@pytest.mark.parametrize("name", [*table.FORMATS, "bundle"])
def test_what_a_format_has_not_is_told_before_its_packages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing them would not help."""
    monkeypatch.setattr(base.metadata, "version", lambda package: (_ for _ in ()).throw(base.metadata.PackageNotFoundError(package)))
    kind = table.FORMATS.get(name)
    offered = {"half": bool(kind and kind.half), "int8": bool(kind and kind.int8), "dynamic": bool(kind and kind.dynamic)}
    offered.update(nms=False, simplify=False, opset=bool(kind and kind.onnx), data=bool(kind and kind.runtime))
    values = {"int8": ".", "simplify": False, "opset": 17, "data": "none.yaml"}
    lacking = {option: values.get(option, True) for option, has in offered.items() if not has}
    assert len(lacking) >= 2
    for option, value in lacking.items():
        flag = "--no-simplify" if option == "simplify" else f"--{option}"
        for ask in (lambda a: a.checked(), lambda a: export_several("none.pt", [name], a)):
            with pytest.raises(UsageError, match=f"--format {name} has no {flag}|--int8 cannot be combined.*bundle"):
                ask(Asked(name, **{option: value}))  # type: ignore[arg-type]
    if kind is not None and kind.needs:
        with pytest.raises(ExportError, match="which is not installed"):
            Asked(name).checked()


def test_of_several_formats_each_tells_what_it_lacks() -> None:
    """In the order in which they were asked for, with nothing opened or read."""
    done = export_several("none.pt", ["executorch", "torchscript", "coreml"], Asked(int8="nowhere", data="none.yaml"))
    assert [d.problem.partition(",")[0] for d in done] == [f"--format {d.format} has no --int8" for d in done]
    assert [d.format for d in done] == ["executorch", "torchscript", "coreml"]


@pytest.mark.parametrize("given", [{"int8": "."}, {"data": "none.yaml"}])
def test_what_is_for_detectors_alone_is_told_before_packages(classifier: Source, given: dict[str, Any], monkeypatch: Any) -> None:
    """Which task a checkpoint is of is known once it is open."""
    kind = replace(table.FORMATS["openvino"], needs=(base.Need("no_such_module", "no-such-package"),))
    monkeypatch.setitem(table.FORMATS, "openvino", kind)
    with pytest.raises(UsageError, match="is for detectors only"):
        export_source(classifier, Asked("openvino", **given).checked(), lambda line: None)
    with pytest.raises(ExportError, match="no-such-package, which is not installed"):
        Asked("openvino").checked()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["export", "a.pt", "--format", ","], "--format names none, choose from onnx, "),
        (["bench", "a.yaml", "--format", " "], "--format names none"),
        (["bench", "a.yaml", "--format", "onnx,coreml"], "--format coreml: nothing here runs what it writes, choose from onnx, "),
        (["bench", "a.yaml", "--format", "bundle"], "--format bundle: nothing here runs"),
        (["export", "a.pt", "--tolerance", "0"], "--tolerance must be a number above 0, got 0.0"),
        (["export", "a.pt", "--tolerance", "nan"], "--tolerance must be"),
        (["detect", "a.onnx", "--source", "b.png", "--threads", "-1"], "--threads must be at least 0"),
    ],
)
def test_options_that_can_do_nothing(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Known before a file is opened: exit code 2 and one line, where it would be silence or an hour for nothing."""
    from yolo_attn.cli import main

    assert main(argv) == 2
    assert told in capsys.readouterr().err


def test_pictures_of_no_bytes(tmp_path: Path) -> None:
    """A cut download is named, as one that is no picture is."""
    for name, data in (("a.jpg", b""), ("b.jpg", b"text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: is not an image"):
            read_images(tmp_path / name)
        with pytest.raises(DataError, match=f"can be used: .*{name}: cannot be read"):
            list(Split("val", [tmp_path / name], ["a"]).images())


ONE = "0 0.5 0.5 0.2 0.2"


@pytest.mark.parametrize(("label", "side", "counts"), [(ONE, 16, True), (ONE, 8, False), ("", 16, False), (f"1{ONE[1:]}", 16, False)])
def test_labels_that_measure_nothing(label: str, side: int, counts: bool, tmp_path: Path) -> None:
    """Of no object, of classes that the detector lacks, of an image too small: a mAP of 0.000 on both sides would look like a measurement."""
    source: Any = type("Source", (), {"names": {0: "cell"}})()
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.jpg"), np.zeros((side, side, 3), np.uint8))
    (tmp_path / "labels" / "a.txt").write_text(label)
    assert (labelled_images(tmp_path / "images", source) is not None) == counts


def test_what_is_in_the_way_of_a_file(source: Source, tmp_path: Path) -> None:
    """Told before the conversion."""
    (tmp_path / "a.onnx").mkdir()
    (tmp_path / "a_openvino_model").write_text("years of work")
    for format, name, told in (("onnx", "a.onnx", "it is a folder"), ("openvino", "a_openvino_model", "it is no folder")):
        with pytest.raises(FileError, match=f"{name}: is in the way: {told}. Move it away"):
            export_source(source, Asked(format, imgsz=64, output=tmp_path / name), lambda line: pytest.fail(line))


def test_a_folder_of_the_users_is_not_replaced(source: Source, made: Any, tmp_path: Path) -> None:
    target = tmp_path / "best_openvino_model"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    move = write.move
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "model.xml").write_text("new")
    with pytest.raises(FileError, match="in the way: it holds thesis.txt"):
        move(table.FORMATS["openvino"], draft, target)
    assert (target / "thesis.txt").read_text() == "years of work" and draft.is_dir()
    (target / "thesis.txt").rename(target / "model.xml")
    move(table.FORMATS["openvino"], draft, target)
    assert (target / "model.xml").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["best_openvino_model"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "bundle", "half": True, "dynamic": True}, "bundle has no --half and --dynamic: it holds the weights"),
        ({"format": "bundle", "opset": 17}, "bundle has no --opset"),
        ({"format": "torchscript", "opset": 17}, "torchscript has no --opset, only --dynamic"),
        ({"format": "torchscript", "simplify": False}, "torchscript has no --no-simplify"),
        ({"format": "torchscript", "half": True}, "torchscript has no --half"),
    ],
)
def test_an_option_that_a_format_lacks_is_refused(
    source: Source, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """None is left out in silence."""
    with pytest.raises(UsageError, match=told):
        quiet(source, output=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
    asked = {"half": False, "int8": True, "dynamic": False, "nms": False}
    with pytest.raises(UsageError, match="executorch has no --int8, and none of --half, --dynamic, --opset$"):
        base.check_options(table.FORMATS["executorch"], **asked)


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        (lambda x: [], "1x3x32x32 it has no output"),
        (lambda x: [x.reshape(1, 3, -1)], "it has 1 outputs, PyTorch's network has 2"),  # prototypes of masks are lost
        (lambda x: [x.reshape(1, 3, -1), x, x], "it has 3 outputs"),
        (lambda x: [x, x.reshape(1, 3, -1)], r"output 0 has the shape \[1, 3, 32, 32\], PyTorch's has \[1, 3, 1024\]"),
        (lambda x: [x.reshape(1, 3, -1), x + 1], None),
        (lambda x: [x.reshape(1, 3, -1), x * np.nan], None),
        (lambda x: [x.reshape(1, 3, -1), x], ""),
    ],
)
def test_every_output_is_compared(outputs: Any, told: str | None) -> None:
    """Of tasks with several: one that is missing, another order, another shape, other values."""

    def compared() -> list[dict[str, Any]]:
        return list(proof.compare(lambda x: [x.flatten(2), x], outputs, drawn_images(1), [(1, 32, 32)], tolerance=1e-4, layout=None))

    if told:
        with pytest.raises(ExportError, match=told):
            compared()
    else:
        assert compared()[0]["equal"] is (told == "")


@pytest.mark.parametrize("shapes", [[(4, 4), (8, 8)], [(8, 8), (4, 4)]])
def test_the_prototypes_are_told_from_the_raw_maps(shapes: list[tuple[int, int]]) -> None:
    """In whatever order a version of the host returns them: their map is the largest."""

    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x.flatten(2), ([torch.zeros(1, 2, *s) for s in shapes], {"raw": x.flatten(1)})

    def kept(task: str) -> list[tuple[int, ...]]:
        run = report.reference(Source(Path("a.pt"), "ultralytics", Network(), task), end2end=False)
        return [tuple(t.shape) for t in run(torch.zeros(1, 3, 2, 2))]

    assert kept("segment") == [(1, 3, 4), (1, 2, 8, 8)] and kept("pose") == [(1, 3, 4)]


def test_messages_of_runtimes_are_those_that_say_something() -> None:
    long = "Exception from src/core.cpp:84:\nCheck 'a(b, c)' failed at src/util.cpp:900:\nIncorrect weights in bin file!\n"
    assert str(refused(Path("x"), "OpenVINO 1", "load it", RuntimeError(long))).endswith("load it: Incorrect weights in bin file!")
    wrapped = SystemError("<built-in function f> returned a result with an exception set")
    wrapped.__cause__ = RuntimeError("load failed")
    assert str(refused(Path("x"), "MNN 1", "load it", wrapped)).endswith("load it: load failed")
    assert str(refused(Path("x"), "MNN 1", "load it", ValueError())).endswith("load it: ValueError")


@pytest.mark.parametrize("name", runtimes("ncnn"))
def test_ncnn_without_its_metadata_is_refused(made: Any, name: str, tmp_path: Path) -> None:
    """NCNN runs a network of one size at every other one, and computes other boxes."""
    folder = tmp_path / "moved_ncnn_model"
    shutil.copytree(made(name).path, folder)
    (folder / "metadata.yaml").unlink()
    with pytest.raises(FileError, match="metadata.yaml is missing, or does not tell the input size"):
        Detector(folder)


def test_litert_without_its_metadata_is_refused(tmp_path: Path) -> None:
    """Boxes are pixels or fractions of the image size, and nothing else tells which."""
    path = tmp_path / "a.tflite"
    path.write_bytes(b"TFL3" * 100)
    with pytest.raises(FileError, match=r"metadata.json at its end is missing or damaged \(File is not a zip file\)"):
        litert._metadata(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("metadata.json", '{"stride": 32}')
    assert litert._metadata(path) == {"stride": "32"}
    data = bytearray(path.read_bytes())
    data[data.index(b'"stride"')] ^= 255
    path.write_bytes(data)
    with pytest.raises(FileError, match="damaged .*CRC"):
        litert._metadata(path)


def test_files_that_detect_cannot_run(tmp_path: Path) -> None:
    for name, words in (
        ("a.bundle", "weights that PyTorch runs.*yolo-attn export .*a.bundle"),
        ("a.engine", "TensorRT engine"),
        ("a.mlpackage", "runs on macOS"),
        ("a_rknn_model", "Rockchip"),
        ("a_openvino_model", "should hold one"),
        ("a_ncnn_model", "should hold one"),
        ("a.mnn", "is a folder, not a file"),
        ("a.weights", "no ONNX file by its name"),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(FileError, match=words):
            Detector(tmp_path / name)
    (tmp_path / "a.mnn").rmdir()
    (tmp_path / "a.mnn").write_bytes(b"no network")
    with pytest.raises(UsageError, match="OpenCV does not open such files; --runtime mnn does"):
        Detector(tmp_path / "a.mnn", runtime="opencv")
