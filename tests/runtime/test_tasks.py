"""Masks, key points, oriented boxes and classes of pictures: as the host's `predict` has them, from the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from ultralytics.engine.results import Results
from ultralytics.utils import nms, ops

from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.errors import FileError
from yolo_attn.runtime.image import letterbox
from yolo_attn.runtime.output import outlined
from yolo_attn.runtime.predict import look
from yolo_attn.runtime.session import Detector
from yolo_attn.runtime.tasks import class_input

CLASSES, POINTS, SIZE = 3, (5, 3), (96, 128)
IMAGE = drawn_images(1, seed=5)[0][:301, :453]
LIMITS: dict[str, Any] = {"conf": 0.3, "iou": 0.5}
EXTRA = {"segment": 8, "pose": 15, "obb": 1}


def numbers(task: str) -> list[np.ndarray]:
    """Outputs of a network of 200 candidates, many of which overlap."""
    rng = np.random.default_rng(0)
    middle = rng.uniform((10, 20), (118, 76), (200, 2))
    middle[100:] = middle[:100] + rng.normal(0, 2, (100, 2))
    sides = rng.uniform(6, 40, (200, 2))
    sides[100:] = sides[:100] * rng.uniform(0.8, 1.25, (100, 2))
    scores = rng.uniform(0, 1, (200, CLASSES)) ** 4
    more = rng.normal(size=(200, EXTRA[task]))
    if task == "pose":
        more = more.reshape(200, *POINTS) * (9, 9, 1) + np.concatenate((middle, np.zeros((200, 1))), 1)[:, None]
    main = np.concatenate((middle, sides, scores, more.reshape(200, -1)), 1).T[None].astype(np.float32)
    return [main, rng.normal(size=(1, EXTRA[task], 24, 32)).astype(np.float32)] if task == "segment" else [main]


def written(path: Path, outputs: list[np.ndarray], task: str, **more: str) -> Path:
    """A file whose outputs are constants, whatever the picture."""
    h, w = SIZE
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0), helper.make_node("Sub", ["mean", "mean"], ["none"])]
    nodes += [helper.make_node("Add", [f"value{k}", "none"], [f"output{k}"]) for k in range(len(outputs))]
    values = [numpy_helper.from_array(y, f"value{k}") for k, y in enumerate(outputs)]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, h, w])
    ends = [helper.make_tensor_value_info(f"output{k}", TensorProto.FLOAT, list(y.shape)) for k, y in enumerate(outputs)]
    graph = helper.make_graph(nodes, "g", [images], ends, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    names = {i: f"thing{i}" for i in range(CLASSES)}
    about = {"task": task, "names": str(names), "stride": "32", **({"kpt_shape": str(list(POINTS))} if task == "pose" else {})}
    helper.set_model_props(model, {**about, **more})
    onnx.save(model, str(path))
    return path


def hosts(task: str, outputs: list[np.ndarray]) -> tuple[np.ndarray, Any]:
    """Boxes and what the task adds, by the host's own functions."""
    more: Any
    main = torch.from_numpy(outputs[0].copy())
    rotated = task == "obb"
    (found,) = nms.non_max_suppression(main, LIMITS["conf"], LIMITS["iou"], nc=CLASSES, rotated=rotated)
    shape = IMAGE.shape
    if rotated:
        boxes = torch.cat((found[:, :4], found[:, -1:]), 1)
        boxes[:, :4] = ops.scale_boxes(SIZE, boxes[:, :4], shape, xywh=True)
        told = Results(IMAGE, "", {}, obb=torch.cat((boxes, found[:, 4:6]), 1)).obb
        return found.numpy(), (told.xywhr.numpy(), told.xyxyxyxy.numpy())
    if task == "segment":
        masks = ops.process_mask(torch.from_numpy(outputs[1][0]), found[:, 6:], found[:, :4], SIZE, upsample=True)
        kept = masks.amax((-2, -1)) > 0  # as the host's predictor
        found, more = found[kept], masks[kept].numpy()
    else:
        more = ops.scale_coords(SIZE, found[:, 6:].view(-1, *POINTS).clone(), shape).numpy()
    boxes = found[:, :6].clone()
    boxes[:, :4] = ops.scale_boxes(SIZE, boxes[:, :4], shape)
    return boxes.numpy(), more


@pytest.mark.parametrize("task", EXTRA)
@pytest.mark.parametrize("layout", ["anchor-free", "anchor-based"])
def test_equal_to_the_host(task: str, layout: str, tmp_path: Path) -> None:
    outputs = numbers(task)
    want, more = hosts(task, outputs)
    if layout == "anchor-based":  # as classic YOLOv5's segmentation
        if task != "segment":
            pytest.skip("no host has it")
        rows = outputs[0][0].T
        outputs[0] = np.insert(rows, 4, 1, 1)[None]
    detector = Detector(written(tmp_path / "a.onnx", outputs, task))
    (seen,) = look(detector, [IMAGE], **LIMITS)
    assert detector.task == task and detector.layout == layout and 20 < len(seen.boxes) < 150
    assert len(seen.boxes) == len(want) == len(seen.fields)
    if task == "obb":
        np.testing.assert_allclose([f["xywhr"] for f in seen.fields], more[0], atol=1e-2)
        np.testing.assert_allclose([f["corners"] for f in seen.fields], more[1], atol=2e-2)
        np.testing.assert_allclose(seen.boxes[:, 4:], want[:, 4:6], atol=1e-6)
        around = np.asarray([f["corners"] for f in seen.fields])
        inside = np.concatenate((around.min(1), around.max(1)), 1).clip(0, [453, 301, 453, 301])
        np.testing.assert_allclose(seen.boxes[:, :4], inside, atol=2e-2)
        return
    np.testing.assert_allclose(seen.boxes, want, atol=1e-3)
    if task == "pose":
        np.testing.assert_allclose([f["keypoints"] for f in seen.fields], more, atol=1e-2)
        return
    _, fit = letterbox(IMAGE, SIZE)
    for told, mask in zip(seen.fields, more):
        drawn = np.zeros(SIZE, np.uint8)
        for polygon in told["polygons"]:
            back = np.asarray(polygon) * (fit.gain_x, fit.gain_y) + (fit.left, fit.top)
            cv2.fillPoly(drawn, [np.round(back).astype(np.int32)], 1)
        # an outline leaves out the holes of a mask, and a picture's edge cuts off what lies in the padding
        inside = np.zeros(SIZE, bool)
        inside[fit.top : fit.top + round(301 * fit.gain_y), fit.left : fit.left + round(453 * fit.gain_x)] = True
        assert (drawn[inside] >= mask[inside]).all()


def test_suppression_and_classes_of_oriented_boxes(tmp_path: Path) -> None:
    detector = Detector(written(tmp_path / "a.onnx", numbers("obb"), "obb"))
    counts = [len(look(detector, [IMAGE], conf=0.3, iou=iou)[0].boxes) for iou in (0.1, 0.5, 0.99)]
    assert counts[0] < counts[1] < counts[2]
    (some,) = look(detector, [IMAGE], **LIMITS, classes=[1], max_det=4)
    assert len(some.boxes) == 4 and set(some.boxes[:, 5]) == {1}
    (fewer,) = look(detector, [IMAGE], **LIMITS, agnostic=True)
    assert len(fewer.boxes) < counts[1]
    (none,) = look(detector, [IMAGE], conf=1.0)
    assert none.boxes.shape == (0, 6) and none.fields == []


def test_end_to_end_heads(tmp_path: Path) -> None:
    """Their rows are x1 y1 x2 y2 (oriented: x y w h), confidence, class, and what the task adds; nothing is suppressed."""
    row = [40.0, 30.0, 20.0, 10.0, 0.9, 2.0, 0.5]
    detector = Detector(written(tmp_path / "a.onnx", [np.array([[row, row, [0.0] * 7]], np.float32)], "obb", end2end="True"))
    (seen,) = look(detector, [IMAGE])
    assert detector.layout == "final" and len(seen.boxes) == 2 and seen.boxes[0, 5] == 2
    assert seen.fields[0]["xywhr"][4] == pytest.approx(0.5)


def test_a_classifier(tmp_path: Path) -> None:
    from ultralytics.data.augment import classify_transforms

    detector = Detector(written(tmp_path / "a.onnx", [np.array([[0.2, 0.7, 0.1]], np.float32)], "classify"))
    assert look(detector, [IMAGE])[0].scores.tolist() == pytest.approx([0.2, 0.7, 0.1])
    from PIL import Image

    for image in (IMAGE, IMAGE.transpose(1, 0, 2)):
        for size in ((64, 64), SIZE):
            want = classify_transforms(size if size[0] != size[1] else size[0])(Image.fromarray(np.ascontiguousarray(image[..., ::-1])))
            got = class_input(image, size)[..., ::-1].transpose(2, 0, 1) / np.float32(255)
            np.testing.assert_allclose(got, want.numpy(), atol=1e-6)
    wrong = Detector(written(tmp_path / "b.onnx", [np.zeros((1, 7), np.float32)], "classify"))
    with pytest.raises(FileError, match=r"no classifier of 3 classes: its output has the shape \[1, 7\]"):
        look(wrong, [IMAGE])


@pytest.mark.parametrize(
    ("task", "more", "told"),
    [
        ("depth", {}, "is a model for 'depth'; detect knows those for detect, segment, pose, obb, classify"),
        ("pose", {"kpt_shape": ""}, "its metadata 'kpt_shape' is .*, not the number of key points"),
        ("segment", {"names": ""}, "its metadata has no class names, by which the output of a model for 'segment' is read"),
        ("segment", {}, "it has no prototypes of masks"),
        ("obb", {}, r"is no model for 'obb' of 3 classes: its output has the shape \[1, 9, 200\]"),
    ],
)
def test_files_that_are_not_what_they_say(task: str, more: dict[str, str], told: str, tmp_path: Path) -> None:
    main = np.zeros((1, 9, 200), np.float32)
    path = written(tmp_path / "a.onnx", [main], task, **more)
    with pytest.raises(FileError, match=told):
        look(Detector(path), [IMAGE])


def test_opencv_runs_detectors_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", numbers("pose"), "pose")
    with pytest.raises(FileError, match="is a model for 'pose': --runtime opencv runs detectors alone"):
        Detector(path, runtime="opencv")


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [*EXTRA, "classify"])
def test_the_command_tells_it_as_json(task: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output JSON alone, and no file is written unless it is asked for."""
    from yolo_attn.cli import main

    monkeypatch.chdir(tmp_path)
    outputs = [np.array([[0.2, 0.7, 0.1]], np.float32)] if task == "classify" else numbers(task)
    written(Path("a.onnx"), outputs, task)
    cv2.imwrite("图.png", IMAGE)
    before = sorted(p.name for p in tmp_path.iterdir())
    argv = ["detect", "a.onnx", "--source", "图.png"]
    assert main([*argv, "--json"]) == 0
    told = capsys.readouterr()
    (entry,) = json.loads(told.out)
    assert (entry["image"], entry["height"], entry["width"]) == ("图.png", 301, 453) and "图.png" in told.out
    assert "was not proved" in told.err and "Median ms" in told.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    if task == "classify":
        assert [c["name"] for c in entry["classes"]] == ["thing1", "thing0", "thing2"]
    else:
        first = entry["detections"][0]
        adds = {"segment": {"polygons"}, "pose": {"keypoints"}, "obb": {"xywhr", "corners"}}[task]
        assert set(first) == {"class", "name", "confidence", "box", *adds} and first["name"] == f"thing{first['class']}"
        (seen,) = look(Detector("a.onnx"), [IMAGE])
        assert len(entry["detections"]) == len(seen.boxes)
        assert (outlined(IMAGE.copy(), seen) != IMAGE).any()
    assert main([*argv, "--json", "--save-json", "-o", "o"]) == 0
    assert json.loads(capsys.readouterr().out) == [entry]
    assert sorted(p.name for p in Path("o").iterdir()) == ["detections.json", "图.png"]
    assert json.loads(Path("o/detections.json").read_text(encoding="utf-8")) == [entry]
    assert main([*argv, "--save-txt", "-o", "p"]) == 2
    assert f"is a model for {task}: --json tells" in capsys.readouterr().err
