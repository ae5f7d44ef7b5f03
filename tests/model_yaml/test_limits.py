"""Files without end, values of the wrong kind: one clear line each, soon, and no traceback."""

from __future__ import annotations

import importlib.util
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from yolo_attn.cli import main
from yolo_attn.errors import CheckpointError, ConfigError, FileError, PluginError, UsageError, shown
from yolo_attn.model_yaml import check, find, load, reader
from yolo_attn.registry import plain, plugins
from yolo_attn.weights import checkpoint

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!bool maybe", "line 1: 'maybe' .*bool"), ("x: 1\na: !!int ''", "line 2: '' .*int"),
        ("a: !!int foo", "'foo' .*int"), ("a: 2020-13-45", "timestamp"), ("a: " + "9" * 5000, "100 digits"),
        ('a: "\\U00110000"', "line 1"), ('a: "\\ud800"', "surrogate"), ("a: " + "[" * 5000, "nested more than 50"),
        ("a: " + "{a: " * 5000, "nested more than 50"), ("- " * 5000, "nested more than 50"), (BOMB, "200,000 values"),
        (MERGES, "200,000 values"), ("&a [*a]", "contains itself"), ("a: !!binary aGk=", "!!binary"),
        ("a: !!python/object/apply:os.system [ls]", "are not read"), ("a: !!set {b}", "!!set"),
        ("x" * 2_100_000, "more than 2,000,000"), ("a: \x00", "not valid YAML"),
    ],
)  # fmt: skip
def test_yaml(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        reader.mapping_of(text, "a.yaml", ConfigError, "")
    assert str(caught.value).startswith("a.yaml: ") and len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_options_of_a_command_line(cli: Any) -> None:
    for value in ("reduction=[", "a=2020-13-45", "a=!!int foo"):
        told = cli("insert", "yolov5n.yaml", "--module", "SE", "--where", "neck", "--args", value).mistake()
        assert value in told and "line 1" in told


def test_a_model_without_end() -> None:
    d = load.read(find.configs_folder() / "yolov5_se.yaml")
    for change, words in (
        ({"backbone": [[-1, 10**7, "Conv", [64, 3, 2]], *d["backbone"][1:]]}, "row 0: is repeated"),
        ({"backbone": [[-1, 1, "Conv", [10**6, 3, 2]], *d["backbone"][1:]]}, "row 0: has 1000000 channels"),
        ({"backbone": d["backbone"] * 300}, "rows; at most 2,000"),
        ({"nc": 10**7}, "classes; at most"),
    ):
        with pytest.raises(ConfigError, match=words):
            check.validate({**d, **change}, "a.yaml")
    check.validate(d, "a.yaml")
    plain.check_size(d, "a.yaml")


def test_shown_is_short() -> None:
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep, deep]
    for value in (deep, "x" * 10**6, 10**6000, dict.fromkeys(range(10**5), "y" * 500), list(range(10**6))):
        assert len(shown(value)) <= 120


def test_errors_are_one_line_of_plain_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file or its name holds moves no cursor, colours nothing and forges no line."""
    from yolo_attn import cli

    name = "a\x1b[31m\nyolo-attn: done\u2028.yaml"
    (tmp_path / name).write_text('nc: 1\nbackbone: [[-1, 1, "X\\e[2J\\n", []]]\nhead: []\n')
    for argv in (["show", str(tmp_path / name)], ["show", str(tmp_path / f"no{name}")], ["list", name]):
        assert cli.main(argv) in (1, 2)
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "\x1b" not in err and "\u2028" not in err and "\\x1b[31m\\n" in err


@pytest.mark.parametrize(
    "words",
    ["show LONG.yaml", "insert yolov5n.yaml --module SE --where neck -o LONG.yaml", "transfer LONG.pt yolov5n_se.yaml",
     "export LONG.pt", "list --plugin LONG.py", "detect LONG.onnx --source x", "train --data LONG.yaml",
     "train --resume LONG", "run LONG.py", "data LONG"],
)  # fmt: skip
def test_a_name_that_no_disk_takes(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from yolo_attn import cli

    monkeypatch.chdir(tmp_path)
    assert cli.main(words.replace("LONG", "a" * 300).split()) == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and "a" * 300 in err[0]


def test_what_the_host_will_not_load(tmp_path: Path, python: Any) -> None:
    """Under ULTRALYTICS_SAFE_LOAD, and TorchScript at all times: one line from `train --weights` as from `export`."""
    torch.save({"model": Call(open, str(tmp_path / "mark"), "w")}, tmp_path / "a.pt")
    archive(tmp_path / "b.pt", b"\x80\x02}.")
    with zipfile.ZipFile(tmp_path / "b.pt", "a") as file:
        file.writestr("a/constants.pkl", b"")
    code = """
    import os, yolo_attn
    from yolo_attn.cli import main
    main(["data", "set"])
    for name in "ab":
        assert main(["train", "--weights", f"{name}.pt", "--data", "set/shapes.yaml", "--device", "cpu"]) == 1
    os.environ["YOLO_ATTN_SCHEDULE"] = "{bad"
    assert main(["train", "--cfg", "yolov5n_se.yaml", "--data", "set/shapes.yaml", "--device", "cpu"]) == 2
    """
    run = python(code, env={"ULTRALYTICS_SAFE_LOAD": "1"})
    run.ok()
    told = [line for line in run.err.splitlines() if line.startswith("yolo-attn train: ")]
    assert "a.pt: cannot be loaded" in told[0] and "TorchScript" in told[1] and "YOLO_ATTN_SCHEDULE='{bad'" in told[2]
    assert "Traceback" not in run.err and not (tmp_path / "mark").exists()


@pytest.mark.parametrize("value", ["x", [1], -1, 0, float("nan"), float("inf"), True, 10**6])
@pytest.mark.parametrize("key", ["depth_multiple", "width_multiple"])
def test_multiples_are_numbers(key: str, value: Any) -> None:
    d = load.read(find.configs_folder() / "yolov5_se.yaml")
    with pytest.raises(ConfigError, match=key):
        check.validate({**d, key: value}, "a.yaml")
    with pytest.raises(ConfigError, match="scale 'n'"):
        check.validate({**d, "scales": {"n": [0.5, value, 1024]}}, "a.yaml")


def test_messages_about_a_value_without_end_are_short() -> None:
    d = load.read(find.configs_folder() / "yolov5_se.yaml")
    deep: Any = "x" * 300
    for _ in range(40):
        deep = [deep, deep]
    for more in (
        {"nc": deep}, {"scales": {"n": deep}}, {"schedule": deep}, {"schedule": {"lr_new": deep}}, {"width_multiple": deep},
        {"backbone": [deep]}, {"backbone": [[deep, 1, "Conv", []]]}, {"backbone": [[-1, deep, "Conv", []]]},
        {"backbone": [[-1, 1, deep, []]]}, {"backbone": [[-1, 1, "Conv", {"a": deep}]]},
    ):  # fmt: skip
        with pytest.raises((ConfigError, UsageError)) as caught:
            check.validate({**d, **more}, "a.yaml")
        assert len(str(caught.value)) < 500
    for register in (deep, {"X": deep}, {"X": {"from": deep}}):
        with pytest.raises(PluginError) as told:
            plugins.from_yaml("X", {"register": register}, "a.yaml")
        assert len(str(told.value)) < 500


def archive(path: Path, pickled: bytes) -> Path:
    """A checkpoint of a pickle alone."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", pickled)
    return path


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.reduced = function, args

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Call(bytes, 30 * 10**9), 2), "Refused"),
        (pickle.dumps(Call(bytearray, 30 * 10**9), 2), "Refused"),
        (pickle.dumps(Call(list, range(10**12)), 2), "Refused"),
        (pickle.dumps(Call(tuple, range(10**12)), 2), "Refused"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "neither a model"),  # a place in a table of two thousand million
        (b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b"x.", "cannot be read"),
        (b"\x80\x02L" + b"9" * 10**5 + b"L\n.", "400 digits"),
    ],
)  # fmt: skip
def test_a_pickle_that_asks_for_memory(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(archive(tmp_path / "a.pt", content))


def test_modules_that_share_or_contain_themselves(tmp_path: Path) -> None:
    inner = torch.nn.Sequential(torch.nn.ReLU())
    inner[0].f = -1
    for _ in range(40):  # a trillion paths to one leaf
        outer = torch.nn.Sequential(inner, inner)
        outer[0].f = -1
        inner = outer
    holder = torch.nn.Module()
    holder.model = inner
    torch.save({"model": holder}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no detector does"):
        checkpoint.read(tmp_path / "a.pt")
    ring = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    ring[0].f = -1
    ring[0]._modules["0"] = ring
    holder.model = ring
    torch.save({"model": holder}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="contains itself"):
        checkpoint.read(tmp_path / "b.pt")


@pytest.mark.parametrize("new", [True, False])
def test_tensors_come_back_as_they_were(new: bool, tmp_path: Path) -> None:
    """Of every type, shared, transposed and empty, in torch's format and in the one before 1.6."""
    base = torch.arange(12.0)
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool)
    wanted = {"a": base, "b": base.view(3, 4).t(), "c": torch.zeros(0, 3), "d": torch.nn.Parameter(base[2:5])}
    wanted.update({str(t): torch.arange(5).to(t) for t in types})
    torch.save(wanted, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    found = checkpoint.read(tmp_path / "a.pt").tensors
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in wanted.items())


def test_foreign_metadata_of_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    from yolo_attn.runtime.session import Detector

    def detector(**meta: str) -> Any:
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in
                (("images", [1, 3, "h", "w"]), ("output0", [1, "n", 6]))]  # fmt: skip
        shape = helper.make_tensor("s", TensorProto.INT64, [3], [1, -1, 6])
        nodes = [helper.make_node("Reshape", ["images", "s"], ["output0"])]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [shape])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        for key, value in meta.items():
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, str(tmp_path / "a.onnx"))
        return Detector(tmp_path / "a.onnx").default_size

    assert detector() == (640, 640)
    assert detector(stride="32.0", names="{0: 'a'}", imgsz="[64, 96]") == (64, 96)
    wrong = {
        "stride": ["abc", "nan", "inf", "[8, 16, 32]", "0", "-8", "1e9", "32.5", "None", "{}"],
        "names": ["{'a': 'b'}", "{0.5: 'a'}", "{None: 1}", "{-1: 'a'}", "abc", "1", "[" * 5000, "{1000000: 'a'}"],
        "imgsz": ["abc", "['x', 'y']", "[1e6, 1e6]", "[1000000, 1000000]", "[0, 0]", "[64]", "None", "[inf]", "{}"],
    }
    for key, values in wrong.items():
        for value in values:
            with pytest.raises((FileError, UsageError), match=f"'{key}' is") as caught:
                detector(**{key: value})
            assert len(str(caught.value)) < 500


def test_a_short_run_of_the_fuzzer(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).resolve().parents[2] / "tools" / "fuzz.py")
    assert spec is not None and spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    assert fuzz.main(["--cases", "100"]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 5 and all("clear error" in line for line in out)


BAD = """
nc: 1
activation: nn.ReLU()
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, [3], {}]]
head:
  - [[1], 1, Detect, [nc]]
"""


def test_what_the_host_cannot_build_is_named_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ultralytics.nn.modules import Conv

    from yolo_attn.detectors.opening import open_source

    (tmp_path / "bad.yaml").write_text(BAD)
    before = Conv.default_act
    with pytest.raises(ConfigError, match=r"bad.yaml, row 1 .*Conv.* cannot be run by the host: RuntimeError") as told:
        open_source(tmp_path / "bad.yaml")
    assert "\n" not in str(told.value) and Conv.default_act is before
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for command in (["show", "bad.yaml"], ["train", "--cfg", "bad.yaml"]):
        assert main(command) == 1
        err = capsys.readouterr().err
        assert "row 1" in err and "Traceback" not in err
    with pytest.raises((ConfigError, RuntimeError)):  # what leaves the command is printed with its traceback
        main(["show", "bad.yaml", "--debug"])
    monkeypatch.setenv("YOLO_ATTN_DEBUG", "1")
    with pytest.raises((ConfigError, RuntimeError)):
        main(["show", "bad.yaml"])


@pytest.mark.parametrize("value", ["true", "nn.Nothing()", "[1]"])
def test_what_the_host_cannot_use_above_the_rows_is_one_line(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "top.yaml").write_text(BAD.replace("nn.ReLU()", value).replace("[16, [3], {}]", "[16]"))
    monkeypatch.chdir(tmp_path)
    for command in (["show", "top.yaml"], ["train", "--cfg", "top.yaml", "--device", "cpu"]):
        assert main(command) == 1
        err = capsys.readouterr().err
        assert "top.yaml: what stands above its rows (nc: 1, activation: " in err and "Traceback" not in err


def test_what_attach_cannot_build_is_named_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics import YOLO
    from ultralytics.nn import tasks

    import yolo_attn

    handle = YOLO("yolov8n.yaml")

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("of the host")

    monkeypatch.setattr(tasks, "Concat", broken)
    with pytest.raises(ConfigError, match=r"row 11 .* cannot be built by the host: (TypeError|ZeroDivisionError)"):
        yolo_attn.attach(handle, "ECA", where="neck")


def test_a_model_that_needs_more_memory_than_there_is_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.nn import tasks

    from yolo_attn.hook import memory_need
    from yolo_attn.model_yaml import load

    d = load.load_ultralytics("yolov5n_se.yaml", find.require("yolov5n_se.yaml"))
    state = torch.get_rng_state()
    count = memory_need.parameters(d, tasks)
    assert torch.equal(torch.get_rng_state(), state)
    model = tasks.DetectionModel(d, verbose=False)
    assert count == sum(p.numel() for p in model.parameters())
    memory_need.refuse_too_large(d, "m.yaml", tasks, training=True)
    monkeypatch.setattr(memory_need, "available", lambda: count * 10)
    memory_need.refuse_too_large(d, "m.yaml", tasks)
    both = f"m.yaml: its {count:,} parameters need 0.0 GB to train, and 0.0 GB of memory are available.*--force"
    with pytest.raises(ConfigError, match=both):
        memory_need.refuse_too_large(d, "m.yaml", tasks, training=True)
    memory_need.refuse_too_large(d, "m.yaml", tasks, training=True, force=True)
    monkeypatch.setattr(memory_need, "available", lambda: None)  # a system that does not say
    memory_need.refuse_too_large(d, "m.yaml", tasks, training=True)


def test_show_and_train_refuse_what_does_not_fit_before_they_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "huge.yaml").write_text(
        BAD.replace("[16, [3], {}]", "[65536, 3, 2]").replace("16, 3, 2", "65536, 3, 2")
    )
    for command in (["show", "huge.yaml"], ["train", "--cfg", "huge.yaml"]):
        assert main(command) == 1
        err = capsys.readouterr().err
        assert "128,0" in err and "Traceback" not in err


def test_attach_and_train_on_weights_alone_refuse_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ultralytics import YOLO

    import yolo_attn
    from yolo_attn.hook import memory_need

    monkeypatch.chdir(tmp_path)
    plain = YOLO("yolov5n.yaml")
    plain.save("plain.pt")
    count = sum(p.numel() for p in plain.model.parameters())
    monkeypatch.setattr(memory_need, "available", lambda: count * memory_need.BUILT)
    with pytest.raises(ConfigError, match=r"GB to build, and .* of memory are available"):
        yolo_attn.attach(plain, "SE", where="backbone")
    assert main(["train", "--weights", "plain.pt", "--device", "cpu"]) == 1
    err = capsys.readouterr().err
    assert f"plain.pt: its {count:,} parameters need 0.0 GB to train" in err and "--force" in err


def test_the_stated_limits_are_lifted_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    d = {"nc": 1, "backbone": [[-1, 1, "Conv", [70_000]]], "head": []}
    with pytest.raises(ConfigError, match="at most 65,536 are built. YOLO_ATTN_LIMITS=off"):
        plain.check_size(d, "m.yaml")
    monkeypatch.setenv("YOLO_ATTN_LIMITS", "off")
    plain.check_size(d, "m.yaml")


def test_what_is_said_of_a_row_is_said_when_it_is_built_and_not_lost_when_it_is_counted(caplog: Any) -> None:
    from ultralytics.nn import tasks

    import yolo_attn
    from yolo_attn.hook import memory_need

    yolo_attn.install()
    d = {
        "nc": 1, "yaml_file": "counted_first.yaml", "head": [[[-1], 1, "Detect", ["nc"]]],
        "backbone": [[-1, 1, "Conv", [64, 3, 2]], [-1, 1, "SEAttention", [8]], [-1, 1, "Conv", [16, 3, 2]]],
    }  # fmt: skip
    caplog.set_level("INFO")
    assert memory_need.parameters(d, tasks)
    assert "counted_first.yaml, row 1" not in caplog.text
    tasks.DetectionModel(d, verbose=False)
    assert "counted_first.yaml, row 1" in caplog.text and "reduction" in caplog.text
