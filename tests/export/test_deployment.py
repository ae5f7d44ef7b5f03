"""The table of deployment: what it says, who reads it, and a slice of it made again; what a runtime itself computes wrongly."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from yolo_attn import cli
from yolo_attn.errors import ExportError, FileError
from yolo_attn.export import deployment, refused
from yolo_attn.export.asked import Asked
from yolo_attn.export.formats.base import check_installed
from yolo_attn.export.formats.table import FORMATS
from yolo_attn.registry import registry

sys.path.insert(0, str(ROOT / "tools"))
import deploy_docs
import deploy_matrix

SLICE = ["SEAttention", "ECA", "CBAM", "CoordAtt", "EMAttention"]


def test_every_line_says_what_became_of_a_registered_module() -> None:
    rows = deployment.read()
    offered = [(f, p) for f in ("onnx", *FORMATS) for p in deploy_matrix.precisions_of(f)]
    wanted = {(name, *offer) for name in deploy_matrix.modules() for offer in offered}
    assert {(r["module"], r["format"], r["precision"]) for r in rows} == wanted, "tools/deploy_matrix.py --missing measures them"
    for row in rows:
        assert registry.get_entry(row["module"]).name == row["module"] and row["result"] in deployment.RESULTS
        assert row["format"] in ("onnx", *FORMATS) and row["precision"] in deployment.PRECISIONS
        assert (row["result"] in (*deployment.BAD, "loses")) == bool(row["reason"]), row
        if row["result"] in ("exact", "close") and row["precision"] == "int8":
            assert int(row["missing"]) + int(row["extra"]) <= 0.05 * int(row["compared"]) and int(row["compared"]) > 10
        elif row["result"] in ("exact", "close"):
            assert float(row["difference"]) <= (1e-4 if row["precision"] == "fp32" else 5e-2)
            flipped = int(row["missing"]) + int(row["extra"])
            assert int(row["compared"]) > 10 and row["version"]
            assert flipped <= (0 if row["precision"] == "fp32" else 0.05 * int(row["compared"]))
    assert all(r["result"] == "exact" for r in rows if r["format"] == "onnx" and r["precision"] == "fp32")


def test_a_table_that_was_merged(tmp_path: Path) -> None:
    """A line that both sides have counts once, as it was measured last; a line of other columns is an error that names it."""
    path = tmp_path / "deployment.csv"
    row = {**dict.fromkeys(deployment.COLUMNS, ""), "module": "ECA", "format": "onnx", "precision": "fp32", "result": "exact"}
    later = {**row, "result": "close", "measured": "2026-01-02T00:00:00Z"}
    head = ",".join(deployment.COLUMNS)

    def told(*rows: dict[str, str] | str) -> list[str]:
        path.write_text("\n".join([head, *(r if isinstance(r, str) else ",".join(r.values()) for r in rows)]))
        deployment.read.cache_clear()
        try:
            return [r["result"] for r in deployment.read(path)]
        finally:
            deployment.read.cache_clear()

    assert told(row, later) == told(later, row) == ["close"]
    assert told(row, {**row, "result": "converted"}) == ["converted"]
    for wrong in ("ECA,onnx", ",".join(row.values()) + ",more", head, ",".join({**row, "result": "good"}.values())):
        with pytest.raises(FileError, match=r"deployment\.csv, line 3: "):
            told(row, wrong)
    head = head.replace("reason,", "")
    with pytest.raises(FileError, match="line 1: the columns are"):
        told()


def test_a_table_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Not taken for one without the module; an export goes on, as the proof decides."""
    for made in (lambda p: None, lambda p: p.write_bytes(b"\xff\xfe"), lambda p: p.write_text("module,format")):
        path = tmp_path / "deployment.csv"
        made(path)
        monkeypatch.setattr(deployment, "read", lambda path=path, own=deployment.read.__wrapped__: own(path))
        for argv in (["list", "SE", "--deploy"], ["list", "--deploy", "--json"]):
            assert cli.main(argv) == 1
            told = capsys.readouterr()
            (line,) = (text for text in told.err.splitlines() if not text.startswith("yolo_attn: removed what a killed process left"))
            assert line.startswith(f"yolo-attn list: {path}") and not told.out
        lines: list[str] = []
        refused.check_known(SimpleNamespace(path=Path("a.pt")), {"SEAttention": 1}, Asked("mnn"), lines.append)  # type: ignore[arg-type]
        assert len(lines) == 1 and lines[0].startswith(f"note: what is known to fail is not told beforehand: {path}")
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["SEE"], 1, "no attention module is called 'SEE'. Did you mean"),
        (["{own}:Own"], 1, "has the modules of the kit alone; 'Own' is yolo_attn.plugins.mine.Own"),
        (["SE", "--kind", "spatial"], 2, "'SE' is not of the kind 'spatial'"),
        (["SE", "--markdown"], 2, "--deploy has no --markdown"),
        (["--configs"], 2, "choose one of them"),
    ],
)
def test_what_the_table_has_nothing_for(argv: list[str], code: int, told: str, tmp_path: Path, capsys: Any) -> None:
    own = tmp_path / "mine.py"
    own.write_text("from torch import nn\nclass Own(nn.Module):\n    def __init__(self, channels): super().__init__()\n")
    assert cli.main(["list", *(a.format(own=own) for a in argv), "--deploy"]) == code
    said = capsys.readouterr()
    if registry.find("Own") is not None:  # the name is others' too
        registry.unregister("Own")
    assert told in said.err and not said.out


def test_the_file_has_each_line_once() -> None:
    lines = deployment.PATH.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(deployment.read()), "run: python tools/deploy_matrix.py --docs"


def test_operators_that_an_npu_leaves_to_the_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = {**dict.fromkeys(deployment.COLUMNS, ""), "module": "ECA", "format": "rknn", "precision": "fp16", "result": "close"}
    monkeypatch.setattr(deployment, "read", lambda: ({**row, "on_cpu": "Transpose x 2"},))
    assert cli.main(["list", "--deploy"]) == 0
    assert "left to the CPU" in capsys.readouterr().out
    assert cli.main(["list", "ECA", "--deploy"]) == 0
    assert "on_cpu" in capsys.readouterr().out
    for words in deploy_docs.SAID.values():
        assert "| ECA | rknn | fp16 | Transpose x 2 |" in deploy_docs.tables(deployment.read(), words)


def test_an_int8_line_is_judged_by_detections() -> None:
    """Nine in ten is not close, whatever else the report says."""
    row = {"module": "ECA", "format": "onnx", "precision": "int8"}
    near = {"found": 100, "same_iou_0.9": 50, "same_iou_0.5": 98, "extra": 3, "layers": [{"layer": "a/Conv", "error": 0.5}]}
    found = {"versions": {"onnxruntime": "1"}, "int8": near}
    assert deploy_matrix.judged_int8(row, found, "")["result"] == "close"
    lost = deploy_matrix.judged_int8(row, {**found, "int8": {**near, "extra": 4}}, "")
    assert lost["result"] == "loses" and "2 of 100" in lost["reason"] and "a/Conv 50.0%" in lost["reason"]
    assert deploy_matrix.judged_int8(row, {"versions": {}}, "why")["result"] == "refused"


def test_the_docs_show_the_table() -> None:
    for name, words in deploy_docs.SAID.items():
        assert deploy_docs.tables(deployment.read(), words) in (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_versions_are_compared_by_their_releases() -> None:
    """Of a pre-release the release counts, and 2.4 is 2.4.0; an empty version is before all."""
    for same in (("2.4", "2.4.0"), ("9.0", "9.0b1"), ("2.15.0.dev20261126", "2.15.0"), ("2.14.1+cu130", "2.14.1")):
        assert deployment.numbers(same[0]) == deployment.numbers(same[1])
    assert deployment.numbers("") < deployment.numbers("0.1") < deployment.numbers("0.10") < deployment.numbers("1rc1")


@pytest.mark.parametrize(("format", "told"), [("engine", "no format 'engine', only onnx, "), ("onix", "unknown"), ("rknn", "is not installed")])
def test_the_table_keeps_no_line_of_what_cannot_be_tried(
    format: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A format without its packages is an error before anything is written, not a line that says refused."""

    def absent(format: Any) -> None:
        raise ExportError("rknn-toolkit2, which is not installed")

    monkeypatch.setattr(deploy_matrix, "check_installed", absent)
    monkeypatch.setattr(deploy_matrix, "make", lambda *a: pytest.fail("tried"))
    monkeypatch.setattr(deploy_matrix, "write", lambda *a: pytest.fail("written"))
    monkeypatch.setattr(sys, "argv", ["deploy_matrix.py", "--modules", "SE", "--formats", format])
    assert deploy_matrix.main() == 1
    assert told in capsys.readouterr().err


def test_list_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--deploy"]) == 0
    text = capsys.readouterr().out
    assert "SEAttention" in text and "openvino" in text and "not converted" in text
    assert cli.main(["list", "EMA", "--deploy", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["module"] for r in rows} == {"EMAttention"} and "reason" in rows[0]
    assert cli.main(["list", "SE", "--deploy"]) == 0
    assert "difference" in capsys.readouterr().out
    assert cli.main(["list", "NoSuch", "--deploy"]) == 1


def test_an_export_refuses_what_is_known_to_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the version that was tried, and older ones; a newer one is tried, as what --force asks for."""
    from yolo_attn.export.single import export

    row = dict.fromkeys(deployment.COLUMNS, "")
    row = {**row, "module": "SEAttention", "format": "torchscript", "precision": "fp32", "reason": "It computes 3."}
    bad = {**row, "result": "crashes", "version": "999.1"}
    good = {**row, "format": "mnn", "result": "exact", "reason": ""}
    lines: list[str] = []

    def tried(*table: dict[str, str], **options: Any) -> list[str]:
        monkeypatch.setattr(deployment, "read", lambda: table)
        lines.clear()
        export("yolov5n_se.yaml", format="torchscript", imgsz=64, output=tmp_path / "a.torchscript", log=lines.append, **options)
        return [line for line in lines if "It computes 3" in line]

    with pytest.raises(ExportError, match=r"SEAttention crashes with torch 999\.1: It computes 3\. No newer torch .* to mnn, .*--force") as caught:
        tried(bad, good)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    with pytest.raises(ExportError, match="Add --force"):
        tried(bad)
    assert "--force was given" in tried(bad, force=True)[0] and (tmp_path / "a.torchscript").is_file()
    here = deployment.installed(deployment.packages_of("torchscript", "fp32"))
    assert f"torch {here['torch']} is installed" in tried({**bad, "version": "1.2"})[0]


def test_the_table_says_nothing_of_a_users_module_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in may have taken a name over: what was measured of the kit's module does not stop it."""
    row = {**dict.fromkeys(deployment.COLUMNS, ""), "module": "SEAttention", "format": "mnn", "precision": "fp32"}
    monkeypatch.setattr(deployment, "read", lambda: ({**row, "result": "differs", "version": "999", "reason": "Why."},))
    source: Any = SimpleNamespace(path=Path("a.pt"))
    asked, lines = Asked("mnn"), []
    with pytest.raises(ExportError, match="SEAttention differs"):
        refused.check_known(source, {"SEAttention": 1}, asked, lines.append)
    own = replace(registry.get_entry("SEAttention"), cls=type("SEAttention", (nn.Module,), {}))
    monkeypatch.setattr(refused, "registry", SimpleNamespace(find=lambda name: own))
    refused.check_known(source, {"SEAttention": 1}, asked, lines.append)
    assert lines == []


def test_which_lines_count_for_a_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {**dict.fromkeys(deployment.COLUMNS, ""), "module": "ECA", "format": "mnn", "precision": "fp32", "reason": "why"}
    row = {**row, "result": "differs", "version": "3.6.1"}

    def faults(precision: str, *table: dict[str, str], version: str = "3.6.1") -> tuple[int, int]:
        monkeypatch.setattr(deployment, "read", lambda: table)
        stops, notes = deployment.faults_of(["ECA", "CBAM"], "mnn", precision, {"MNN": version})
        return len(stops), len(notes)

    half = {**row, "precision": "fp16"}
    assert faults("fp32", row) == faults("fp16", row) == faults("int8", row) == (1, 0)
    assert faults("fp16", row, {**half, "result": "close", "reason": ""}) == (0, 1)
    assert faults("fp16", row, half) == (1, 1) and faults("fp32", half) == (0, 0)
    assert faults("fp32", {**row, "module": "SE"}, {**row, "format": "ncnn"}) == (0, 0)
    assert faults("fp32", row, version="3.6.0") == (1, 0) and faults("fp32", row, version="3.10") == (0, 1)
    assert faults("fp32", {**row, "result": "refused"}) == (0, 1)
    assert faults("int8", {**row, "precision": "int8", "result": "loses"}) == (0, 1)


@pytest.mark.parametrize(
    ("version", "here", "told"),
    [
        ("ncnn 1.0.9, pnnx 8", {"ncnn": "1.0.9", "pnnx": "8"}, "with ncnn 1.0.9 and pnnx 8: Why. No newer ncnn or pnnx is installed."),
        ("ncnn 1.0.9, pnnx 8", {"ncnn": "1.0.8", "pnnx": "7"}, "No newer ncnn or pnnx is installed."),
        ("ncnn 1.0.9, pnnx 8", {"ncnn": "1.0.9", "pnnx": "9"}, "Why. pnnx 9 is installed, so it is tried"),
        ("ncnn 1.0.9, pnnx 8", {"ncnn": "1.0.10", "pnnx": "7"}, "Why. ncnn 1.0.10 is installed, so it is tried"),
        ("ncnn 1.0.9, pnnx 8", {"ncnn": "1.0.10", "pnnx": "9"}, "Why. ncnn 1.0.10 and pnnx 9 are installed, so it is tried"),
        ("1.0.9", {"ncnn": "1.0.9", "pnnx": "9"}, "with ncnn 1.0.9: Why. No newer ncnn is installed."),  # of pnnx nothing is known
        ("ncnn 1.0.9, pnnx 8", {}, "No newer ncnn or pnnx is installed."),
        ("", {"ncnn": "1.0.9", "pnnx": "9"}, "crashes with ncnn: Why."),
    ],
)
def test_a_fault_of_several_packages(version: str, here: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be of the runtime or of the converter: each is compared, and the message names the one that matters."""
    row = {**dict.fromkeys(deployment.COLUMNS, ""), "module": "ECA", "format": "ncnn", "precision": "fp32", "reason": "Why."}
    monkeypatch.setattr(deployment, "read", lambda: ({**row, "result": "crashes", "version": version},))
    stops, notes = deployment.faults_of(["ECA"], "ncnn", "fp32", here)
    assert (len(stops), len(notes)) == ((1, 0) if "No newer" in told else (0, 1)) and told in (*stops, *notes)[0]


def test_the_packages_of_a_line_are_those_that_its_format_needs() -> None:
    """What converts, runs and quantizes; what is needed beside these, in a version of its own, is of no line."""
    beside = {"onnx", "numpy", "setuptools"}
    for name, kind in FORMATS.items():
        known = {p for precision in deployment.PRECISIONS for p in deployment.packages_of(name, precision)}
        assert known - {"torch"} == {n.package for n in kind.needs} - beside, name
    found = {"torch": "2.14.1+cpu", "litert": "9", "ai-edge-litert": "2.3.0", "litert-torch": "0.10.0", "ai-edge-quantizer": "0.9"}
    row = {"format": "tflite", "precision": "fp32"}
    assert deployment.versions_in(found, row) == "ai-edge-litert 2.3.0, litert-torch 0.10.0"
    text = deployment.versions_in(found, {**row, "precision": "int8"})
    assert deployment.versions_of({**row, "version": text}) == {k: v for k, v in found.items() if "-" in k}
    assert deployment.versions_in(found, {"format": "torchscript", "precision": "fp32"}) == "2.14.1"
    assert deployment.versions_of({"format": "torchscript", "version": "2.14.1"}) == {"torch": "2.14.1"}
    for line in deployment.read():
        assert [*deployment.versions_of(line)] == [*deployment.packages_of(line["format"], line["precision"])], line


@pytest.mark.slow
@pytest.mark.parametrize("name", SLICE)
def test_a_slice_of_it_made_again(name: str, tmp_path: Path) -> None:
    """In every format whose runtime is installed, with weights away from their start."""
    source = deploy_matrix.detector(name, tmp_path)
    known = {(r["format"], r["precision"]): r["result"] for r in deployment.read() if r["module"] == name}
    tried = 0
    for format in ("onnx", *(f for f in FORMATS if FORMATS[f].runtime)):
        if format != "onnx":
            try:
                check_installed(FORMATS[format])
            except Exception:  # not on this machine
                continue
        if (format, "fp32") not in known:
            continue
        folder = tmp_path / format
        folder.mkdir()
        (row,) = deploy_matrix.try_one(source, name, format, "fp32", folder)
        assert (row["result"] in deployment.BAD) == (known[format, "fp32"] in deployment.BAD), row
        tried += 1
    assert tried
    about = deploy_matrix.graph_of(name)
    row = next(r for r in deployment.read() if r["module"] == name and r["format"] == "onnx")
    assert about["rank"] == int(row["rank"]) and abs(about["nodes"] - int(row["nodes"])) <= 2


def test_mnn_converts_without_its_wrapper_s_errands() -> None:
    """Importing it runs pip, and asks a server for a token; an export does neither."""
    pytest.importorskip("MNN")
    code = (
        "import os, sys, urllib.request; from yolo_attn.export.formats.mnn import keep_quiet; ran = []\n"
        "os.system = ran.append; urllib.request.urlopen = ran.append; keep_quiet()\n"
        "from MNN.tools import mnnconvert\nassert not ran and mnnconvert.mnn_logger is None, ran"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_openvino_converts_without_telling_its_maker() -> None:
    """It would fork for each event, and wait for a server."""
    pytest.importorskip("openvino_telemetry")
    code = (
        "import sys; from yolo_attn.export.formats.openvino import keep_quiet; keep_quiet()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__.endswith('stub') and not sys.modules['openvino_telemetry']"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


class Rows(nn.Module):
    """softmax(z z^T) z, as the paper of DualAttention has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.flatten(2)
        return ((z @ z.transpose(1, 2)).softmax(-1) @ z).reshape(x.shape)


class Transposed(nn.Module):
    """The same numbers, as the module has it: z z^T is symmetric."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.flatten(2)
        return ((z @ z.transpose(1, 2)).transpose(1, 2).softmax(-1) @ z).reshape(x.shape)


def test_openvino_takes_a_tensor_attending_to_itself_for_another_one() -> None:
    """With dynamic shapes it is wrong by more than half of the output; the module's own spelling is right."""
    ov = pytest.importorskip("openvino")
    torch.manual_seed(0)
    x = 0.3 * torch.randn(1, 16, 8, 8)
    off = {}
    for module in (Rows(), Transposed()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = ov.convert_model(module, example_input=x)
        got = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
        want = module(x).numpy()
        off[type(module).__name__] = np.abs(got - want).max() / np.abs(want).max()
    assert off["Transposed"] < 1e-5
    if off["Rows"] < 1e-3:
        pytest.skip(f"OpenVINO {ov.__version__} computes both: the reason in modules/danet.py is history")
    assert off["Rows"] > 0.1


@pytest.mark.parametrize(("part", "usual"), [(nn.GELU(), 1e-5), (nn.Conv2d(16, 16, 7, padding=(3, 2)), 5e-5)], ids=["gelu", "7x7"])
def test_mnn_is_given_forms_that_it_computes_exactly(
    part: nn.Module, usual: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers by other operators; in the usual ones MNN 3.6 is off by more than fp32 is."""
    MNN = pytest.importorskip("MNN")
    from yolo_attn.export.formats.mnn import exact_forms, keep_quiet

    keep_quiet()
    from MNN.tools import mnnconvert

    torch.manual_seed(0)
    x, before = 3 * torch.randn(1, 16, 16, 24), (nn.functional.gelu, nn.functional.conv2d)
    with torch.no_grad():
        want = part.double()(x.double()).numpy()
        with exact_forms():
            np.testing.assert_allclose(part(x.double()).numpy(), want, rtol=1e-12, atol=1e-12)
    part.float().requires_grad_(False)
    monkeypatch.chdir(tmp_path)
    off = []
    for form in (contextlib.nullcontext, exact_forms):
        with warnings.catch_warnings(), form():
            warnings.simplefilter("ignore")
            torch.onnx.export(part, (x,), "a.onnx", dynamo=False, input_names=["x"], output_names=["y"])
        mnnconvert.convert(["", "-f", "ONNX", "--modelFile", "a.onnx", "--MNNModel", "a.mnn", "--bizCode", "x"])
        given = MNN.expr.placeholder(list(x.shape), MNN.expr.NCHW)
        given.write(x.numpy())
        network = MNN.nn.load_module_from_file("a.mnn", ["x"], ["y"])
        got = np.array(MNN.expr.convert(network.forward([given])[0], MNN.expr.NCHW).read())
        off.append(np.abs(got - want).max() / np.abs(want).max())
    assert (nn.functional.gelu, nn.functional.conv2d) == before
    assert off[1] < 5e-6
    if off[0] < usual:
        pytest.skip("this MNN computes the usual form as well: the reason in formats/mnn.py is history")


def test_weights_in_fp16_are_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNN 3.6 cuts digits off; what it is given for fp16 has none to cut, and for fp32 all of them."""
    MNN = pytest.importorskip("MNN")
    from yolo_attn.export.formats.mnn import keep_quiet, nearest_halves

    keep_quiet()
    from MNN.tools import mnnconvert

    torch.manual_seed(0)
    part, x, own = nn.Conv2d(16, 16, 1).requires_grad_(False), torch.randn(1, 16, 8, 8), mnnconvert.convert
    part.weight[0, 0], part.weight[1, 1] = 1e-9, -1e-6  # below fp16's least, and below its least with all digits
    want = nn.functional.conv2d(x, part.weight.half().float(), part.bias).numpy()
    monkeypatch.chdir(tmp_path)

    def off(precision: list[str], want: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(part, (x,), "a.onnx", dynamo=False, input_names=["x"], output_names=["y"])
        mnnconvert.convert(["", "-f", "ONNX", "--modelFile", "a.onnx", "--MNNModel", "a.mnn", "--bizCode", "x", *precision])
        given = MNN.expr.placeholder(list(x.shape), MNN.expr.NCHW)
        given.write(x.numpy())
        network = MNN.nn.load_module_from_file("a.mnn", ["x"], ["y"])
        return float(np.abs(np.array(MNN.expr.convert(network.forward([given])[0], MNN.expr.NCHW).read()) - want).max())

    with nearest_halves():
        assert off(["--fp16"], want) < 2e-6
        assert off([], part(x).numpy()) < 2e-6
    assert mnnconvert.convert is own
    if off(["--fp16"], want) < 1e-5:
        pytest.skip("this MNN rounds weights itself: the reason in formats/mnn.py is history")


@pytest.mark.parametrize("last", [False, True], ids=["another dimension", "last dimension"])
def test_mnn_overflows_in_a_softmax_of_large_scores(last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 88, unless the dimension is the last one with more than one entry; so SK, S2 and DualAttention transpose."""
    MNN = pytest.importorskip("MNN")
    from yolo_attn.export.formats.mnn import keep_quiet

    keep_quiet()
    from MNN.tools import mnnconvert

    class Soft(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.transpose(1, 2).softmax(2) if last else x.softmax(1)

    x = 200 * torch.rand(1, 3, 64)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Soft(), (x,), "a.onnx", dynamo=False, input_names=["x"], output_names=["y"])
    mnnconvert.convert(["", "-f", "ONNX", "--modelFile", "a.onnx", "--MNNModel", "a.mnn", "--bizCode", "x"])
    given = MNN.expr.placeholder([1, 3, 64], MNN.expr.NCHW)
    given.write(x.numpy())
    network = MNN.nn.load_module_from_file("a.mnn", ["x"], ["y"])
    got = np.array(MNN.expr.convert(network.forward([given])[0], MNN.expr.NCHW).read())
    off = np.abs(got - Soft()(x).numpy()).max()
    if last:
        assert off < 1e-5
    elif off < 1e-3:
        pytest.skip("this MNN computes both: the reason in docs/deployment.md is history")
    else:
        assert off > 0.1


def test_openvino_s_layers_that_lose_are_found() -> None:
    """The one with a handful of levels, behind one with all, whose error is no part of it."""
    ov = pytest.importorskip("openvino")
    from openvino import opset8 as op

    from yolo_attn.export.formats.openvino_layers import counted, losses

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((4, 4, 3, 3)).astype(np.float32) for _ in range(3)]

    def network(*levels: int) -> Any:
        given = x = op.parameter([1, 4, 8, 8], np.float32)
        for k, w in enumerate(weights):
            if levels and levels[k]:
                x = op.fake_quantize(x, *(op.constant(np.float32(v)) for v in (-20, 20, -20, 20)), levels[k])
            x = op.convolution(x, op.constant(w), [1, 1], [1, 1], [1, 1], [1, 1])
            x.set_friendly_name(f"__module.model.{k}.conv/aten::_convolution/Convolution")
        return ov.Model([x], [given])

    full, small = network(), network(256, 6, 0)
    blobs = [rng.standard_normal((1, 4, 8, 8)).astype(np.float32)]
    found = losses(full, small, blobs)
    assert [row["layer"] for row in found] == ["model.1.conv", "model.0.conv"] and found[0]["error"] > 3 * found[1]["error"] > 0
    assert counted(full, small) == {"quantized": 2, "fp32": 1} and losses(full, full, blobs) == []


def test_core_ml_takes_what_is_computed_from_a_shape(tmp_path: Path) -> None:
    """coremltools calls ``int`` on arrays of one entry, which NumPy 2.4 refuses."""
    pytest.importorskip("coremltools")
    from yolo_attn.export.formats.coreml import numbers_of_one

    with warnings.catch_warnings(), numbers_of_one():
        warnings.simplefilter("ignore")
        from coremltools.converters.mil.frontend.torch import ops

        class One:
            val, shape = np.array([3], np.int32), (1,)
            can_be_folded_to_const = staticmethod(lambda: True)

        added: list[Any] = []

        class Context:
            def add(self, var: Any, name: str) -> None:
                added.append(var)

        kept = ops._get_inputs, ops.mb
        ops._get_inputs = lambda context, node, expected: [One]
        ops.mb = type("B", (), {"const": staticmethod(lambda val, name: val)})
        try:
            ops._cast(Context(), type("N", (), {"name": "n"}), int, "int32")
        finally:
            ops._get_inputs, ops.mb = kept
    assert added == [3]
