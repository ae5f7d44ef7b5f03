"""Every format is run by its own runtime and compared with PyTorch; what differs, crashes or is missing is one message."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import CALM, open_source
from yolo_attn.detectors.source import Source
from yolo_attn.export.formats import table
from yolo_attn.export.onnx import Asked, export_source
from yolo_attn.runtime.boxes import iou_matrix
from yolo_attn.runtime.predict import predict
from yolo_attn.runtime.session import Detector

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


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lively(source: Source) -> Source:
    """A detector whose detections are many and whose gates are not those of the first step: fresh weights, perturbed."""
    torch.manual_seed(0)
    for m in source.model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_var /= CALM
    head = source.model.model[-1]
    for scores, boxes in zip(head.cv3, head.cv2):
        nn.init.normal_(scores[-1].bias, -1.5, 0.3)
        scores[-1].weight.data *= 0.5
        boxes[-1].bias.data = -torch.arange(16.0).repeat(4)  # small boxes: distances near 0
    source.model.names = {i: f"thing{i}" for i in range(80)}
    return source


@pytest.fixture(scope="module")
def source() -> Source:
    return lively(open_source("yolov5n_se.yaml"))


@pytest.fixture(scope="module")
def made(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each format's file at 64 x 96, written once; as a function."""
    folder, kept = tmp_path_factory.mktemp("formats"), {}

    def get(name: str) -> Any:
        if name not in kept:
            asked = Asked(format=name, imgsz=[64, 96], output=folder / f"best{table.suffix_of(name)}").checked()
            kept[name] = export_source(source, asked, lambda line: None)
        return kept[name]

    return get


def quiet(source: Source, **options: Any) -> Any:
    return export_source(source, Asked(imgsz=[64, 96], **options).checked(), lambda line: None)


# --- proved ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_file_is_run_by_its_runtime_and_equals_pytorch(made: Any, name: str) -> None:
    result = made(name)
    report = json.loads(result.report_path.read_text())
    assert report["sha256"] == result.report["sha256"] and report["path"] == str(result.path)
    assert report["proof"]["passed"] and report["proof"]["largest_difference"] <= 1e-4
    assert sum(r["detections"]["compared"] for r in report["proof"]["runs"]) > 50
    assert report["versions"][table.FORMATS[name].runtime] and report["attention"] == {"SEAttention": 4}
    assert [p.name for p in result.path.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", RUN_HERE)
def test_detect_finds_with_it_what_it_finds_with_onnx(made: Any, name: str) -> None:
    detectors = [Detector(made(n).path, threads=1) for n in ("onnx", name)]
    assert detectors[1].runtime == table.FORMATS[name].runtime and detectors[1].size == (64, 96)
    assert detectors[1].names[79] == "thing79" and detectors[1].stride == 32
    images = [im[:301, :453] for im in drawn_images(3, seed=5)]
    for a, b in zip(*(predict(d, images) for d in detectors)):
        same = (iou_matrix(a[:, :4], b[:, :4]) > 0.99) & (a[:, None, 5] == b[None, :, 5])
        # The runtimes' last bits can tip a pair of boxes at NMS's limit, among more than a hundred of a random model.
        assert len(a) > 10 and same.any(0).mean() >= 0.97 and same.any(1).mean() >= 0.97
        np.testing.assert_allclose(a[same.any(1), 4], b[same.argmax(1)[same.any(1)], 4], atol=1e-3)
