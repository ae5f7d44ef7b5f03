"""Where int8 loses: the ranges that are chosen, and the layers that each format names."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from busy import make_busy
from onnx import TensorProto, helper, numpy_helper

from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.detectors.source import Source
from yolo_attn.errors import ExportError
from yolo_attn.export.asked import Asked
from yolo_attn.export.formats import alone, int8, int8_tasks, mnn_layers, rknn, rknn_layers, rknn_ranges, table
from yolo_attn.export.single import export_source
from yolo_attn.export.spread import Sides, sides_of
from yolo_attn.runtime.image import blob, letterbox

YAML = """nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, SEAttention, []]
  - [-1, 1, Conv, [64, 3, 1]]
  - [-1, 1, Conv, [32, 3, 1]]
head:
  - [[1, 4], 1, Detect, [nc]]
"""
SPOILED = "model.3"


def spoiled(folder: Path) -> Source:
    """A detector in which one convolution survives 8 bits far worse than all others: one weight of each filter is huge."""
    (folder / "spoiled.yaml").write_text(YAML, encoding="utf-8")
    torch.manual_seed(0)
    source = open_source(folder / "spoiled.yaml")
    make_busy(source.model)
    layer = source.model.get_submodule(SPOILED)
    with torch.no_grad():
        # where it meets nothing, it changes nothing but the scale: the channel before it is off
        before = source.model.get_submodule("model.1")
        before.bn.weight[0] = before.bn.bias[0] = 0
        layer.conv.weight[:, 0, 1, 1] = 60 * layer.conv.weight.abs().max()
    return source


def test_both_ends_are_cut_off_where_that_loses_least() -> None:
    """An outlier is cut off at its own end, what is even is kept, and zero stays among the values."""
    rng = np.random.default_rng(0)
    sides = Sides()
    for values in (rng.normal(size=100000), np.array([40.0]), 2 * rng.normal(size=100000)):
        sides.add(values)
    low, high = sides.limits()
    assert -10 < low < -5 and 5 < high < 38
    even = Sides()
    even.add(rng.uniform(2, 3, 10000))
    assert even.limits() == (0.0, pytest.approx(3, rel=0.02))
    assert Sides().limits() == (0.0, 1.0)  # of a map that is always zero
    tiny = Sides()  # of weights that decayed: one over it is infinite in fp32
    tiny.add(np.float32([0, 3e-39, -1e-38]))
    assert -1e-38 <= tiny.limits()[0] < 0 < tiny.limits()[1] <= 3.1e-39
    large = Sides()  # not all are counted, and the ends are
    large.add(np.append(rng.uniform(0, 1, 1 << 20), [-1.0, 1.5]))
    assert (large.below.greatest, large.above.greatest) == (1.0, 1.5) and large.above.counts.sum() < 1 << 17
    for wrong in (np.nan, np.inf):
        with pytest.raises(ExportError, match="the blob m is not finite on a picture"):
            even.add(np.append(rng.uniform(0, 1, 1 << 18), [wrong, 0.0]), "m")


def test_ranges_are_set_of_maps_that_both_networks_have(tmp_path: Path) -> None:
    """A map that is handed on has the range that it came with; what is no int8, or not in the file, is left."""
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], name="/model.0/conv/Conv"),
        helper.make_node("Relu", ["a"], ["b"], name="/model.1/Relu"),
        helper.make_node("MaxPool", ["b"], ["c"], name="/model.2/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Neg", ["c"], ["output0"], name="/model.3/Neg"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("images", "output0")]
    ports[0].type.tensor_type.shape.CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64]).type.tensor_type.shape)
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "w")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:], weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, str(tmp_path / "a.onnx"))
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    merged.graph.node.append(helper.make_node("Reshape", ["c", "s"], ["c-rs"], name="c-rs"))
    entry = {"dtype": "int8", "min": [-100.0], "max": [100.0]}
    told = {name: dict(entry) for name in ("a", "b", "c", "w", "c-rs")} | {"output0": {**entry, "dtype": "float32"}}
    pictures = [rng.random((1, 3, 64, 64)).astype(np.float32) for _ in range(3)]
    assert rknn_ranges.set_ranges(told, merged, tmp_path / "a.onnx", pictures) == 3
    assert told["b"]["min"] == [0.0] and 1 < told["b"]["max"][0] < 15
    assert (told["c"]["min"], told["c"]["max"]) == (told["b"]["min"], told["b"]["max"])
    assert -15 < told["a"]["min"][0] < -1 and told["output0"]["min"] == told["w"]["min"] == told["c-rs"]["min"] == [-100.0]
    with pytest.raises(ExportError, match="needs pictures"):
        rknn_ranges.set_ranges(told, merged, tmp_path / "a.onnx", [])
    told = {"custom_quantize_layers": {"b": "float16"}, "quantize_parameters": told}
    assert rknn_layers.rounded(merged, told) == {"a": "/model.0/conv/Conv", "c": "/model.2/MaxPool", "c-rs": "c-rs"}


def test_the_rows_that_a_head_reads(tmp_path: Path) -> None:
    source = spoiled(tmp_path)
    assert rknn.read_rows(source.model) == ["model.1", "model.4"]
    source.model.model[-1].f = [1, -1]
    assert rknn.read_rows(source.model) == ["model.1", "model.4"]
    source.model.model[-1].f = -1
    assert rknn.read_rows(source.model) == ["model.4"]


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        ("/model.2/fc1/Conv_output_0", ("model.2.fc1", "Conv2d")),
        ("/inner/model.5/cv2.0/cv2.0.2/Conv_output_0", ("model.5.cv2.0.2", "Conv2d")),
        ("/model.3/conv/Conv_output_0", ("model.3.conv", "Conv2d")),
        ("/model.9/conv/Conv_output_0", None),
        ("output0", None),
    ],
)
def test_the_module_that_made_a_tensor(tensor: str, found: Any, tmp_path: Path) -> None:
    assert mnn_layers.module_of(spoiled(tmp_path).model, tensor) == found


def test_every_format_that_has_int8_tells_what_loses() -> None:
    """By a measure of its own, or with the file; ONNX, which is no entry of the table, tells it by its own code."""
    silent = {name for name, f in table.FORMATS.items() if f.int8 and f.losses is None}
    assert silent == {"openvino", "ncnn"}  # whose converters leave `layers` in about.json


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.skipif(importlib.util.find_spec(m) is None, reason=f'needs pip install "yolo_attn[{n}]"'))
        for n, m in (("mnn", "MNN"), ("rknn", "rknn"))
    ],
)
def test_the_layer_that_loses_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First in the report and in what is printed, far before the others; attention's and the head's are as they are in the file."""
    source, lines = spoiled(tmp_path), []
    asked = Asked(name, imgsz=[64, 96], int8=drawn_images(4, seed=3), output=tmp_path).checked()
    monkeypatch.setattr(int8, "loses", lambda near, exact: True)
    result = export_source(source, asked, lines.append)
    worst, second = result.report["int8"]["layers"][:2]
    assert worst["layer"] in (SPOILED, f"{SPOILED}.conv") and worst["error"] > 2 * second["error"] > 0
    (line,) = (line for line in lines if "what loses most, alone in int8" in line)
    assert f"the boxes of {result.report['precision']}): {worst['layer']} ({worst['type']}, " in line
    assert json.loads(result.report_path.read_text())["int8"]["layers"] == result.report["int8"]["layers"]
    if name == "rknn":
        (choice,) = Path(result.report["int8"]["path"]).glob("*.cfg")
        kept = yaml.safe_load(choice.read_text())["custom_quantize_layers"]
        assert not any("/model.2/" in row["layer"] for row in result.report["int8"]["layers"]) and any("model.2/" in k for k in kept)


def test_a_measure_that_fails_costs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out in it, say: the file is made by then, and its mAP measured."""
    lines: list[str] = []

    def failing(*asked: Any) -> Path:
        raise ExportError("MNN's quantizer was ended by SIGKILL")

    monkeypatch.setattr(int8, "convert_apart", failing)
    job: Any = None
    assert int8._layers(table.FORMATS["mnn"], job, tmp_path, lines.append) == []
    assert lines == ["int8: which layers lose most is not known: MNN's quantizer was ended by SIGKILL"]


def test_what_is_missed_is_of_the_same_class() -> None:
    box = np.array([[0, 0, 10, 10, 0.9, 1]], np.float32)
    other = np.array([[0, 0, 10, 10, 0.9, 2], [0, 0, 10, 5, 0.3, 1]], np.float32)
    assert alone.missed([box], [box]) == 0 and alone.missed([box], [other]) == 0.5
    assert alone.missed([box], [box[:0]]) == 1 and alone.missed([box[:0]], [box]) == 0


@pytest.mark.parametrize("layout", ["anchor-free", "anchor-based", "final"])
def test_what_goes_with_boxes_is_compared_where_the_detector_is_sure(layout: str) -> None:
    """Of pose and oriented boxes too: the rest behind boxes and scores, of the candidates that matter; in any order where NMS is inside."""
    rng = np.random.default_rng(0)
    n, rest = 300, rng.normal(size=(300, 2)).astype(np.float32)
    corner = rng.uniform(0, 2000, (n, 2))
    box, sure = np.concatenate([corner, np.full((n, 2), 10.0)], 1), np.linspace(0, 0.9, n)[::-1, None]
    wrong = rest.copy()
    wrong[150:] += 5  # of candidates that nobody sees
    wrong[:100] *= 1.1

    def run(rest: np.ndarray, order: slice = slice(None)) -> Any:
        if layout == "final":
            rows = np.concatenate([corner, corner + 10, sure, np.zeros((n, 1)), rest], 1)[:100][order]
        else:
            rows = np.concatenate([box, *([np.ones((n, 1))] if layout == "anchor-based" else []), sure, rest], 1)
        made = rows.T if layout == "anchor-free" else rows
        return lambda x: [made[None].astype(np.float32)]

    network = torch.nn.Identity()
    network.names = {0: "a"}  # type: ignore[assignment]
    for task, name in (("pose", "key points"), ("obb", "angles")):
        source = Source(Path("a.pt"), "ultralytics", network, task=task)
        near = int8_tasks.agreement_of(source, layout, run(rest), run(wrong, slice(None, None, -1)), drawn_images(1), (64, 64))
        assert near["outputs"] == {name: pytest.approx(0.1, abs=1e-3)} and near["found"] == near["same_iou_0.9"] > 0
        assert f"{name} differ by 10.0% of their size" in int8_tasks.told(near, "fp32")


def test_ranges_of_onnx_lose_least(tmp_path: Path) -> None:
    """An outlier in one calibration image does not coarsen a map: what is told apart ends before the greatest value."""
    source = spoiled(tmp_path)
    images = [*drawn_images(3, seed=3), np.full((64, 96, 3), 255, np.uint8)]
    result = export_source(source, Asked("onnx", imgsz=[64, 96], output=tmp_path / "a.onnx", int8=images).checked(), lambda line: None)
    small = onnx.load(result.report["int8"]["path"])
    tensors = {t.name: numpy_helper.to_array(t) for t in small.graph.initializer}
    steps = {n.input[0]: float(tensors[n.input[1]]) for n in small.graph.node if n.op_type == "QuantizeLinear"}
    assert steps["images"] == pytest.approx(1 / 255)  # of the colours, whichever the images have
    full = onnx.load(str(result.path))
    names = [n for n in steps if any(n in node.output for node in full.graph.node)]
    sides = sides_of(result.path, names, [blob([letterbox(im, (64, 96))[0]]) for im in images])
    widths = {n: s.above.greatest + s.below.greatest for n, s in sides.items()}
    assert len(names) > 5 and min(255 * steps[n] / widths[n] for n in names) < 0.95
    for n in names:
        low, high = sides[n].limits()
        assert 255 * steps[n] == pytest.approx(high - low, rel=0.02)
