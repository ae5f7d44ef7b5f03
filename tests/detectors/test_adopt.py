"""Foreign model YAMLs become ones that build here: each kind as small as it goes, with the value that is right."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from classic_host import Classic
from classic_host import classic as classic
from conftest import run_python, slow_but
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

import yolo_attn
from yolo_attn import cli
from yolo_attn.errors import ConfigError, HostError, UnknownModuleError, UsageError
from yolo_attn.hook import elsewhere, host_errors, seams
from yolo_attn.model_yaml import dialect, find, foreign, placement
from yolo_attn.registry import registry

HEAD = "nc: 3  # classes\nscales:\n  n: [0.33, 0.50, 1024]\n"


def model(*rows: str, width: int = 128, header: str = HEAD, detect: str = "") -> str:
    """A detector of one level: two convolutions, the rows, and a head that reads the last of them."""
    lines = [f"[-1, 1, Conv, [{width}, 3, 2]]", f"[-1, 1, Conv, [{width}, 3, 2]]  # 1", *rows]
    head = detect or f"[[{len(lines) - 1}], 1, Detect, [nc]]"
    return f"{header}backbone:\n" + "".join(f"  - {line}\n" for line in lines) + f"head:\n  - {head}\n"


def row(text: str, i: int) -> list[Any]:
    d = yaml.safe_load(text)
    found: list[Any] = [*d["backbone"], *d["head"]][i]
    return found


def reasons(found: Any) -> str:
    return "; ".join(c.reason for c in found.changes)


# -- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "width", "ours"),
    [
        # 64 channels arrive where 128 is written and half of it built
        ("SEAttention, [16]", 128, ["SEAttention", [{"reduction": 16}]]),
        ("SEAttention, [128, 16]", 128, ["SEAttention", [{"reduction": 16}]]),
        ("SEAttention, []", 128, None),
        ("SEAttention, [{reduction: 8}]", 128, None),
        ("TripletAttention, [2]", 128, ["TripletAttention", []]),
        ("SpatialGroupEnhance, [8, 0.5]", 128, ["SGE", [{"groups": 8}]]),
        ("DANet, [64, 64, False]", 128, ["DualAttention", []]),
        ("DoubleAttention, [64, 16, 16, 8]", 128, ["DoubleAttention", [{"reduction": 4}]]),
        ("GlobalContextBlock, [64, 0.25, 2, 16]", 128, ["GC", [{"reduction": 4}]]),
        ("ParNetAttention, [64, 0.5, 2]", 128, ["ParNetAttention", []]),
        ("PSA_s, [64, 64, False]", 128, ["SequentialPolarizedSelfAttention", []]),
        # widths: after scaling, before, of another size of the model, and both of them
        ("SEAttention, [64]", 128, ["SEAttention", []]),
        ("SEAttention, [128]", 128, ["SEAttention", []]),
        ("SEAttention, [96]", 64, ["SEAttention", []]),
        ("SEAttention, [256]", 128, ["SEAttention", []]),
        ("SEAttention, [128, 256]", 128, ["SEAttention", []]),
        ("SEAttention, [256, 128]", 128, ["SEAttention", []]),
        ("MLCA, [128, 256]", 128, ["MLCA", []]),
        ("DeformableLKA, [128, 256]", 128, ["DeformableLKA", []]),
        ("ExternalAttention, [128, 64]", 128, ["ExternalAttention", [{"memory": 64}]]),
        ("GAM_Attention, [128, 128]", 128, ["GAM", []]),
        ("CBAM, [128, 7]", 128, ["CBAM", [{"kernel_size": 7}]]),
        ("CBAM, [7]", 128, ["CBAM", [{"kernel_size": 7}]]),
        ("CoordAtt, [128, 128]", 128, ["CoordAtt", []]),
        ("SimAM, ['1e-4']", 128, ["SimAM", [{"e_lambda": 0.0001}]]),
        ("SimAM, [128]", 128, ["SimAM", []]),
        ("MHSA, [4]", 128, ["MHSA", [{"heads": 4}]]),
        ("MHSA, [128, 8]", 128, ["MHSA", [{"heads": 8}]]),
        ("MHSA, [14, 14, 4]", 128, ["MHSA", [{"width": 14, "height": 14, "heads": 4}]]),
        # names
        ("SELayer, [128, 16]", 128, ["SEAttention", [{"reduction": 16}]]),
        ("se_block, []", 128, ["SEAttention", []]),
        ("C3_EMA, [128]", 128, ["C3Attention", [128, {"module": "EMAttention"}]]),
        ("C2f_EMA, [128, True]", 128, ["C2fAttention", [128, True, {"module": "EMAttention"}]]),
        ("C3SE, [128, 128]", 128, ["C3SE", [128]]),
        ("C3ECA, [128, False]", 128, None),
        ("c3, [128]", 128, ["C3", [128]]),
        ("Identity, []", 128, ["nn.Identity", []]),
        ("MP, []", 128, ["nn.MaxPool2d", [2, 2]]),
        ("SP, [5, 1]", 128, ["nn.MaxPool2d", [5, 1, 2]]),
        ("nn.Upsample, [None, 2, nearst]", 128, ["nn.Upsample", ["None", 2, "nearest"]]),
        ("nn.Upsample, [none, 2, 'nearest']", 128, ["nn.Upsample", ["None", 2, "nearest"]]),
        ("nn.Upsample, [2, 'nearest']", 128, ["nn.Upsample", ["None", 2, "nearest"]]),
        ("nn.Upsample, ['None', 2, \"'nearest'\"]", 128, ["nn.Upsample", ["None", 2, "nearest"]]),
        ("nn.Upsample, [null, 2, 'nearest']", 128, None),
        ("nn.Upsample, [None, 2, 'bilinear']", 128, None),
    ],
)  # fmt: skip
def test_a_row(theirs: str, width: int, ours: list[Any] | None) -> None:
    """It says in the kit's words what its author meant, and only that: the same layer, weight for weight."""
    text = model(f"[-1, 1, {theirs}]  # theirs", width=width)
    found = yolo_attn.adopt(text, host="ultralytics")
    assert found.whole, found.problem
    new, changes = found
    if ours is None:
        assert new == text and changes == []
        return
    name, _, args = theirs.partition(", ")
    assert row(new, 2) == [-1, 1, *ours]
    (change,) = changes
    assert change.place == "row 2 (backbone)" and change.before.startswith(f"[-1, 1, {name}, {args}]") and change.reason
    assert new.replace(change.after, change.before) == text  # nothing else has moved
    again = yolo_attn.adopt(new, host="ultralytics")
    assert again.changes == [] and again.parameters == found.parameters


def test_what_a_number_means_is_seen_from_all_rows_of_a_name() -> None:
    """16 and 16 at 32 and 64 channels: an option. 32 and 64 there: widths. One number alone: as the kit reads it."""

    def two(first: int, second: int) -> str:
        return model(f"[-1, 1, SE, [{first}]]", "[-1, 1, Conv, [128, 3, 1]]", f"[-1, 1, SE, [{second}]]", width=32,
                     header=HEAD.replace("0.50", "1.0"))  # fmt: skip

    option, widths = (yolo_attn.adopt(two(*pair), host="ultralytics").text for pair in ((32, 32), (16, 64)))
    assert [row(option, i)[3] for i in (2, 4)] == [[{"reduction": 32}]] * 2
    assert [row(widths, i)[3] for i in (2, 4)] == [[]] * 2


@pytest.mark.parametrize(
    ("theirs", "args"),
    [
        ("Concat_bifpn, [256, 256]", []),
        ("Concat_bifpn, [640, 640]", []),
        ("BiFPN_Concat2, [256, 256]", []),
        ("Concat_BiFPN, [1]", [1]),
        ("Concat, [1, 256]", [1]),
        ("Concat, [256]", [1]),
    ],
)
def test_a_join(theirs: str, args: list[Any]) -> None:
    found = yolo_attn.adopt(model(f"[[-1, 1], 1, {theirs}]", width=64), host="ultralytics")
    plain = "Concat" if theirs.startswith("Concat,") else "WeightedConcat"
    assert found.whole and row(found.text, 2) == [[-1, 1], 1, plain, args]


def test_what_is_ignored_is_said() -> None:
    found = yolo_attn.adopt(model("[-1, 1, SpatialGroupEnhance, [8, 0.5]]"), host="ultralytics")
    assert "0.5" in reasons(found)


def test_what_cannot_be_said_is_left_and_told() -> None:
    """DoubleAttention's c_m that is no part of the width: no other network instead."""
    found = yolo_attn.adopt(model("[-1, 1, DoubleAttention, [64, 25, 25]]", width=128), host="ultralytics")
    assert not found.whole and found.changes == []
    assert "row 2" in found.problem and "fraction of 64" in found.problem


# -- heads ---------------------------------------------------------------------------------------------------------


def unshifted() -> str:
    """YOLOv8n with a row that somebody inserted, Concat shifted and Detect forgotten."""
    right = placement.insert("yolov8n.yaml", "SEAttention", after=9)
    return right.replace("[[16, 19, 22], 1, Detect", "[[15, 18, 21], 1, Detect")


def test_a_head_that_reads_a_concat_is_told_and_shifted_on_demand() -> None:
    left = yolo_attn.adopt(unshifted(), host="ultralytics")
    assert len(left.notes) == 3 and "row 16 (C2f) was probably meant" in left.notes[0] and left.changes == []
    fixed = yolo_attn.adopt(unshifted(), host="ultralytics", fix=True)
    assert row(fixed.text, -1) == [[16, 19, 22], 1, "Detect", ["nc"]] and fixed.notes == [] and fixed.whole
    assert len(fixed.changes) == 1 and "Detect reads row 15 (Concat)" in fixed.changes[0].reason


@pytest.mark.parametrize("name", ["IDetect", "IPose", "ISegment", "IOBB", "IAuxDetect"])
def test_heads_of_other_projects_name_their_project(name: str) -> None:
    text = model("[-1, 1, SE, [128, 16]]", detect=f"[[2], 1, {name}, [nc]]")
    found = yolo_attn.adopt(text, host="ultralytics")
    assert found.unknown == {name: [3]} and not found.whole
    assert "WongKinYiu/yolov7" in found.near[name]
    assert row(found.text, 2) == [-1, 1, "SEAttention", [{"reduction": 16}]]  # what can be said is said
    with pytest.raises(ConfigError, match=rf"last row is {name}.*WongKinYiu/yolov7"):
        dialect.to_classic(yaml.safe_load(text), "n", "their.yaml")
    with pytest.raises(ConfigError, match=r"last row is Pose.*Use the ultralytics host"):
        dialect.to_classic(yaml.safe_load(text.replace(name, "Pose")), "n", "their.yaml")


def test_anchors_without_a_definition_go() -> None:
    found = yolo_attn.adopt(model(detect="[[1], 1, Detect, [nc, anchors]]"), host="ultralytics")
    assert row(found.text, -1)[3] == ["nc"] and found.whole
    left = yolo_attn.adopt(model(header=HEAD + "anchors:\n  - [10,13, 16,30]\n"), host="ultralytics")
    assert "anchors" not in left.text and "reads no anchors" in reasons(left) and left.whole


# -- names that nobody knows ---------------------------------------------------------------------------------------


def test_unknown_names_are_listed_with_rows_and_near_names() -> None:
    rows = ("[-1, 1, Qqq, [128]]", "[-1, 1, SEAttentoin, []]", "[-1, 1, Qqq, [128]]", "[-1, 1, SE, [128]]")
    found = yolo_attn.adopt(model(*rows), host="ultralytics")
    assert found.unknown == {"Qqq": [2, 4], "SEAttentoin": [3]}
    assert "SEAttention" in found.near["SEAttentoin"] and found.near["Qqq"] == ""
    # what arrives at row 5 is the unknown row's affair: the name is put right, the number stays
    assert row(found.text, 5) == [-1, 1, "SEAttention", [128]]
    behind = yolo_attn.adopt(
        model("[-1, 1, Qqq, [128]]", "[-1, 1, Conv, [128]]", "[-1, 1, SE, [128, 8]]"), host="ultralytics"
    )
    assert row(behind.text, 4) == [-1, 1, "SEAttention", [{"reduction": 8}]]


def test_unknown_names_behind_a_row_that_stops_the_host_are_listed_as_well() -> None:
    found = yolo_attn.adopt(
        model("[-1, 1, Conv, []]", "[-1, 1, Qqq, [64]]", "[-1, 1, SPPCSPC, [64]]"), host="ultralytics"
    )
    assert found.unknown == {"Qqq": [3], "SPPCSPC": [4]} and "yolov7" in found.near["SPPCSPC"]


def test_rows_behind_a_block_of_the_other_host_are_read() -> None:
    found = yolo_attn.adopt(model("[-1, 1, C3SPP, [128]]", "[-1, 1, SE, [128, 8]]"), host="ultralytics")
    assert found.unknown == {"C3SPP": [2]} and "classic YOLOv5" in found.near["C3SPP"]
    assert row(found.text, 3) == [-1, 1, "SEAttention", [{"reduction": 8}]]


@pytest.mark.parametrize("name", ["C2f_Nothing", "C3k2_Nothing", "C3_Nothing", "NothingC3"])
def test_a_block_with_something_unknown_inside_is_near_no_other_block(name: str) -> None:
    told = elsewhere.advice(name, registry.known_names())
    assert "no module is called 'Nothing'" in told and "ECA" not in told
    assert elsewhere.near("C2f_EMAA", registry.known_names())[0].startswith("C2f_EMA")
    assert registry.find("C2f_EMA") is not None  # no hint is needed


def test_a_name_of_the_other_host_is_no_spelling_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = types.ModuleType("models.yolo")
    exec("def lookup(): return eval('C2f')", vars(parser))
    monkeypatch.setitem(sys.modules, "models.yolo", parser)
    d = {"yaml_file": "their.yaml", "backbone": [[-1, 1, "C2f", [64]]], "head": []}
    with pytest.raises(
        UnknownModuleError, match=r"^their\.yaml, row 0 .*ultralytics host, not of classic YOLOv5"
    ) as caught:
        seams.find("C2f", [], 0, d, vars(parser)["lookup"])
    assert "Did you mean" not in str(caught.value)
    assert "classic YOLOv5" in elsewhere.whose("CrossConv", sys.modules["ultralytics.nn.tasks"])
    assert elsewhere.whose("C2f", None) == " C2f is a module of the ultralytics host."


def test_names_said_to_be_a_hosts_are_the_hosts() -> None:
    assert vars(sys.modules["ultralytics.nn.tasks"]).keys() >= elsewhere.ULTRALYTICS
    assert not set(elsewhere._OWNERS) & (elsewhere.ULTRALYTICS | elsewhere.CLASSIC | set(registry.known_names()))


def test_what_a_host_raises_has_file_and_row() -> None:
    d = yaml.safe_load(model("[[-1, 1], 1, Concat, [1, 256]]", width=64))
    with pytest.raises(ConfigError, match=r"their\.yaml, row 2 .*TypeError"), host_errors.told_by_row("their.yaml"):
        DetectionModel(d, verbose=False)


# -- text and header -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("  n: [0.33, 0.50, 1024]\n", "  n: [0.33, 0.50, 1024, 0] # nano\n"),
        ("  n: [0.33, 0.50, 1024]\n", "  n: [0.33, 0.50, 1024 , 3]\n"),
        ("nc: 3  # classes\n", ""),
        ("nc: 3  # classes\n", "nc: '3'  # classes\n"),
        ("scales:\n", "depth_multiple: 0.33  # theirs\nwidth_multiple: 0.25\nscales:\n"),
        ("scales:\n", "activation: SiLU\nscales:\n"),
        ("scales:\n", "activation: nn.LeakyReLU\nscales:\n"),
        ("scales:\n", "ch: 3\nscales:\n"),
        ("scales:\n", "scales:\n  activation: nn.Mish()\n"),
        ("scales:\n", "nc: 3\nscales:\n"),
        ("  n: [0.33, 0.50, 1024]\n", "  n: [0.33, 0.50, 1024]\n  n: [0.33, 0.50, 1024]\n"),
        ("  - [-1, 1, SEAttention, []]\n", "\t- [-1,\t1, SEAttention, []]\n"),
        ("  - [-1, 1, SEAttention, []]\n", "  - [-1，1，SEAttention，[]]  # 注意力，是\n"),
        ("  - [-1, 1, SEAttention, []]\n", "  - [-1, 1,\u00a0SEAttention, []]\n"),
        ("  - [-1, 1, SEAttention, []]\n", "  - [-1, 1, SEAttention]\n"),
        ("  - [-1, 1, SEAttention, []]\n", "  - [-1, 1, SEAttention, None]\n"),
        ("  - [-1, 1, SEAttention, []]\n", "  - [-1, 1.0, SEAttention, 16]\n"),
        ("nc: 3  # classes\n", "```yaml\nnc: 3  # classes\n"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_header_or_a_line(was: str, now: str, newline: str) -> None:
    text = model("[-1, 1, SEAttention, []]", width=64)
    assert text.count(was) == 1
    text = text.replace(was, now).replace("\n", newline)
    found = yolo_attn.adopt(text, host="ultralytics")
    assert found.whole, found.problem
    assert found.changes and all(c.place and c.reason for c in found.changes)
    assert "\n" not in found.text.replace(newline, "")
    d = yaml.safe_load(found.text)
    assert d["nc"] == (80 if not now else 3) and all(len(s) == 3 for s in d["scales"].values())
    assert yolo_attn.adopt(found.text, host="ultralytics").changes == []
    if "注意力，是" in now:
        assert "# 注意力，是" in found.text  # a comment is its author's


@pytest.mark.parametrize(
    "wrong", ["5", "[]", "[-1, 1]", "[9, 1, Conv, [64]]", "{a: b}", "[-1, 1, 7, []]", "[[], 1, Conv, [64]]"]
)
def test_a_row_that_is_none_is_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match="row 2"):
        yolo_attn.adopt(model(wrong, width=64), host="ultralytics")


@pytest.mark.parametrize("wrong", ['"\\U00110000"', "[" * 3000, "!!int foo", "2020-02-30", "&a [*a]", "'"])
def test_what_is_no_yaml_is_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yolo_attn.adopt(model(header=f"x: {wrong}\n" + HEAD))
    assert "\n" not in str(caught.value) and "line" in str(caught.value)


def test_input_channels_keep_their_number() -> None:
    found = yolo_attn.adopt(model(width=64, header="ch: 1\n" + HEAD), host="ultralytics")
    assert yaml.safe_load(found.text)["channels"] == 1 and found.whole


def test_keys_that_stand_twice_with_two_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="'nc' .*twice"):
        yolo_attn.adopt(model(header="nc: 5\n" + HEAD))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gbk", "latin-1"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    comment = "# géante\n" if encoding == "latin-1" else "# 注意力\n"
    file = tmp_path / "their.yaml"
    file.write_bytes((comment + model("[-1, 1, SE, [64]]", width=64)).encode(encoding))
    found = yolo_attn.adopt(file, host="ultralytics")
    assert found.whole and (encoding == "latin-1" or comment in found.text)
    assert ("UTF-8" in reasons(found)) is not encoding.startswith("utf-8")


def test_no_text_at_all(tmp_path: Path) -> None:
    file = tmp_path / "their.yaml"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\x01\x02\x03\xff\xfa")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        yolo_attn.adopt(file)
    assert foreign.decode(b"nc: 3\n", "x")[1] == []


# -- hosts ---------------------------------------------------------------------------------------------------------


def test_an_activation_in_every_row_goes_to_the_header() -> None:
    """YOLOv7-tiny's way to say it; the ultralytics host would read a text, and at another place than YOLOv5."""
    rows = [f"[-1, 1, Conv, [64, {k}, 1, None, 1, nn.LeakyReLU(0.1)]]" for k in (3, 1)]
    first = "[-1, 1, Conv, [64, 3, 2]]"
    text = model(*rows, width=64)
    mixed = yolo_attn.adopt(text, host="ultralytics")
    assert not mixed.whole and "row 2" in mixed.problem and "evaluates no argument" in mixed.problem
    found = yolo_attn.adopt(text.replace(first, rows[0].replace("3, 1, None", "3, 2, None")), host="ultralytics")
    assert found.whole and yaml.safe_load(found.text)["activation"] == "nn.LeakyReLU(0.1)"
    assert [row(found.text, i)[3] for i in (0, 3)] == [[64, 3, 2], [64, 1, 1]]


def test_hosts_that_are_none() -> None:
    with pytest.raises(UsageError, match="ultralytics, yolov5 or"):
        yolo_attn.adopt(model(), host="darknet")


def test_a_host_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        yolo_attn.adopt(model(), host=str(tmp_path))


CLASSIC = "nc: 3\ndepth_multiple: 0.33\nwidth_multiple: 0.50\nanchors:\n  - [10,13, 16,30]\n"


@pytest.mark.slow
def test_the_classic_host_builds_what_it_alone_has(classic: Classic, tmp_path: Path) -> None:
    rows = ("[-1, 1, C3SPP, [128]]", "[-1, 1, SELayer, [128, 4]]", "[-1, 1, C3_ECA, [128]]")
    theirs, mine = tmp_path / "their.yaml", tmp_path / "mine.yaml"
    theirs.write_text(model(*rows, header=CLASSIC, detect="[[4], 1, Detect, [nc, anchors]]"), encoding="utf-8")
    host = "yolov5" if classic.prefix else str(classic.root)
    done = run_python(
        "-m", "yolo_attn", "adopt", str(theirs), "-o", str(mine), "--host", host, cwd=tmp_path, env=classic.env
    )
    assert f"builds with {host}" in done.ok()
    assert row(mine.read_text(encoding="utf-8"), 3) == [-1, 1, "SEAttention", [{"reduction": 4}]]
    theirs.write_text(theirs.read_text(encoding="utf-8").replace("C3SPP", "C2f"), encoding="utf-8")
    done = run_python("-m", "yolo_attn", "adopt", str(theirs), "--host", host, cwd=tmp_path, env=classic.env)
    assert done.code == 1 and "C2f is a module of the ultralytics host" in done.out


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_what_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, mine = tmp_path / "yolov8n-their.yaml", tmp_path / "mine.yaml"
    text = model("[-1, 1, SE, [64, 16]]  # mine", width=64)
    theirs.write_text(text, encoding="utf-8")
    assert cli.main(["adopt", str(theirs), "--check", "--host", "ultralytics"]) == 0
    assert (
        "- [-1, 1, SE, [64, 16]]  # mine\n+ [-1, 1, SEAttention, [{reduction: 16}]]  # mine" in capsys.readouterr().out
    )
    assert cli.main(["adopt", str(theirs), "-o", str(mine)]) == 0
    written = mine.read_text(encoding="utf-8")
    assert "scale: n" in written and "# mine" in written and theirs.read_text(encoding="utf-8") == text
    assert "builds with ultralytics" in capsys.readouterr().out
    DetectionModel(yaml_model_load(mine), verbose=False)
    assert cli.main(["adopt", str(theirs), "-o", str(mine)]) == 1 and "--force" in capsys.readouterr().err
    assert cli.main(["adopt", str(theirs), "-o", str(mine), "--check"]) == 2


def test_the_command_writes_nothing_else_but_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, mine = tmp_path / "their.yaml", tmp_path / "mine.yaml"
    theirs.write_text(model("[-1, 1, SE, [64]]", "[-1, 1, Qqq, [64]]", width=64), encoding="utf-8")
    assert cli.main(["adopt", str(theirs), "-o", str(mine), "--host", "ultralytics"]) == 1
    out = capsys.readouterr().out
    assert "unknown: Qqq, 1 row (row 3)" in out and "not written" in out and "--force" in out and not mine.exists()
    assert cli.main(["adopt", str(theirs), "-o", str(mine), "--host", "ultralytics", "--force"]) == 1
    assert "SEAttention" in mine.read_text(encoding="utf-8") and "does not build" in capsys.readouterr().out


def test_a_folder_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, mine = tmp_path / "their", tmp_path / "mine"
    (theirs / "deep").mkdir(parents=True)
    (theirs / "a.yaml").write_text(model("[-1, 1, SE, [64]]", width=64), encoding="utf-8")
    (theirs / "deep" / "b.yaml").write_text(model("[-1, 1, Qqq, []]", width=64), encoding="utf-8")
    (theirs / "c.yaml").write_text("backbone: 3\n  head: [\n", encoding="utf-8")
    (theirs / "data.yaml").write_text("train: images\nnames: [a]\n", encoding="utf-8")
    assert cli.main(["adopt", str(theirs), "-o", str(mine), "--host", "ultralytics"]) == 1
    out = capsys.readouterr().out
    assert "3 files, 1 build" in out and "unknown: Qqq, 1 row" in out and "line 2" in out and "data.yaml" not in out
    assert [p.relative_to(mine).as_posix() for p in mine.rglob("*.yaml")] == ["a.yaml"]


# -- many ----------------------------------------------------------------------------------------------------------

HABITS = {
    "width before scaling": lambda before, after: [before],
    "width after scaling": lambda before, after: [after],
    "both": lambda before, after: [before, before],
    "of another size": lambda before, after: [before * 2],
    "width and option": lambda before, after: [before, 8],
    "nothing": lambda before, after: [],
}


@pytest.mark.parametrize(
    "base", slow_but(["yolov8n", "yolo11n", "yolov5n", "yolo12n", "yolov9t", "yolov10n"], "yolov8n")
)
@pytest.mark.parametrize("habit", slow_but(HABITS, "of another size", "width and option"))
def test_habits_of_the_field_give_the_kits_own_model(base: str, habit: str) -> None:
    """Attention behind four rows, numbers as people write them, under an alias: the weights that insert gives."""
    options = {"reduction": 8} if habit == "width and option" else {}
    ours = placement.insert(f"{base}.yaml", "SEAttention", where="neck", args=options)
    d = yaml.safe_load(ours)
    letter = find.split_scale(base)[1]
    channels = {i: w for i, w in _widths(d, letter).items() if [*d["backbone"], *d["head"]][i][2] == "SEAttention"}
    theirs = ours
    for after in channels.values():
        args = HABITS[habit](after * 4, after)
        spelled = "[{reduction: 8}]" if options else "[]"
        theirs = theirs.replace(f"SEAttention, {spelled}", f"SELayer, {args}", 1)
    theirs = re.sub(r"^(  [nsmlxtbce]: \[[^\]]*)\]", r"\1, 0]", theirs, flags=re.MULTILINE)
    assert "SELayer" in theirs and "SEAttention" not in theirs
    found = yolo_attn.adopt(theirs.replace("scales:", f"scale: {letter}\nscales:", 1), host="ultralytics")
    assert found.whole, found.problem
    mine = yolo_attn.adopt(ours.replace("scales:", f"scale: {letter}\nscales:", 1), host="ultralytics")
    assert found.parameters == mine.parameters and mine.changes == []


def _widths(d: dict[str, Any], letter: str) -> dict[int, int]:
    from yolo_attn.model_yaml.graph import Graph
    from yolo_attn.model_yaml.widths import Scale, widths

    graph = Graph.of(d)
    found = widths(graph, d, Scale.of(d, letter))
    return {i: found[n] or 64 for i, n in enumerate(graph.nodes)}
