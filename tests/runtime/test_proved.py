"""What was proved is what runs: a file that changed since, or that belongs to other weights, is never taken in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from yolo_attn.errors import FileError
from yolo_attn.runtime import proved
from yolo_attn.runtime.engines import ncnn, network
from yolo_attn.runtime.engines.network import Options
from yolo_attn.runtime.engines.onnxruntime import open_network
from yolo_attn.runtime.session import Detector


def folder(place: Path, **report: Any) -> Path:
    """A folder as an NCNN export leaves it, with its report."""
    model = place / "best_ncnn_model"
    model.mkdir()
    for name in ("model.ncnn.param", "model.ncnn.bin", "metadata.yaml"):
        (model / name).write_text(f"of {name}", encoding="utf-8")
    write(model, **report)
    return model


def write(model: Path, **report: Any) -> None:
    """Write the report that an export would."""
    held = proved.digest(model)
    told = {"sha256": held.sha256, "files": held.files, "proof": {"passed": True, "runs": []}, **report}
    proved.report_path(model).write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: None, ""),
        (lambda m: (m / "model.ncnn.bin").write_text("of another model"), "model.ncnn.bin changed since it was proved"),
        (lambda m: (m / "metadata.yaml").write_text("imgsz: [320, 320]"), "metadata.yaml changed"),
        (lambda m: (m / "metadata.yaml").unlink(), "metadata.yaml is missing"),
        (lambda m: (m / "model.param").write_text("another"), "model.param was added"),
        (lambda m: (m / "README.md").write_text("ours"), ""),
        (lambda m: (m / "._model.ncnn.bin").write_text("of a Mac"), ""),
    ],
)
def test_a_folder_of_which_a_file_changed(change: Any, told: str, tmp_path: Path) -> None:
    model = folder(tmp_path)
    change(model)
    for path in (model, model / "model.ncnn.param"):  # as a runtime may be given it
        if not told:
            assert proved.check(path) == []
            continue
        with pytest.raises(FileError, match=rf"best_ncnn_model: {told}.*--unproved"):
            proved.check(path)
        (line,) = proved.check(path, unproved=True)
        assert told in line and "--unproved" not in line


def test_a_report_of_an_earlier_version_holds_one_hash(tmp_path: Path) -> None:
    model = folder(tmp_path, files=None)
    assert proved.check(model) == []
    (model / "model.ncnn.bin").write_text("of another model", encoding="utf-8")
    with pytest.raises(FileError, match="a file in it changed since it was proved"):
        proved.check(model)


def test_a_file_without_report_or_that_differs_by_it(tmp_path: Path) -> None:
    model = tmp_path / "best.onnx"
    model.write_bytes(b"graph")
    for text in (None, "{", "[]", "{}"):
        if text is not None:
            proved.report_path(model).write_text(text, encoding="utf-8")
        (line,) = proved.check(model)
        assert "best.onnx: was not proved by yolo-attn export" in line and "best.onnx.json" in line
        assert ("is damaged" in line) == (text is not None)
    for nothing in ("yes", None, {}, {"passed": "yes"}):
        write(model, proof=nothing)
        assert "has no proof that passed" in proved.check(model)[0]
    write(model, proof={"passed": False, "runs": [], "problem": "the boxes differ"})
    with pytest.raises(FileError, match="best.onnx: differs from PyTorch by its report: the boxes differ.*--unproved"):
        proved.check(model)
    assert proved.check(model, unproved=True)[0].startswith(f"{model}: differs")
    model.write_bytes(b"other")
    with pytest.raises(FileError, match="best.onnx: changed since it was proved"):
        proved.check(model)


def test_an_int8_file_of_other_weights(tmp_path: Path) -> None:
    full, small = tmp_path / "best.onnx", tmp_path / "best_int8.onnx"
    for model in (full, small):
        model.write_bytes(b"graph")
    write(full, weights="new")
    write(small, weights="new", fp32=full.name, proof=None, measured={"found": 1})
    assert proved.check(small) == []
    write(small, weights="old", fp32=full.name, proof=None, measured={"found": 1})
    assert proved.check(small) == [f"{small}: is of other weights than best.onnx beside it, which was exported since"]


# --- files of the kit's own making -------------------------------------------------------------------------------------


def tiny(path: Path, metadata: dict[str, str]) -> Path:
    """A graph with a detector's input and output; when run, it gives an output of another size than it tells."""
    size = helper.make_tensor("size", TensorProto.INT64, [3], [1, 6, 9])
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Constant", [], ["size"], value=size),
        helper.make_node("Cast", ["mean"], ["more"], to=TensorProto.INT64),
        helper.make_node("Add", ["size", "more"], ["sized"]),
        helper.make_node("ConstantOfShape", ["sized"], ["output0"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 9])
    model = helper.make_model(helper.make_graph(nodes, "g", [images], [output]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


def test_a_file_without_class_names_says_so(tmp_path: Path) -> None:
    model = tiny(tmp_path / "a.onnx", {})
    write(model)
    assert Detector(model).notes == [f"{model}: its metadata has no class names: classes are told by their numbers"]
    named = tiny(tmp_path / "b.onnx", {"names": "{0: 'a', 1: 'b'}"})
    write(named)
    assert Detector(named).notes == []


def test_the_commands_refuse_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error, exit code 1; with --unproved the line, and it runs."""
    import cv2

    from yolo_attn.cli import main

    monkeypatch.chdir(tmp_path)
    model = tiny(Path("a.onnx"), {"names": "{0: 'a', 1: 'b'}"})
    write(model)
    tiny(model, {"names": "{0: 'b', 1: 'a'}"})
    cv2.imwrite("a.png", np.zeros((32, 32, 3), np.uint8))
    for argv in (["detect", "a.onnx", "--source", "a.png", "--no-save"], ["bench", "a.onnx", "--rounds", "1", "--warmup", "0", "--json"]):
        assert main(argv) == 1
        assert capsys.readouterr().err.count("a.onnx: changed since it was proved") == 1
        assert main([*argv, "--unproved"]) == 0
        assert "note: a.onnx: changed since it was proved" in capsys.readouterr().err
        Path("a.onnx.json").rename("moved")
        assert main(argv) == 0
        assert capsys.readouterr().err.count("note: a.onnx: was not proved") == 1
        Path("moved").rename("a.onnx.json")


def test_a_session_keeps_its_voice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What onnxruntime warns of while it runs is heard, whatever was tried when the file was opened."""
    model = tiny(tmp_path / "a.onnx", {})
    graph = onnx.load(str(model))
    graph.doc_string = "DequantizeLinear"  # what tells an int8 file
    onnx.save(graph, str(model))
    onnxruntime.set_default_logger_severity(2)  # its own; onnxslim raises it in every process that simplifies
    run = open_network(model, Options(threads=1)).run
    assert capfd.readouterr().err == ""
    run(np.ones((1, 3, 32, 32), np.float32))
    assert "does not match actual shape" in capfd.readouterr().err


def test_threads_are_those_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A core's second thread is none, nor a core that this process may not use; NCNN's idle threads sleep."""
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
        assert network.cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 99)
    siblings = tmp_path / "siblings"
    siblings.write_text("0-1\n", encoding="ascii")
    monkeypatch.setattr(network, "SIBLINGS", str(siblings))
    assert network.cores() == 1
    monkeypatch.setattr(network, "SIBLINGS", str(tmp_path / "none"))
    assert network.cores() == 99
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with ncnn._patient():
        assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # the user's choice
    with ncnn._patient():
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
