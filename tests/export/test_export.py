"""Exports are proved, and the proof can fail; graphs are small; every mistake is one message."""

from __future__ import annotations

import copy
import io
import json
import os
import shlex
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from busy import make_busy
from torch import nn

import yolo_attn
from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.detectors.source import Source
from yolo_attn.errors import CheckpointError, DataError, ExportError, FileError, UsageError
from yolo_attn.export import classic, graph, int8, proof, tensorrt
from yolo_attn.export.graph import _drop_round_trips, decode_nodes, last_convolutions, pool_means
from yolo_attn.export.single import export
from yolo_attn.export.target import no_room
from yolo_attn.runtime.boxes import suppress
from yolo_attn.runtime.image import blob, letterbox
from yolo_attn.runtime.session import Detector
from yolo_attn.system.drafts import scratch

warnings.filterwarnings("ignore", category=DeprecationWarning)

@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of yolov5n_se whose detections are many: fresh weights, class biases raised."""
    torch.manual_seed(0)
    source = open_source("yolov5n_se.yaml")
    make_busy(source.model)
    source.model.names = {i: f"thing{i}" for i in range(80)}
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    source.handle.save(path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Any:
    """Its static export at 64 x 96."""
    return export(checkpoint, imgsz=[64, 96], log=lambda line: None)


# --- the proof ------------------------------------------------------------------------------------------------------


def test_the_file_is_described_and_proved(exported: Any) -> None:
    report = json.loads(exported.report_path.read_text())
    assert report["proof"]["passed"] and report["proof"]["checker"] == "passed"
    assert report["proof"]["largest_difference"] <= 1e-4
    detections = [r["detections"] for r in report["proof"]["runs"]]
    assert sum(d["compared"] for d in detections) > 50 and min(d["min_iou"] for d in detections) >= 0.99
    meta = {p.key: p.value for p in onnx.load(str(exported.path)).metadata_props}
    assert meta["yolo_attn"] == yolo_attn.__version__ and json.loads(meta["attention"]) == {"SEAttention": 4}
    assert meta["task"] == "detect" and meta["stride"] == "32" and "thing79" in meta["names"]
    assert report["attention"] == {"SEAttention": 4} and report["imgsz"] == [64, 96]


def test_dynamic_is_proved_at_several_shapes(checkpoint: Path, tmp_path: Path) -> None:
    result = export(checkpoint, imgsz=64, dynamic=True, output=tmp_path / "d.onnx", log=lambda line: None)
    shapes = [tuple(r["shape"]) for r in result.report["proof"]["runs"]]
    assert len(set(shapes)) == 3 and any(h != w for _, _, h, w in shapes) and any(b == 2 for b, *_ in shapes)
    assert result.report["proof"]["largest_difference"] <= 1e-4


def test_half_is_of_half_the_size_and_decodes_in_fp32(checkpoint: Path, exported: Any, tmp_path: Path) -> None:
    half = export(checkpoint, imgsz=64, half=True, output=tmp_path / "h.onnx", log=lambda line: None)
    assert half.report["precision"] == "fp16" and half.path.stat().st_size < 0.6 * exported.path.stat().st_size
    assert half.report["proof"]["largest_difference"] > 0
    model = onnx.load(str(half.path))
    assert {p.key: p.value for p in model.metadata_props}["precision"] == "fp16"
    ops, before = half.report["graph"]["operators"], exported.report["graph"]["operators"]
    # One cast in, one behind each of the three levels' box and score maps: none between the nodes of the decoding.
    assert ops["Cast"] - before.get("Cast", 0) <= 1 + 6
    fp16 = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    decoding = {n.name for n in model.graph.node if n.name in decode_nodes(model)}
    assert len(decoding) > 10 and not [n.name for n in model.graph.node if n.name in decoding and fp16 & set(n.input)]


def test_int8_spares_the_head_of_classic_yolov5(exported: Any, tmp_path: Path) -> None:
    """There boxes and scores share a map. What is quantized is read from the file."""
    full = tmp_path / "a.onnx"
    full.write_bytes(exported.path.read_bytes())
    head = set(last_convolutions(onnx.load(str(full))))
    assert len(head) == 6  # of three levels, boxes and scores
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)]
    source = Source(tmp_path / "a.pt", "yolov5", torch.nn.Identity())
    int8.add_int8(source, full, dict(exported.report), images, None, False, lambda line: None)
    graph = onnx.load(str(tmp_path / "a_int8.onnx")).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    in_int8 = {n.name for n in graph.node if n.op_type == "Conv" and made.get(n.input[0]) == "DequantizeLinear"}
    assert len(in_int8) > 40 and head.isdisjoint(in_int8)


def test_round_trips_to_fp16_are_taken_out() -> None:
    """x -> fp16 -> fp32 -> Neg -> fp16 -> fp32 = y, as the converter leaves a node that stays in fp32."""
    from onnx import TensorProto, helper

    half, full = TensorProto.FLOAT16, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=half), helper.make_node("Cast", ["a"], ["b"], to=full),
        helper.make_node("Neg", ["b"], ["c"]),
        helper.make_node("Cast", ["c"], ["d"], to=half), helper.make_node("Cast", ["d"], ["y"], to=full),
        helper.make_node("Abs", ["d"], ["z"]),
    ]  # fmt: skip
    values = [helper.make_tensor_value_info(n, t, [1]) for n, t in (("x", full), ("y", full), ("z", half))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    _drop_round_trips(model)
    assert [n.op_type for n in model.graph.node] == ["Neg", "Cast", "Abs"]
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, z = session.run(None, {"x": np.array([1.0001], np.float32)})
    assert y[0] == np.float32(-1.0001) and z[0] == np.float16(1)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_nms_inside(checkpoint: Path, tmp_path: Path, dynamic: bool) -> None:
    lines: list[str] = []
    target = tmp_path / "n.onnx"
    nms = export(checkpoint, imgsz=64, nms=True, dynamic=dynamic, simplify=False, output=target, log=lines.append)
    assert sum(r["detections"]["compared"] for r in nms.report["proof"]["runs"]) > 50
    graph = onnx.load(str(nms.path)).graph
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*graph.input, *graph.output]]
    assert shapes[0] == ([1, 3, 0, 0] if dynamic else [1, 3, 64, 64]) and shapes[1][0] == 1
    assert Detector(nms.path)(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 300, 6)
    assert any("batch size is 1" in line for line in lines) == dynamic


@pytest.mark.slow
def test_an_interrupted_proof_leaves_the_older_file_and_its_report(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that says `passed` beside a file that it does not speak of would be worse than none."""
    target = tmp_path / "a.onnx"
    old = export(checkpoint, imgsz=64, simplify=False, output=target, log=lambda line: None)
    assert json.loads(old.report_path.read_text())["proof"]["passed"]

    def stopped(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(proof, "compare", stopped)
    before = target.read_bytes(), old.report_path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, imgsz=64, simplify=False, output=target, log=lambda line: None)
    monkeypatch.setattr(onnx, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, imgsz=64, simplify=False, output=target, log=lambda line: None)
    assert (target.read_bytes(), old.report_path.read_bytes()) == before and sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "a.onnx.json"]


@pytest.mark.slow
def test_a_full_disk_is_one_message(checkpoint: Path, python: Any, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    out = python(
        """
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.dont_write_bytecode = True  # Python before 3.12 leaves a cut file, which the next process reads
        from yolo_attn.errors import YoloAttnError
        from yolo_attn.export.single import export
        for limit, format in ((3_000_000, "onnx"), (3_000_000, "bundle"), (1_000, "onnx")):
            if limit == 1_000:  # the file itself goes through: only the report is held back
                import yolo_attn.export.report as report
                keep = report.write
                report.write = lambda *a: (resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1)), keep(*a))
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
            try:
                export(sys.argv[1], imgsz=64, format=format, simplify=format == "bundle", output=f"x.{format}", log=lambda line: None)
            except YoloAttnError as exc:
                print("one message:", exc)
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        """,
        str(checkpoint),
    ).ok()
    assert out.count("one message:") == 3 and out.count("File too large") == 3
    assert out.splitlines()[0].endswith("(ulimit -f): raise that limit")
    assert sorted(p.name for p in tmp_path.iterdir()) in (["x.onnx"], ["x.onnx", "x.onnx.json"])


def test_a_full_disk_is_named(exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the folder that the user knows, also from within several scratch folders; int8 tells it too."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with scratch(tmp_path) as outer, scratch(outer) as inner:
        assert no_room(inner) == f". The disk of {tmp_path} has 0 MB left: free some"
    monkeypatch.setattr(onnx, "load", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    image = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(ExportError, match="cannot quantize: .*No space left.* has 0 MB left: free some$"):
        int8.quantize(exported.path, tmp_path / "a.onnx", [image], (64, 96))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_operator_is_found(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in the ONNX file: one gate of four is a tanh. The other formats' are in test_formats.py."""
    own = graph.set_metadata

    def planted(model: onnx.ModelProto, entries: dict[str, str], **more: Any) -> None:
        next(n for n in model.graph.node if n.op_type == "Sigmoid" and "/gate/" in n.name).op_type = "Tanh"
        own(model, entries, **more)

    monkeypatch.setattr(graph, "set_metadata", planted)
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"does not match .*(differ by|are missing)"):
        export(checkpoint, imgsz=[64, 96], output=tmp_path / "t.onnx", log=lines.append)
    assert not any("verified" in line for line in lines)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t_failed.onnx", "t_failed.onnx.json"]
    assert json.loads((tmp_path / "t_failed.onnx.json").read_text())["proof"]["passed"] is False


def test_a_file_that_differs_is_kept_under_another_name(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.onnx"
    with pytest.raises(ExportError, match="is allowed"):
        export(checkpoint, imgsz=64, output=target, tolerance=1e-12, log=lambda line: None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t_failed.onnx", "t_failed.onnx.json"]
    report = json.loads((tmp_path / "t_failed.onnx.json").read_text())
    assert report["proof"]["passed"] is False and "1e-12" in report["proof"]["problem"]


def test_a_layer_lost_on_the_way_is_seen(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a host's fuse() swaps the forward of a subclass of its Conv: the export runs without the attention."""
    from ultralytics.nn.tasks import BaseModel

    fuse = BaseModel.fuse

    def losing(self: Any, *args: Any, **kwargs: Any) -> Any:
        for m in self.modules():
            if type(m).__name__ == "SEAttention":
                m.forward = lambda x: x
        return fuse(self, *args, **kwargs)

    monkeypatch.setattr(BaseModel, "fuse", losing)
    with pytest.raises(ExportError, match="differ by"):
        export(checkpoint, imgsz=64, output=tmp_path / "t.onnx", log=lambda line: None)


ONE_SIZE = """
import torch
from torch import nn

class Positions(nn.Module):  # of 256 pixels at P5
    def __init__(self, channels):
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(1, channels, 8, 8))

    def forward(self, x):
        return x + self.pos

class Static(nn.Module):  # its sizes are constants in a graph
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x + x.reshape(*map(int, x.shape[:2]), -1).softmax(-1).reshape(*map(int, x.shape))
"""


@pytest.mark.parametrize(("name", "side"), [("Positions", 256), ("Static", 64)])
def test_what_works_for_one_size_alone_is_said(name: str, side: int, tmp_path: Path) -> None:
    """Where PyTorch cannot run a shape, the file is not blamed; where the file is right at its own shape, that is named."""
    (tmp_path / f"one_size_{name}.py").write_text(ONE_SIZE, encoding="utf-8")
    d = yaml.safe_load(yolo_attn.insert("yolov5n.yaml", module="SimAM", where="P5"))
    d["register"] = {name: f"one_size_{name}.py:{name}"}
    for row in d["backbone"]:
        row[2] = name if row[2] == "SimAM" else row[2]
        row[3] = [] if row[2] == name else row[3]
    cfg = tmp_path / "yolov5n_own.yaml"
    cfg.write_text(yaml.safe_dump(d), encoding="utf-8")
    target = tmp_path / "a.onnx"
    assert export(cfg, imgsz=side, output=target, log=lambda line: None).report["proof"]["passed"]
    with pytest.raises(ExportError) as caught:
        export(cfg, imgsz=side, dynamic=True, output=target, log=lambda line: None)
    told = str(caught.value)
    assert f"At 1x3x{side}x{side} it equals PyTorch: export without --dynamic" in told
    assert ("PyTorch itself cannot run it at" in told) == (name == "Positions") != ("does not match" in told)


def test_an_export_that_fails_with_dynamic_shapes_alone_says_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolo_attn.export import ultralytics as host

    original = host.write_onnx

    def failing(source: Any, draft: Path, size: Any, dynamic: bool, *rest: Any) -> None:
        if dynamic:
            raise RuntimeError("no dynamic shapes here")
        original(source, draft, size, dynamic, *rest)

    monkeypatch.setattr(host, "write_onnx", failing)
    with pytest.raises(ExportError, match="no dynamic shapes here Without --dynamic the export works"):
        export(checkpoint, imgsz=64, dynamic=True, output=tmp_path / "a.onnx", log=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_differences_of_boxes_and_scores_are_apart() -> None:
    """One score that is wrong by 0.05 is nothing beside boxes of 640 pixels; it must still be seen."""
    y = np.zeros((1, 6, 100), np.float32)
    y[:, :4], y[:, 4:] = 640, 0.9
    z = y.copy()
    z[0, 5, 7] = 0.85
    found = proof.largest_difference(y, z, "anchor-free")
    assert found["boxes"] == 0 and found["scores"] == pytest.approx(0.05 / 0.9, rel=1e-4)


def test_detections_that_moved_changed_class_or_vanished_are_seen() -> None:
    y = np.full((7, 40), 1e-5, np.float32)
    y[:4] = np.stack([np.arange(40) * 50 + 30, np.full(40, 50), np.full(40, 30), np.full(40, 30)])
    y[4, :20], y[5, 20:] = np.linspace(0.3, 0.9, 20), np.linspace(0.3, 0.9, 20)

    def against(z: np.ndarray) -> tuple[int, int, int]:
        got = proof.compare_detections(y, z, "anchor-free", tolerance=1e-4)
        return got["compared"], got["missing"], got["extra"]

    assert against(y) == (40, 0, 0)
    moved, other, gone = y.copy(), y.copy(), y.copy()
    moved[0, 3] += 1  # IoU 0.94
    other[[4, 5], 3] = other[[5, 4], 3]
    gone[4, 3] = 0.1
    assert against(moved) == against(other) == (40, 1, 1)
    assert against(gone) == (40, 1, 0)


def test_the_checkpoint_is_left_as_it_was(checkpoint: Path, tmp_path: Path) -> None:
    before = checkpoint.read_bytes()
    source = open_source(checkpoint)
    state = copy.deepcopy(source.model.state_dict())
    from yolo_attn.export.onnx import write_onnx

    write_onnx(source, tmp_path / "a.onnx", (64, 64), dynamic=False, half=False, opset=None, nms=False, simplify=True)
    assert all(torch.equal(v, state[k]) for k, v in source.model.state_dict().items())
    assert checkpoint.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx"]


@pytest.mark.parametrize("reduce", ["ReduceMean", "ReduceMax"])
def test_means_and_maxima_become_pooling_where_they_are_the_same(reduce: str) -> None:
    from onnx import TensorProto, helper, numpy_helper

    def build(axes: list[int], rank: int, keepdims: int = 1, channels: int = 3) -> onnx.ModelProto:
        shape = [2, channels, 4, 5, 6][:rank]
        node = helper.make_node(reduce, ["x", "axes"], ["y"], keepdims=keepdims)
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, list("abcde"[: rank if keepdims else rank - len(axes)]))],
            [numpy_helper.from_array(np.array(axes), "axes")],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    for axes, rank, keepdims, pooled in (
        ([2, 3], 4, 1, 1), ([-1, -2], 4, 1, 1), ([2, 3], 4, 0, 0), ([2, 3], 5, 1, 0), ([1], 4, 1, 0), ([3], 4, 1, 0),
    ):  # fmt: skip
        model = build(axes, rank, keepdims)
        x = np.random.default_rng(0).random([2, 3, 4, 5, 6][:rank], dtype=np.float32)

        def run(model: onnx.ModelProto, x: np.ndarray = x) -> Any:
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            return session.run(None, {"x": x})[0]

        before = run(model)
        assert pool_means(model) == pooled
        onnx.checker.check_model(model)
        np.testing.assert_allclose(run(model), before, rtol=1e-6)
    assert pool_means(build([2, 3], 4, channels=1)) == 0  # which OpenCV would not run
    raw = build([2, 3], 4)  # as the tracer writes it, before constants are folded
    raw.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value_float=1.0))
    assert pool_means(raw) == 1


@pytest.mark.slow
def test_int8_says_how_near_it_comes(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    pictures = drawn_images(4)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for k, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "images" / f"{k}.png"), picture)
        (tmp_path / "labels" / f"{k}.txt").write_text(f"{k} 0.5 0.5 0.5 0.4\n")
    path = tmp_path / "a_int8.onnx"
    maps = int8.maps
    monkeypatch.setattr(int8, "maps", lambda *a: maps(*a) if not path.exists() else pytest.fail("it has its name before it was measured"))
    result = export(checkpoint, imgsz=64, output=tmp_path / "a.onnx", int8=tmp_path / "images", log=lines.append)
    found = json.loads(result.report_path.read_text())["int8"]
    assert sum("calibrated on only 4 images" in line for line in lines) == 1
    assert path.stat().st_size < 0.5 * result.path.stat().st_size
    assert 0 < 0.4 * found["found"] <= found["same_iou_0.9"] <= found["same_iou_0.5"] <= found["found"]
    assert found["extra"] <= 0.4 * found["found"] and found["map"]["images"] == 4
    assert {"mAP50", "mAP50-95"} == found["map"]["fp32"].keys() and any("mAP50-95" in line for line in lines)
    assert 0 < found["layers"][0]["error"] < 0.2
    model = onnx.load(str(path))
    meta = {p.key: p.value for p in model.metadata_props}
    assert meta["precision"] == "int8" and json.loads(meta["attention"]) == {"SEAttention": 4}
    # what decodes boxes stays in fp32, and attention
    made = {name: node for node in model.graph.node for name in node.output}
    exact = [n.name for n in model.graph.node if n.op_type == "Conv" and n.input[0] not in made]
    exact += [n.name for n in model.graph.node if n.op_type == "Conv" and made.get(n.input[0], n).op_type != "DequantizeLinear"]
    assert sum("/dfl/" in n for n in exact) == 1 and sum("/fc" in n for n in exact) == 8 and len(exact) == found["fp32"] == 9
    # and no processor's kernels compute something else than the file says: unsigned ones saturate without VNNI
    x = blob([letterbox(pictures[0], (64, 64))[0]])
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (want,) = onnxruntime.InferenceSession(str(path), plain).run(None, {"images": x})
    for options in (None, onnxruntime.SessionOptions()):
        (got,) = onnxruntime.InferenceSession(str(path), options).run(None, {"images": x})
        assert np.abs(got[:, 4:] - want[:, 4:]).max() < 0.05 * want[:, 4:].max()
    assert np.abs(Detector(path)(x) - want)[:, 4:].max() < 0.05 * want[:, 4:].max()


def test_boxes_divided_by_the_image_size(checkpoint: Path, tmp_path: Path) -> None:
    """One file with boxes from 0 to 1 beside the scores; the kit reads it in pixels, and proves it so."""
    lines: list[str] = []
    result = export(checkpoint, imgsz=[64, 96], output=tmp_path / "a.onnx", normalize_boxes=True, log=lines.append)
    assert result.report["boxes"] == "relative" and any("divided by the image size" in line for line in lines)
    assert "rect=False" in result.report["padding"] and any("rect=False" in line for line in lines)
    x = blob([letterbox(drawn_images(1)[0], (64, 96))[0]])
    (raw,) = onnxruntime.InferenceSession(str(result.path)).run(None, {"images": x})
    boxes = Detector(result.path)(x)
    np.testing.assert_allclose(boxes[:, :4], raw[:, :4] * np.array([96, 64, 96, 64], "f").reshape(1, 4, 1), rtol=1e-6)
    np.testing.assert_array_equal(boxes[:, 4:], raw[:, 4:])
    assert raw.max() < 2 < boxes.max()
    for wrong in ({"dynamic": True}, {"nms": True}, {"format": "torchscript"}):
        with pytest.raises(UsageError, match="--normalize-boxes"):
            export(checkpoint, normalize_boxes=True, **wrong)
    with pytest.raises(UsageError, match="--int8-symmetric"):
        export(checkpoint, int8_symmetric=True)


def test_nms_inside_a_classic_detector() -> None:
    """Equal to this package's own NMS of the same output, (B, N, 5 + classes), whatever is found, nothing among it."""
    rng = np.random.default_rng(0)
    y = np.zeros((1, 2000, 9), np.float32)
    y[0, :, :4] = np.stack((*rng.uniform(50, 590, (2, 2000)), *rng.uniform(20, 90, (2, 2000))), 1)
    y[0, :, 4:] = rng.random((2000, 5)) ** 0.5

    class Classic(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [torch.from_numpy(y) * x.mean()]  # a dark picture lowers everything

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(classic._first_output(Classic(), nms=True), (torch.ones(1, 3, 32, 32),), buffer,
                          opset_version=17, dynamo=False)  # fmt: skip
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    for light in (1.0, 0.6, 0.0):
        (got,) = session.run(None, {session.get_inputs()[0].name: np.full((1, 3, 32, 32), light, np.float32)})
        want = suppress(y[0] * np.float32(light), "anchor-based", conf=0.25, iou=0.7)
        assert got.shape == (1, 300, 6) and (len(want) > 20 if light else not len(want))
        np.testing.assert_allclose(got[0, : len(want)], want, rtol=1e-4)
        assert not got[0, len(want) :].any()


def test_an_engine_is_not_called_verified(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ONNX file is; beside it stands what proves it on the GPU that it was built on."""

    def build(onnx: Path, target: Path, *rest: Any) -> Path:
        assert onnx.is_file()
        target.write_bytes(b"engine")
        return target

    monkeypatch.setattr(tensorrt, "require", lambda *args: None)
    monkeypatch.setattr(tensorrt, "build", build)
    lines: list[str] = []
    result = export(checkpoint, format="engine", imgsz=64, output=tmp_path / "a.engine", tolerance=1e-3, log=lines.append)
    told = json.loads(result.report_path.read_text())
    assert result.path.name == "a.engine" and result.report["proof"] == told["proof"]
    assert told["proof"]["passed"] is False and told["format"] == "engine" and told["bytes"] == 6
    assert json.loads((tmp_path / "a.onnx.json").read_text())["proof"]["passed"] is True
    assert lines[-1].startswith("converted, not proved") and lines[-1].endswith("python a.engine.prove.py")
    script = (tmp_path / "a.engine.prove.py").read_text(encoding="utf-8")
    compile(script, "a.engine.prove.py", "exec")
    assert "TOLERANCE = 0.001" in script and (tmp_path / "a.engine.expected.npz").is_file()
    other = export(checkpoint, format="engine", imgsz=64, nms=True, output=tmp_path / "b.engine", log=lines.append)
    assert "script" not in other.report["proof"] and not other.report["proof"]["passed"]


def test_an_engine_where_tensorrt_is_missing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line to type elsewhere, with shapes that a dynamic engine needs, in quotes where a path has blanks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    target = tmp_path / "my model.engine"
    with pytest.raises(UsageError, match="a CUDA device") as error:
        export(checkpoint, format="engine", imgsz=[384, 640], dynamic=True, output=target, log=lambda line: None)
    assert not list(tmp_path.iterdir())
    line = shlex.split(str(error.value)[str(error.value).index("trtexec") :])
    assert line == [
        "trtexec", f"--onnx={tmp_path / 'my model.onnx'}", f"--saveEngine={target}",
        "--minShapes=images:1x3x320x320", "--optShapes=images:1x3x384x640", "--maxShapes=images:8x3x1280x1280",
    ]  # fmt: skip
    static = tensorrt.command(Path("a.onnx"), (640, 640), dynamic=False, half=True)
    assert static == "trtexec --onnx=a.onnx --saveEngine=a.engine --stronglyTyped"
    assert tensorrt.unsupported(["Conv", "Mul", "Unique", "Sigmoid"]) == ["Unique"]


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_an_image_size_is_rounded_up_and_says_so(checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = export(checkpoint, imgsz=[50, 70], output=tmp_path / "a.onnx", log=lines.append)
    assert result.report["imgsz"] == [64, 96]
    assert any("50x70 rounded up to 64x96" in line and "stride 32" in line for line in lines)


def test_files_that_are_no_checkpoint(checkpoint: Path, exported: Any, tmp_path: Path) -> None:
    def message(content: bytes | Path | None, name: str = "x.pt") -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            open_source(content if isinstance(content, Path) else path)
        assert "\n" not in str(error.value)
        return str(error.value)

    whole = checkpoint.read_bytes()
    assert "not found" in message(None, "nowhere.pt") and "downloaded" in message(None, "nowhere.pt")
    assert "is empty" in message(b"")
    assert "truncated" in message(whole[: len(whole) // 2])
    assert "PNG" in message(b"\x89PNG not weights")
    assert "is a folder" in message(tmp_path) or "folder" in message(tmp_path)
    assert "ONNX file already" in message(exported.path)
    assert "should end in .pt" in message(b"text", "x.weights")
    for thing, words in (
        ({"epoch": 3}, "without 'model'"),
        ({"a.weight": torch.zeros(2)}, "state dict"),
        ([1, 2], "is a list"),
    ):
        torch.save(thing, tmp_path / "thing.pt")
        assert words in message(tmp_path / "thing.pt")


def test_options_that_contradict(checkpoint: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"format": "tflight"}, "tflight.*onnx, openvino.*engine, bundle.*Did you mean 'tflite'"),
        ({"format": "torchscript", "half": True}, "torchscript has no --half, only --dynamic"),
        ({"opset": 9}, "too old"),
        ({"opset": 99}, "newer than"),
        ({"int8": "pictures", "half": True}, "int8 cannot be combined"),
        ({"int8": "pictures", "format": "engine"}, "int8 cannot be combined"),
        ({"int8": "pictures", "opset": 12}, "too old for int8"),
        ({"imgsz": [64, 64, 64]}, "height and width"),
        ({"imgsz": 0}, "height and width"),
        ({"output": tmp_path / "a.pt"}, "must end in .onnx"),
        ({"output": checkpoint / "sub" / "a.onnx"}, "cannot be written"),
    ):
        with pytest.raises((FileError, UsageError), match=words):
            export(checkpoint, log=lambda line: None, **options)  # type: ignore[arg-type]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the super-user writes everywhere")
def test_a_folder_without_permission(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(FileError, match="cannot be written"):
        export(checkpoint, output=tmp_path / "closed" / "a.onnx")


def test_pictures_are_looked_for_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    for option in ("images", "int8"):
        with pytest.raises(DataError, match="not found"):
            export(checkpoint, output=tmp_path / "a.onnx", log=lambda line: None, **{option: "nowhere"})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_more_detections_than_nms_returns_are_compared_as_far_as_they_go() -> None:
    """Which of equally good ones are the last of 300 is not the file's doing; what is lost above them is."""
    y = np.zeros((5, 400), np.float32)
    y[0], y[1] = np.arange(400) % 20 * 30 + 20, np.arange(400) // 20 * 30 + 20
    y[2:4], y[4] = 10, 0.9 - 0.3 * np.arange(400) / 400
    other = y.copy()
    y[4, 290:310], other[4, 290:310] = np.linspace(0.68, 0.680001, 20), np.linspace(0.680001, 0.68, 20)
    got = proof.compare_detections(y, other, "anchor-free", tolerance=1e-4)
    assert 280 < got["compared"] < 300 and got["missing"] == got["extra"] == 0
    other[4, 3] = 0
    got = proof.compare_detections(y, other, "anchor-free", tolerance=1e-4)
    assert got["missing"] == 1 and got["extra"] == 0


def test_other_tasks_are_proved_by_their_numbers(tmp_path: Path) -> None:
    result = export("yolo11n-cls.yaml", imgsz=64, simplify=False, output=tmp_path / "a.onnx", log=lambda line: None)
    assert result.report["task"] == "classify" and result.report["proof"]["largest_difference"] <= 1e-4
    for options in ({"nms": True}, {"int8": drawn_images(1)}):
        with pytest.raises(UsageError, match="is a model for 'classify'"):
            export("yolo11n-cls.yaml", imgsz=64, output=tmp_path / "b.onnx", log=lambda line: None, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "b.onnx").exists()


def test_weights_in_another_yaml(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensors match"):
        open_source(checkpoint, cfg="yolov5n_eca.yaml")
    source = open_source(checkpoint, cfg="yolov5n_se.yaml")
    want = open_source(checkpoint).model.state_dict()
    assert all(torch.equal(v, want[k]) for k, v in source.model.state_dict().items())
    torch.save(dict(want), tmp_path / "bare.pt")
    assert open_source(tmp_path / "bare.pt", cfg="yolov5n_se.yaml").names


def test_the_command(cli: Any, checkpoint: Path, tmp_path: Path) -> None:
    out = cli("export", str(checkpoint), "--imgsz", "64", "--output", "out/model.onnx").ok()
    assert "equal to PyTorch" in out and "4 x SEAttention" in out and "largest difference" in out.lower()
    assert (tmp_path / "out/model.onnx").is_file() and (tmp_path / "out/model.onnx.json").is_file()
    assert "too old" in cli("export", str(checkpoint), "--opset", "7").mistake()
    assert "not found" in cli("export", "nothing.pt").mistake()
