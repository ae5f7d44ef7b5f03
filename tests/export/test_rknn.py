"""RKNN: what its compiler prints is read, what stays in fp16 is chosen by the network, int8 is run and compared."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from busy import make_busy
from onnx import TensorProto, helper, numpy_helper

from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.errors import CheckpointError, ExportError, FileError, UsageError
from yolo_attn.export import graph
from yolo_attn.export.asked import Asked
from yolo_attn.export.formats import npu, rknn
from yolo_attn.export.formats.apart import convert_apart
from yolo_attn.export.several import export_several
from yolo_attn.export.single import export_source
from yolo_attn.runtime.session import Detector

installed = pytest.mark.skipif(importlib.util.find_spec("rknn") is None, reason='needs pip install "yolo_attn[rknn]"')

# As rknn-toolkit2 2.3.2 prints it: a network that it compiled before, then this one, of which some lines were left out.
PRINTED = r"""
D RKNN: [08:34:00.132]                        Network Layer Information Table
D RKNN: [08:34:00.132] 0    Tanh               FLOAT16  CPU    (1,3,64,96)      (1,3,64,96)      0/0/0      24    Tanh:/model.3/Tanh
I rknn building done.
D RKNN: [08:34:00.532] -----------------------------------------------------------------------------------------------------
D RKNN: [08:34:00.532]                        Network Layer Information Table
D RKNN: [08:34:00.532] -----------------------------------------------------------------------------------------------------
D RKNN: [08:34:00.532] ID   OpType             DataType Target InputShape                 OutputShape      Cycles(DDR/NPU/Total)    RW(KB)       FullName
D RKNN: [08:34:00.532] -----------------------------------------------------------------------------------------------------
D RKNN: [08:34:00.532] 0    InputOperator      FLOAT16  CPU    \                          (1,3,64,96)      0/0/0                    0            InputOperator:images
D RKNN: [08:34:00.532] 1    ConvExSwish        FLOAT16  NPU    (1,3,64,96),(16,3,6,6),(16) (1,16,32,48)    4029/55296/55296         45           Conv:/model.0/conv/Conv
D RKNN: [08:34:00.532] 19   ReduceMax          FLOAT16  CPU    (1,32,16,24),(1)           (1,1,16,24)      0/0/0                    24           ReduceMax:/model.3/ReduceMax
D RKNN: [08:34:00.532] 47   ReduceMax          FLOAT16  CPU    (1,64,8,12),(1)            (1,1,8,12)       0/0/0                    12           ReduceMax:/model.6/m/m.0/attn/ReduceMax
D RKNN: [08:34:00.532] 102  Reshape            FLOAT16  CPU    (1,1,1,6),(4)              (1,1,2,3)        0/0/0                    0            Reshape:/model.3/ReduceMean#1_rs
D RKNN: [08:34:00.532] 189  Reshape            FLOAT16  CPU    (1,84,1,126),(3)           (1,84,126)       0/0/0                    21           Reshape:output0-rs
D RKNN: [08:34:00.532] 190  OutputOperator     FLOAT16  CPU    (1,84,126)                 \                0/0/0                    20           OutputOperator:output0
D RKNN: [08:34:00.712] 163 ConvExSwish model.28.cv3.2.0.conv.weight                FLOAT16   (80,256,3,3)  | 0x0048aa80 0x004e4a80 0x0005a000
D RKNN: [08:34:00.713] Total Internal Memory Size: 252KB
"""


def test_what_falls_to_the_cpu_is_read_from_what_the_compiler_prints() -> None:
    """Of the last network, without the copies at its ends; attention's operators are told by their names."""
    found = npu.placement(PRINTED, "rk3588", ["model.3", "model.6.m.0.attn"])
    assert found == {
        "chip": "rk3588",
        "operators": 5,
        "on_cpu": {"ReduceMax": 2, "Reshape": 2},
        "on_cpu_in_attention": {"ReduceMax": 2, "Reshape": 1},
    }
    assert npu.told(found, ["CBAM"]) == (
        "rk3588: 1 of 5 operators on the NPU; on the CPU: ReduceMax x2, Reshape x2; of attention: ReduceMax x2, Reshape"
    )
    plain = npu.placement(PRINTED, "rk3588", [])
    assert plain is not None and npu.told(plain, []).endswith("on the CPU: ReduceMax x2, Reshape x2")
    elsewhere = npu.placement(PRINTED, "rk3588", ["model.33"])  # no part of a name is taken for another layer's
    assert elsewhere is not None and npu.told(elsewhere, ["SE"]).endswith("of attention: none")
    whole = npu.placement(PRINTED.replace("CPU", "NPU"), "rk3588", ["model.3"])
    assert npu.told(whole, ["CBAM"]) == "rk3588: 5 of 5 operators on the NPU, all of attention among them"


def test_a_compiler_that_prints_no_table_is_not_taken_for_one_that_leaves_nothing_to_the_cpu() -> None:
    assert npu.placement("I rknn building done.\n", "rk3588", []) is None
    assert "did not print" in npu.told(None, ["SE"])


def test_attention_and_what_decodes_stay_in_fp16(tmp_path: Path) -> None:
    """Maps that the compiler has in int8; constants have ranges of their own, which it refuses to choose."""
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], name="/model.0/conv/Conv"),
        helper.make_node("Sigmoid", ["a"], ["b"], name="/model.1/gate/Sigmoid_2"),
        helper.make_node("Mul", ["a", "b"], ["c"], name="/model.1/Mul"),
        helper.make_node("Conv", ["c", "w"], ["d"], name="/model.2/cv2/Conv"),
        helper.make_node("Add", ["d", "k"], ["e"], name="/model.2/Add"),
        helper.make_node("exDataConvert", ["e"], ["output0"], name="output0__cvt", domain="rknn"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8, 4, 4]) for n in ("images", "output0")]
    weights = [helper.make_tensor(n, TensorProto.FLOAT, s, np.ones(s).ravel()) for n, s in (("w", [8, 8, 1, 1]), ("k", [1, 8, 1, 1]))]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)), str(tmp_path / "a.model"))
    kinds = {**dict.fromkeys("abcde", "int8"), "k": "int32", "output0": "float32"}
    ranges = yaml.safe_dump({"quantize_parameters": {k: {"dtype": v, "min": [0.5]} for k, v in kinds.items()}})
    text = rknn._chosen(tmp_path / "a.model", f"custom_quantize_layers: {{}}\n{ranges}", ["model.1"])
    assert yaml.safe_load(text) == {"custom_quantize_layers": dict.fromkeys("bce", "float16"), **yaml.safe_load(ranges)}
    whole = yaml.safe_load(rknn._chosen(tmp_path / "a.model", f"custom_quantize_layers: {{}}\n{ranges}", ["model.1"], head=True))
    assert whole["custom_quantize_layers"] == dict.fromkeys("bcde", "float16")  # with the convolution that is decoded
    with pytest.raises(ExportError, match="a form that is not known"):
        rknn._chosen(tmp_path / "a.model", f"version: 3\n{ranges}", [])


def gram(c: int, path: Path) -> onnx.ModelProto:
    """A network with the product of a map of `c` channels with its own transpose."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="/conv/Conv"),
        helper.make_node("Reshape", ["a", "flat"], ["z"], name="/Reshape"),
        helper.make_node("Transpose", ["z"], ["t"], name="/Transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["z", "t"], ["y"], name="/MatMul"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, c, 16, 24]), ("y", [1, c, c]))]
    weights = [
        numpy_helper.from_array(np.random.default_rng(0).normal(size=(c, c, 1, 1)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([1, c, 384]), "flat"),
    ]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return model


@pytest.mark.parametrize("c", [32, 5])
def test_a_product_with_its_own_transpose_is_computed_in_halves(c: int, tmp_path: Path) -> None:
    model = gram(c, tmp_path / "a.onnx")
    x = {"x": np.random.default_rng(1).normal(size=(1, c, 16, 24)).astype(np.float32)}
    assert graph.split_grams(model) == 1 and graph.split_grams(model) == 0
    onnx.checker.check_model(model, full_check=True)
    before, after = (
        onnxruntime.InferenceSession(f, providers=["CPUExecutionProvider"]).run(None, x)[0]
        for f in (str(tmp_path / "a.onnx"), model.SerializeToString())
    )
    assert before.shape == (1, c, c) and np.abs(before - after).max() <= 1e-6 * np.abs(before).max()


def heads(path: Path) -> onnx.ModelProto:
    """A network whose query, key and value are one map behind a scale and a shift, each with a scale of its own."""
    r, c = np.random.default_rng(0), 32
    weights = {name: r.normal(size=(1, c, 1, 1)).astype(np.float32) for name in ("g", "b", "wq", "wk", "wv")}
    weights |= {"w": r.normal(size=(c, c, 1, 1)).astype(np.float32), "split": np.array([1, 8, 4, 12])}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="/Conv"),
        helper.make_node("Mul", ["a", "g"], ["scaled"], name="/norm/Mul"),
        helper.make_node("Add", ["b", "scaled"], ["z"], name="/norm/Add"),
        *(helper.make_node("Mul", ["z", f"w{k}"], [k], name=f"/{k}/Mul") for k in "qkv"),
        *(helper.make_node("Reshape", [k, "split"], [f"{k}h"], name=f"/{k}/Reshape") for k in "qkv"),
        helper.make_node("Transpose", ["kh"], ["kt"], name="/Transpose", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["qh", "kt"], ["scores"], name="/MatMul"),
        helper.make_node("Softmax", ["scores"], ["p"], name="/Softmax", axis=-1),
        helper.make_node("MatMul", ["p", "vh"], ["y"], name="/MatMul_1"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, c, 3, 4]), ("y", [1, 8, 4, 12]))]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return model


def test_maps_scaled_from_one_get_a_scale_of_their_own(tmp_path: Path) -> None:
    """All of them or none: not where the map before is read elsewhere."""
    model = heads(tmp_path / "a.onnx")
    x = {"x": np.random.default_rng(1).normal(size=(1, 32, 3, 4)).astype(np.float32)}
    assert graph.scale_apart(model) == 3 and graph.scale_apart(model) == 0
    onnx.checker.check_model(model, full_check=True)
    assert "/norm/Mul" not in {n.name for n in model.graph.node} and sum(n.op_type == "Mul" for n in model.graph.node) == 3
    before, after = (
        onnxruntime.InferenceSession(f, providers=["CPUExecutionProvider"]).run(None, x)[0]
        for f in (str(tmp_path / "a.onnx"), model.SerializeToString())
    )
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()
    for seen in ("z", "scaled"):
        model = heads(tmp_path / "a.onnx")
        model.graph.output.append(helper.make_tensor_value_info(seen, TensorProto.FLOAT, [1, 32, 3, 4]))
        assert graph.scale_apart(model) == 0


@installed
@pytest.mark.parametrize(("network", "chip"), [(lambda path: gram(32, path), "rk3588"), (heads, "rk3566")], ids=["gram", "heads"])
def test_why_that_is_done(network: Any, chip: str, tmp_path: Path) -> None:
    """The compiler crashes on the networks themselves. When this fails, ask whether they are to be changed still."""
    network(tmp_path / "a.onnx")

    def build(changed: bool) -> Path:
        from rknn import api

        with rknn.talking() if changed else contextlib.nullcontext():
            net = api.RKNN()
            net.config(target_platform=chip)
            net.load_onnx(model=str(tmp_path / "a.onnx"))
            net.build(do_quantization=False)
            net.export_rknn("m.rknn")
        return Path("m.rknn")

    for changed in (False, True):
        (tmp_path / str(changed)).mkdir()
    with pytest.raises(ExportError, match="signal 11"):
        convert_apart(lambda: build(False), tmp_path / "False", "the compiler")
    assert convert_apart(lambda: build(True), tmp_path / "True", "the compiler").stat().st_size > 1000


@installed
def test_why_masks_are_joined_instead_of_repeated(tmp_path: Path) -> None:
    """The compiler exchanges a repetition with the reshape behind it, and repeats each row instead of all of them.

    When this fails, `cat` in modules/biformer.py may be `repeat` again.
    """
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Tile", ["a", "times"], ["b"]),
        helper.make_node("Reshape", ["b", "flat"], ["repeated"]),
        helper.make_node("Reshape", ["a", "rows"], ["c"]),
        helper.make_node("Concat", ["c"] * 4, ["joined"], axis=1),
    ]
    sizes = {"times": [1, 4, 1, 1], "flat": [1, 20, 1, 6], "rows": [1, 5, 1, 6]}
    weights = [numpy_helper.from_array(np.array(v), k) for k, v in sizes.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 5, 6])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 20, 1, 6]) for n in ("repeated", "joined")]
    made = helper.make_graph(nodes, "g", [given], ports, weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "a.onnx"))
    x = np.random.default_rng(0).random((1, 1, 5, 6), np.float32)

    def simulate() -> Path:
        from rknn import api

        net = api.RKNN()
        net.config(target_platform="rk3588")
        net.load_onnx(model=str(tmp_path / "a.onnx"))
        net.build(do_quantization=False)
        net.init_runtime()
        np.savez("found.npz", *net.inference(inputs=[x], data_format=["nchw"]))
        return Path("found.npz")

    (tmp_path / "there").mkdir()
    with np.load(convert_apart(simulate, tmp_path / "there", "the simulator")) as found:
        repeated, joined = (found[k].reshape(20, 6) for k in found.files)
    want = x.reshape(5, 6)
    np.testing.assert_allclose(joined, np.tile(want, (4, 1)), atol=1e-3)
    np.testing.assert_allclose(repeated, np.repeat(want, 4, 0), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "rknn", "chip": "rk3658"}, r"no chip 'rk3658', only rk3588, .*\. Did you mean .*rk35"),
        ({"format": "onnx", "chip": "rk3588"}, "--format onnx has no --chip, only rknn has"),
        ({"format": "bundle", "chip": "rk3588"}, "--format bundle has no --chip"),
    ],
)
def test_a_processor_that_there_is_not(options: dict[str, str], told: str) -> None:
    """Known before anything is opened, whether the toolkit is installed or not."""
    with pytest.raises(UsageError, match=told):
        Asked(**options).checked()  # type: ignore[arg-type]


def test_a_processor_concerns_its_own_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several formats, ONNX has none, and is made all the same; of those without any, it is an error."""
    asked = Asked(chip="rk3566")
    monkeypatch.setattr("yolo_attn.export.asked.check_installed", lambda format: {})
    with pytest.raises(CheckpointError, match="not found"):  # all options are good, and the checkpoint is looked for
        export_several("none.pt", ["onnx", "rknn"], asked)
    with pytest.raises(UsageError, match="--format onnx has no --chip, only rknn has"):
        export_several("none.pt", ["onnx", "openvino"], asked)
    with pytest.raises(UsageError, match="no chip 'rk1'"):
        export_several("none.pt", ["onnx", "rknn"], Asked(chip="rk1"))


@installed
def test_int8_for_another_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proved in fp16, quantized, run by the simulator, compared, in a folder with a space; nothing is left where it was called."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "of ours").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("yolo_attn.export.formats.int8.loses", lambda near, exact: False)  # its layers are not asked for
    torch.manual_seed(0)
    source = open_source("yolov5n_se.yaml")
    make_busy(source.model)
    lines: list[str] = []
    asked = Asked("rknn", imgsz=[64, 96], chip="RK3566", int8=drawn_images(3, seed=3), output=tmp_path / "of ours").checked()
    result = export_source(source, asked, lines.append)
    report = json.loads(result.report_path.read_text())
    assert report["proof"]["passed"] and report["precision"] == "fp16"
    small = Path(report["int8"]["path"])
    for folder, npu_told in ((result.path, report["npu"]), (small, report["int8"]["npu"])):
        assert [p.name for p in folder.glob("*.rknn")] == ["model-rk3566.rknn"]
        assert npu_told["chip"] == "rk3566" and npu_told["operators"] > 100 and npu_told["on_cpu_in_attention"] == {}
    near = report["int8"]
    assert near["bytes"] == (small / "model-rk3566.rknn").stat().st_size < 0.75 * report["bytes"]
    assert near["calibrated_on"] == 3 and near["same_iou_0.5"] >= 0.25 * near["found"] > 0
    assert any(line.startswith("int8: rk3566: ") for line in lines) and any("of the fp16 file" in line for line in lines)
    detector = Detector(small)
    assert detector.runtime == "rknn" and len(detector(np.zeros((1, 3, 64, 96), np.float32))) == 1
    assert list((tmp_path / "cwd").iterdir()) == []
    (small / "model.data").unlink()
    with pytest.raises(FileError, match="model.data is missing"):
        Detector(small)
