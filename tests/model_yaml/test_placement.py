"""Insertion of attention: numbers, layout, every place, every kind of file, and random graphs."""

from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import yolo_attn
from yolo_attn.cli import main
from yolo_attn.errors import ConfigError, UnknownModuleError, UsageError
from yolo_attn.model_yaml import check, find, load

BASES = ("yolov5", "yolov5-p6", "yolov8", "yolo11")
PLACES = ("backbone", "backbone-last2", "P3", "P4", "P5", "head", "neck", "neck-P3", "before-detect")

# A classic file in the layout of early YOLOv5: one flow list, two spaces before comments, no comma at the end.
CLASSIC = """\
# a detector
nc: 80  # classes
depth_multiple: 0.33
width_multiple: 0.50
anchors:
  - [10,13, 16,30, 33,23]  # P3/8
  - [30,61, 62,45, 59,119]  # P4/16
  - [116,90, 156,198, 373,326]  # P5/32

backbone:
  # [from, number, module, args]
  [[-1, 1, Conv, [64, 6, 2, 2]],  # 0-P1/2
   [-1, 1, Conv, [128, 3, 2]],  # 1-P2/4
   [-1, 3, C3, [128]],
   [-1, 1, Conv, [256, 3, 2]],  # 3-P3/8
   [-1, 6, C3, [256]],
   [-1, 1, Conv, [512, 3, 2]],  # 5-P4/16
   [-1, 9, C3, [512]],
   [-1, 1, Conv, [1024, 3, 2]],  # 7-P5/32
   [-1, 3, C3, [1024]],
   [-1, 1, SPPF, [1024, 5]]  # 9
  ]

head:
  [[-1, 1, Conv, [512, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 6], 1, Concat, [1]],  # cat backbone P4
   [-1, 3, C3, [512, False]],  # 13

   [-1, 1, Conv, [256, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 4], 1, Concat, [1]],  # cat backbone P3
   [-1, 3, C3, [256, False]],  # 17 (P3/8-small)

   [-1, 1, Conv, [256, 3, 2]],
   [[-1, 14], 1, Concat, [1]],  # cat head P4
   [-1, 3, C3, [512, False]],  # 20 (P4/16-medium)

   [-1, 1, Conv, [512, 3, 2]],
   [[-1, 10], 1, Concat, [1]],  # cat head P5
   [-1, 3, C3, [1024, False]],  # 23 (P5/32-large)

   [[17, 20, 23], 1, Detect, [nc, anchors]]]  # Detect(P3, P4, P5)
"""


def base(name: str) -> str:
    return (find.configs_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def rows(text: str) -> list[list[Any]]:
    d = yaml.safe_load(text)
    return [*d["backbone"], *d["head"]]


def wiring(rows: list[list[Any]], inserted: str | None = None) -> list[tuple[Any, ...]]:
    """Each row with its producers as rows of the base graph; rows called `inserted` are stepped over.

    Written for the test alone: it shares no code with what it checks.
    """
    numbers: dict[int, int] = {}  # position -> number among the base rows
    through: dict[int, int] = {}  # position of an inserted row -> position of what it reads
    out = []
    for i, (f, n, m, args) in enumerate(rows):
        read = [i + x if x < 0 else x for x in (f if isinstance(f, list) else [f])]
        read = [through.get(x, x) for x in read]
        while any(x in through for x in read):
            read = [through.get(x, x) for x in read]
        if m == inserted:
            through[i] = read[0]
            continue
        numbers[i] = len(numbers)
        out.append((tuple(numbers.get(x, -1) for x in read), isinstance(f, list), n, m, json.dumps(args)))
    return out


# -- places --------------------------------------------------------------------------------------------------------


def test_the_tutorials_place_shifts_detect() -> None:
    text = yolo_attn.insert("yolov5s.yaml", "SEAttention", where="neck-P5")
    assert rows(text)[24] == [-1, 1, "SEAttention", []]
    assert rows(text)[25] == [[17, 20, 24], 1, "Detect", ["nc"]]


def test_backbone_shifts_every_number_and_the_comments() -> None:
    text = yolo_attn.insert(base("yolov5"), "SEAttention", after="C3", where="backbone")
    got = rows(text)
    assert [i for i, r in enumerate(got) if r[2] == "SEAttention"] == [3, 6, 9, 12]
    assert [r[0] for r in got if isinstance(r[0], list)] == [[-1, 9], [-1, 6], [-1, 18], [-1, 14], [21, 24, 27]]
    for comment in ("# 4-P3/8", "# 7-P4/16", "# 10-P5/32", "# 13\n", "# 21 (P3/8, small", "# 23, with head P4"):
        assert comment in text
    assert text.count("[-1, 1, SEAttention, []] # + attention\n") == 4


def test_only_touched_lines_change() -> None:
    before, after = CLASSIC.splitlines(), yolo_attn.insert(CLASSIC, "ECA", where="neck").splitlines()
    added = [line for line in after if "ECA" in line]
    kept = [line for line in after if "ECA" not in line]
    changed = [(a, b) for a, b in zip(before, kept) if a != b]
    assert len(added) == 3 and len(kept) == len(before)
    assert [b.strip() for _, b in changed] == [
        "[-1, 3, C3, [512, False]],  # 21 (P4/16-medium)",
        "[-1, 3, C3, [1024, False]],  # 25 (P5/32-large)",
        "[[18, 22, 26], 1, Detect, [nc, anchors]]]  # Detect(P3, P4, P5)",
    ]


def test_before_detect_leaves_the_path_to_the_next_level_alone() -> None:
    text = yolo_attn.insert(base("yolov5"), "ECA", where="before-detect")
    assert rows(text)[:24] == rows(base("yolov5"))[:24]
    assert [r[0] for r in rows(text)[24:]] == [17, 20, 23, [24, 25, 26]]


def test_behind_a_row_all_that_follows_reads_the_attention() -> None:
    for place in ("backbone", "head", "neck", "P4"):
        got = rows(yolo_attn.insert(base("yolov5"), "ECA", where=place))
        attended = {i - 1 for i, r in enumerate(got) if r[2] == "ECA"}
        reads = {i + x if x < 0 else x for i, r in enumerate(got) if r[2] != "ECA" for x in _list(r[0])}
        assert attended and not attended & reads, place


def _list(f: Any) -> list[int]:
    return f if isinstance(f, list) else [f]


def test_relative_numbers_stay_relative() -> None:
    text = "nc: 2\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\n  - [-1, 1, C3, [8]]\n  - [-1, 1, Conv, [8, 1, 1]]\nhead:\n"
    text += "  - [[-1, -2], 1, Concat, [1]]\n  - [[-1, -4], 1, Concat, [1]]\n  - [[-1], 1, Detect, [nc]]\n"
    got = rows(yolo_attn.insert(text, "ECA", after=2))
    assert [r[0] for r in got[4:]] == [[-1, -3], [-1, -5], [-1]]


def test_levels_of_four_head_models() -> None:
    got = rows(yolo_attn.insert("yolov5s6.yaml", "ECA", where=["P6", "neck-P6"]))
    assert [i for i, r in enumerate(got) if r[2] == "ECA"] == [11, 34]
    assert len(got[-1][0]) == 4 and got[-1][0][-1] == 34


def test_inside_keeps_rows_and_arguments() -> None:
    text = yolo_attn.insert(CLASSIC, "ECA", where=["inside", "inside-neck"], start="identity")
    before, after = rows(CLASSIC), rows(text)
    for a, b in zip(before, after):
        assert a[:2] == b[:2] and b[2] in (a[2], a[2] + "Attention")
        assert b[3] == (a[3] if a[2] == b[2] else [*a[3], {"module": "ECA", "start": "identity"}])
    assert sum(r[2] == "C3Attention" for r in after) == 7
    assert yolo_attn.remove(text) == CLASSIC


def test_inside_c3k2_leaves_one_by_which_the_host_knows_yolo11() -> None:
    d = {"nc": 2, "backbone": [[-1, 1, "Conv", [64, 3, 2]], [-1, 2, "C3k2", [64, False, 0.25]]]}
    d["head"] = [[-1, 2, "C3k2", [64, True]], [[1, 2], 1, "Detect", ["nc"]]]
    new = yolo_attn.insert(d, "SE", where="inside")
    assert new["backbone"][1] == [-1, 2, "C3k2Attention", [64, False, 0.25, {"module": "SE"}]]
    assert new["head"] == d["head"] and yolo_attn.remove(new) == d
    with pytest.raises(UsageError, match="YOLO11's detection head.*where="):
        yolo_attn.insert(d, "SE", where=["inside", "inside-head"])


def test_several_places_take_a_row_once_but_inside_and_behind_both() -> None:
    once = yolo_attn.insert(base("yolov5"), "ECA", where=["backbone", "P4", "backbone-last2"])
    assert once == yolo_attn.insert(base("yolov5"), "ECA", where="backbone")
    both = rows(yolo_attn.insert(base("yolov5"), "ECA", where=["inside-P4", "P4"]))
    assert both[6][2] == "C3Attention" and both[7][2] == "ECA"
    chained = rows(yolo_attn.insert(base("yolov5"), "ECA", where=["neck", "before-detect"]))
    assert [r[0] for r in chained[-4:]] == [18, 22, 26, [27, 28, 29]]


def test_options_and_start_go_into_the_row() -> None:
    text = yolo_attn.insert(base("yolov5"), "SE", after=[4, "SPPF"], args={"reduction": 8}, start="identity")
    assert [r[3] for r in rows(text) if r[2] == "SE"] == [[{"reduction": 8, "start": "identity"}]] * 2


def test_a_module_of_the_users_own_yaml() -> None:
    text = "register:\n  Gate: gate.py:Gate\n" + base("yolov5")
    out = yolo_attn.insert(text, "Gate", where="P3")
    assert rows(out)[5] == [-1, 1, "Gate", []]
    assert yolo_attn.remove(out) == text


def test_a_dictionary_comes_back_as_one_and_stays_as_it_was() -> None:
    d = yaml.safe_load(CLASSIC)
    out = yolo_attn.insert(d, "SE", where="backbone")
    assert d == yaml.safe_load(CLASSIC)
    assert out == yaml.safe_load(yolo_attn.insert(CLASSIC, "SE", where="backbone"))
    assert yolo_attn.remove(out) == d


def test_set_start_reaches_rows_and_blocks_and_names_what_has_none(tmp_path: Path) -> None:
    text = "register:\n  Gate: gate.py:Gate\n" + yolo_attn.insert(base("yolov5"), "SE", where=["inside", "P5"])
    text = yolo_attn.insert(text, "Gate", where="P3")
    out, without = yolo_attn.set_start(text)
    assert without == ["Gate"]
    assert [r[3][-1].get("start") for r in rows(out) if isinstance((r[3] or [0])[-1], dict)] == ["identity"] * 5


@pytest.mark.parametrize("name", ["yolov5_cbam.yaml", "yolov5_cbam_neck.yaml", "yolov5_c3cbam.yaml", "yolov5_se.yaml"])
def test_every_shipped_attention_is_known_by_what_its_row_resolves_to(name: str) -> None:
    """On a name, on text and on a dictionary: a start is written, and attention can be taken out."""
    plain = rows(base("yolov5"))
    text = (find.configs_folder() / name).read_text(encoding="utf-8")
    for cfg in (name, text, yaml.safe_load(text)):
        started, without = yolo_attn.set_start(cfg)
        d = started if isinstance(started, dict) else yaml.safe_load(started)
        attended = [r for r in [*d["backbone"], *d["head"]] if "CBAM" in r[2] or "SE" in r[2]]
        assert not without and attended and all(r[3][-1]["start"] == "identity" for r in attended)
        bare = yolo_attn.remove(cfg, all=True)
        bare = bare if isinstance(bare, dict) else yaml.safe_load(bare)
        assert [*bare["backbone"], *bare["head"]] == plain
    d = yaml.safe_load(text)
    assert yolo_attn.insert(d, "ECA", where="backbone")["backbone"][:1] == plain[:1]
    assert sum(r[2] == "ECA" for r in yolo_attn.insert(d, "ECA", where="backbone")["backbone"]) == 4


def test_a_name_that_the_hosts_parser_knows_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import ultralytics.nn.tasks as tasks

    text = (find.configs_folder() / "yolov5_cbam.yaml").read_text(encoding="utf-8").replace(" # + attention", "")
    monkeypatch.setattr(tasks, "CBAM", type("CBAM", (torch.nn.Module,), {}), raising=False)
    assert yolo_attn.set_start(text) == (text, [])
    assert yolo_attn.remove(text, all=True) == text
    with pytest.raises(UsageError, match="write yolo_attn.CBAM"):
        yolo_attn.insert(base("yolov5"), "CBAM", where="neck")
    assert yolo_attn.remove(text.replace(" CBAM,", " yolo_attn.CBAM,"), all=True) != text


def test_a_block_of_a_residual_network_has_no_plain_form_to_fall_back_to() -> None:
    """`ResNetAttention` is no `ResNet`: no host has a row of that name."""
    d = yaml.safe_load(base("yolov5"))
    d["backbone"][2] = [-1, 3, "ResNetAttention", [128, 1, {"module": "ECA"}]]
    assert yolo_attn.remove(d)["backbone"][2][2] == "ResNetAttention"
    with pytest.raises(UsageError, match="no form with attention inside; .*C2f.*C3.*C3k2.*Conv.* have"):
        yolo_attn.insert(d, "SE", where="inside", after="SPPF")


# -- layout --------------------------------------------------------------------------------------------------------

LAYOUTS = {
    **{name: base(name) for name in BASES},
    "classic": CLASSIC,
    "crlf": base("yolov8").replace("\n", "\r\n"),
    "no final line break": base("yolov5").rstrip("\n"),
    "nested": yaml.safe_dump(yaml.safe_load(base("yolov5"))),
    "head first": "head:" + base("yolov5").split("\nhead:")[1] + "\n" + base("yolov5").split("\nhead:")[0] + "\n",
    "head first, no final line break": CLASSIC[CLASSIC.index("head:") :] + CLASSIC[: CLASSIC.index("head:")].rstrip(),
    "json": json.dumps(yaml.safe_load(CLASSIC), indent=1) + "\n",
    "one line": json.dumps(yaml.safe_load(CLASSIC)) + "\n",
    "one line, no line break": json.dumps(yaml.safe_load(CLASSIC)),
    "mixed line breaks": CLASSIC.replace("\n", "\r\n", 9),
    "byte order mark": "\ufeff" + CLASSIC,
    "quoted": base("yolov8").replace("C2f", "'C2f'").replace("Conv", '"Conv"'),
    "anchored": base("yolov5")
    .replace("backbone:", "backbone: &rows")
    .replace("[-1, 6, C3, [256]]", "&r [-1, 6, C3, [256]]"),
    "flow with final commas": CLASSIC.replace("5]]  # 9", "5]],  # 9").replace("anchors]]]", "anchors]],\n  ]"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", PLACES)
def test_remove_gives_back_every_byte(layout: str, place: str) -> None:
    text = LAYOUTS[layout]
    out = yolo_attn.insert(text, "SGE", where=place)
    assert wiring(rows(out), "SGE") == wiring(rows(text))
    assert yolo_attn.remove(out) == text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inside_and_out_again_gives_back_every_byte(layout: str) -> None:
    text = LAYOUTS[layout]
    out = yolo_attn.insert(text, "SGE", where="inside", start="identity")
    inside = [r for r in rows(out) if r[2].endswith("Attention")]
    assert len(inside) >= 4 and all(r[3][-1] == {"module": "SGE", "start": "identity"} for r in inside)
    assert yolo_attn.remove(out) == text


@pytest.mark.parametrize(
    "comment", ["#", "# ", "#x ", "#  ", "# 2", "#glued", "# + attention inside", "# my + attention inside"]
)
def test_comments_survive_the_mark_of_a_changed_block(comment: str) -> None:
    text = base("yolov5").replace("  - [-1, 3, C3, [128]]\n", f"  - [-1, 3, C3, [128]] {comment}\n")
    out = yolo_attn.insert(text, "ECA", where=["inside", "P3"])
    assert out.count("+ attention inside") == text.count("+ attention inside") + 4
    assert yolo_attn.remove(out) == text == yolo_attn.remove(text)


def test_remove_twice_inserted_and_one_of_two() -> None:
    once = yolo_attn.insert(CLASSIC, "SE", where="backbone")
    twice = yolo_attn.insert(once, "ECA", where=["backbone", "before-detect"], args={"kernel_size": 3})
    assert yolo_attn.remove(twice, "ECAAttention") == once
    assert yolo_attn.remove(twice) == CLASSIC


def test_remove_takes_out_what_a_hand_wrote() -> None:
    by_hand = CLASSIC.replace(
        "   [[17, 20, 23], 1, Detect", "   [-1, 1, SELayer, [1024, 16]],\n   [[17, 20, 24], 1, Detect"
    )
    assert yolo_attn.remove(by_hand, "SE") == yolo_attn.remove(by_hand, all=True) == CLASSIC


def test_a_plain_remove_leaves_what_a_hand_wrote_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The original byte for byte, also where its author had put attention in."""
    by_hand = CLASSIC.replace("[-1, 3, C3, [1024]],", "[-1, 3, C3SE, [1024]],").replace(
        "   [[17, 20, 23], 1, Detect", "   [-1, 1, SELayer, [1024, 16]],\n   [[17, 20, 24], 1, Detect"
    )
    out = yolo_attn.insert(by_hand, "ECA", where=["backbone", "inside-P4"])
    with caplog.at_level("INFO", logger="yolo_attn"):
        assert yolo_attn.remove(out) == by_hand
    assert "rows 11 (C3SE), 28 (SELayer); all=True" in caplog.text
    assert yolo_attn.remove(out, all=True) == CLASSIC
    with pytest.raises(UsageError, match="one module"):
        yolo_attn.remove(out, "SE", all=True)


def test_a_hosts_own_module_of_the_same_name_stays() -> None:
    text = base("yolov5").replace("[-1, 1, SPPF, [1024, 5]] # 9", "[-1, 1, PSA, [1024]] # 9")
    assert yolo_attn.remove(yolo_attn.insert(text, "SE", where="backbone")) == text


def test_a_comment_that_only_looks_like_a_row_number() -> None:
    # `# 4` stands behind row 3 and would be right after the shift: taking it for a number would break `remove`
    text = "nc: 1\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\n  - [-1, 1, C3, [8]]\n  - [-1, 1, C3, [8]]\n"
    text += "  - [-1, 1, Conv, [8, 3, 2]] # 4\nhead:\n  - [[-1, 2], 1, Detect, [nc]]\n"
    out = yolo_attn.insert(text, "SE", after=1)
    assert "# 4\n" in out
    assert yolo_attn.remove(out) == text


def test_aliases_are_refused_in_words() -> None:
    text = "nc: 1\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\n  - &c [-1, 1, C3, [8]]\n  - *c\nhead:\n  - [[0, 1, 2], 1, Detect, [nc]]\n"
    with pytest.raises(ConfigError, match="alias"):
        yolo_attn.insert(text, "SE", after=0)


# -- shipped files -------------------------------------------------------------------------------------------------


def test_shipped_configs_are_what_insert_makes(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setattr(sys, "argv", ["make_configs.py", "--check"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / "make_configs.py"), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr().out


@pytest.mark.parametrize(("name", "parameters"), [("yolov5s_se_p5.yaml", 9_185_920), ("yolov5s.yaml", 9_153_152)])
def test_parameters_are_those_of_a_hand_edit(name: str, parameters: int) -> None:
    from ultralytics.nn.tasks import DetectionModel

    assert sum(p.numel() for p in DetectionModel(name, verbose=False).parameters()) == parameters


@pytest.mark.parametrize("name", BASES)
def test_plain_files_are_the_hosts_own_models(name: str) -> None:
    import ultralytics

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    (host,) = folder.rglob(f"{name}.yaml")
    mine, theirs = yaml.safe_load(base(name)), yaml.safe_load(host.read_text(encoding="utf-8"))
    assert mine["scales"] == theirs["scales"] and mine["nc"] == theirs["nc"]
    assert wiring([*mine["backbone"], *mine["head"]]) == wiring([*theirs["backbone"], *theirs["head"]])


# -- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"module": "SEAtention", "where": "neck"}, UnknownModuleError, "Did you mean 'SEAttention'"),
        ({"module": "C3Attention", "where": "neck"}, UsageError, "where='inside'"),
        ({"module": "WeightedConcat", "where": "neck"}, UsageError, "by hand"),
        ({"module": "SE"}, UsageError, "after=.*where="),
        ({"module": "SE", "where": "nek"}, UsageError, "Did you mean 'neck'"),
        ({"module": "SE", "where": "P6"}, UsageError, "P3 is row 4, P4 is row 6, P5 is row 8"),
        ({"module": "SE", "after": "C2f"}, UsageError, r"C3 \(2 4 6 8\)"),
        ({"module": "SE", "after": "c3"}, UsageError, "Did you mean 'C3'"),
        (
            {"module": "SE", "after": "SPPF", "where": "neck"},
            UsageError,
            "no row matches where='neck' and after='SPPF'",
        ),
        ({"module": "SE", "after": 24}, UsageError, "row 24 is Detect"),
        ({"module": "SE", "after": "Detect"}, UsageError, "before-detect"),
        ({"module": "SE", "after": 25}, UsageError, "no row 25; the rows are 0 to 24"),
        ({"module": "SE", "after": -1}, UsageError, "no row -1"),
        ({"module": "SE", "where": "neck", "args": {"redction": 8}}, UsageError, "reduction=16"),
        ({"module": "SE", "where": "neck", "start": "identiy"}, UsageError, "Did you mean 'identity'"),
        ({"module": "SE", "where": "neck", "start": 3}, UsageError, "'identity' or 'paper', got 3"),
        ({"module": "SE", "after": 3.5}, UsageError, "module types or row numbers, got 3.5"),
        ({"module": "SE", "where": 4}, UsageError, "'neck', got 4"),
        ({"module": "SE", "where": "neck", "args": 3}, UsageError, "options by name, e.g. reduction 8, got 3"),
        (
            {"module": "SE", "where": "neck", "args": {"reduction": 0}},
            UsageError,
            r"row 17 \(C3\): SEAtt.*'reduction': 0",
        ),
        ({"module": "SE", "where": "inside", "args": {"reduction": 0}}, UsageError, r"row 2 \(C3\).*'reduction': 0"),
        ({"module": "SE", "where": "neck", "args": {"reduction": float("nan")}}, UsageError, "128 channels arrive"),
        ({"module": "SE", "after": "SPPF", "where": "inside"}, UsageError, "SPPF has no form with attention inside"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        yolo_attn.insert("yolov5s.yaml", **options)


def test_what_is_no_yaml_is_told_where_it_goes() -> None:
    class Detector:
        model = None

    for cfg, says in (("v8.pt", "v8.pt is a checkpoint"), (Detector(), "a Detector was given")):
        with pytest.raises(UsageError, match=f"{says}; .*yolo_attn.attach"):
            yolo_attn.insert(cfg, "SE", where="neck")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--module SE --after Detect", "--where before-detect"),
        ("--module SE --where neck --after 3 SPPF", "no row matches --where neck and --after 3 SPPF"),
        ("--module SE", "--after (a module type or row number) or --where"),
        ("--module C3SE --where neck", "--module SEAttention --where inside"),
        ("--module SE --where neck --args reduction=0", "--args reduction=0, where 64 channels arrive"),
        ("--module SE --where neck --args reduction=[", "--args reduction=[: "),
        ("--module SE --where neck --args a=2020-13-45", "--args a=2020-13-45: "),
        ("--module SE --where neck --all", "--all is an option of --remove"),
        ("--remove --all --module SE", "--module SE removes one module, --all removes every one"),
    ],
)
def test_the_command_line_speaks_its_own_words(words: str, says: str, capsys: Any) -> None:
    assert main(["insert", "yolov5n.yaml", *words.split()]) == 2
    told = capsys.readouterr()
    assert says in told.err and not told.out


NEEDY = """
from torch import nn

class Heads(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        assert channels % heads == 0
    def forward(self, x):
        return x
"""


def test_options_of_a_users_own_module_are_tried_too(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("needy_heads.py").write_text(NEEDY, encoding="utf-8")
    Path("needyn.yaml").write_text("register: {Heads: 'needy_heads.py:Heads'}\n" + base("yolov5"), encoding="utf-8")
    command = "insert needyn.yaml --module Heads --after C3".split()
    for words, says in (
        ([], "'heads'"),
        (["--args", "heads=7"], "with --args heads=7, where 32 channels arrive: Asser"),
    ):
        assert main([*command, *words]) == 2
        told = capsys.readouterr()
        assert "needyn.yaml, row 2 (C3): Heads" in told.err and says in told.err and not told.out
    assert main([*command, "--args", "heads=8", "-o", "out.yaml"]) == 0
    Path("needy_heads.py").unlink()  # without its code the file is edited all the same
    assert main("insert out.yaml --remove -o back.yaml".split()) == 0
    assert Path("back.yaml").read_bytes() == Path("needyn.yaml").read_bytes()


@pytest.mark.parametrize("text", ["a: 1\nb: 2\n", "nc: [\n", "nc: 1\nbackbone: []\nhead: []\n", "- 1\n- 2\n"])
def test_text_that_is_no_model(text: str) -> None:
    with pytest.raises(ConfigError):
        yolo_attn.insert(text, "SE", where="backbone")


def test_command_pipes_utf_8_and_says_what_it_cannot_write(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text = "# 中文\r\n" + CLASSIC.replace("\n", "\r\n")
    Path("m.yaml").write_bytes(text.encode())
    Path("folder.yaml").mkdir()
    command = "insert m.yaml --module SE --where neck".split()
    assert main([*command, "-o", "folder.yaml", "--force"]) == 1
    assert "folder.yaml: cannot be written" in capsys.readouterr().err
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="cp1252", newline="\r\n"))  # as on Windows
    assert main(command) == 0
    assert pipe.getvalue().decode() == yolo_attn.insert(text, "SE", where="neck")


def test_command_writes_removes_and_keeps_the_scale(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    command = "insert yolov5s.yaml --module SEAttention --after C3 --where backbone -o my.yaml".split()
    assert main(command) == 0
    assert main(command) == 1 and "my.yaml exists" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    d = load.load_ultralytics("my.yaml", Path("my.yaml"))
    assert d["scale"] == "s" and len(d["backbone"]) == 14
    assert main("insert my.yaml --remove -o back.yaml".split()) == 0
    assert Path("back.yaml").read_bytes() == (find.configs_folder() / "yolov5.yaml").read_bytes()


def test_dry_run_shows_the_difference_and_writes_nothing(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main("insert yolov5s.yaml --module ECA --where neck-P5 --dry-run -o my.yaml".split()) == 0
    shown = capsys.readouterr().out
    assert "+  - [-1, 1, ECA, []] # + attention" in shown and "-  - [[17, 20, 23], 1, Detect, [nc]]" in shown
    assert not list(tmp_path.iterdir())


# -- random graphs -------------------------------------------------------------------------------------------------


@st.composite
def models(draw: Any) -> dict[str, Any]:
    """A valid detector: convolutions, blocks, joins of equal stride, upsampling, a head on two to four rows."""
    strides: list[int] = []
    out: list[list[Any]] = []

    def number(i: int, target: int) -> int:
        return target - i if target == i - 1 or draw(st.booleans()) else target

    for i in range(draw(st.integers(6, 18))):
        last = strides[-1] if strides else 1
        same = [j for j in range(i - 1) if strides[j] == last]
        kinds = ["Conv", "C3", "C2f"] if i else ["Conv"]
        kinds += ["down"] if last < 32 else []
        kinds += ["up"] if i and last > 2 else []
        kinds += ["join"] * 2 if same else []
        kind = draw(st.sampled_from(kinds))
        f: Any = -1
        if i > 2 and kind in ("Conv", "C3") and draw(st.integers(0, 4)) == 0:
            j = draw(st.integers(0, i - 1))
            f, last = number(i, j), strides[j]
        if kind == "join":
            others = draw(st.lists(st.sampled_from(same), min_size=1, max_size=2, unique=True))
            out.append([[-1, *(number(i, j) for j in others)], 1, "Concat", [1]])
        elif kind == "up":
            out.append([-1, 1, "nn.Upsample", ["None", 2, "nearest"]])
        elif kind in ("Conv", "down"):
            out.append([f, 1, "Conv", [16, 3, 2 if kind == "down" else 1]])
        else:
            out.append([f, draw(st.integers(1, 2)), kind, [16]])
        strides.append(last * 2 if kind == "down" else last // 2 if kind == "up" else last)
    n = len(out)
    fed = draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=min(4, n), unique=True))
    split = draw(st.integers(1, n))
    out.append([fed, 1, "Detect", ["nc"]])
    return {"nc": 3, "backbone": out[:split], "head": out[split:]}


def written(d: dict[str, Any], style: str, comments: list[int]) -> str:
    """The model as text in one of the layouts of the field, some rows followed by a number or a word."""
    if style == "nested":
        return yaml.safe_dump(d)
    lines, i = ["nc: 3"], 0
    for part in ("backbone", "head"):
        lines.append(f"{part}:")
        for k, row in enumerate(d[part]):
            text = yaml.safe_dump(row, default_flow_style=True, width=9999).strip()
            end = k == len(d[part]) - 1
            if style != "block":
                text = f"{'[' if k == 0 else ' '}{text}{',' if style == 'commas' or not end else ''}"
            kind = comments[i % len(comments)]
            lines.append(
                f"  {'- ' if style == 'block' else ''}{text}{['', f' # {i}', ' # a word', f' # {i + 1}-P3'][kind]}"
            )
            i += 1
        if style != "block":
            lines.append("  ]")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_random_graphs_keep_their_wiring_and_come_back(data: Any) -> None:
    d = data.draw(models())
    comments = data.draw(st.sampled_from([[0], [1], [1, 0], [2, 1, 0], [0, 0, 3], [3, 1, 0, 0]]))
    text = written(d, data.draw(st.sampled_from(["block", "commas", "plain", "nested"])), comments)
    assert {k: v for k, v in yaml.safe_load(text).items() if k != "nc"} == {k: v for k, v in d.items() if k != "nc"}
    last = len(d["backbone"]) + len(d["head"]) - 1
    after = data.draw(st.lists(st.integers(0, last - 1), min_size=1, max_size=4, unique=True))
    out = yolo_attn.insert(text, "SGE", after=after)
    if data.draw(st.booleans()):
        out = yolo_attn.insert(out, "SGE", where="before-detect")
    got = rows(out)
    check.validate(yaml.safe_load(out), "random")
    assert wiring(got, "SGE") == wiring([*d["backbone"], *d["head"]])
    assert sum(r[2] == "SGE" for r in got) >= len(after)
    assert yolo_attn.remove(out) == text
    assert yolo_attn.remove(yolo_attn.insert(d, "SGE", after=after)) == d


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_random_graphs_build_and_keep_their_weights(data: Any) -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    d = data.draw(models())
    last = len(d["backbone"]) + len(d["head"]) - 1
    after = data.draw(st.lists(st.integers(0, last - 1), min_size=1, max_size=4, unique=True))
    plain = DetectionModel(dict(d), verbose=False).eval()
    model = DetectionModel(yolo_attn.insert(d, "SE", after=after, start="identity"), verbose=False).eval()
    report = yolo_attn.transfer(plain, model)
    assert report.matched == len(plain.state_dict()) and not report.rewired
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(x)[0], model(x)[0])
