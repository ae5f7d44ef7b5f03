"""`yolo-attn check`: every planted fault is found and its line named, a healthy module passes, and no module stops the command."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Run

from yolo_attn.errors import PluginError, UsageError
from yolo_attn.inside.check import launch, order, run, table
from yolo_attn.inside.check.subject import Subject, subject_of
from yolo_attn.inside.check.verdict import FAILURE, PASS, SKIPPED, WARNING, Finding
from yolo_attn.registry import plugins

FILE = Path(__file__).with_name("planted.py")
TEXT = FILE.read_text(encoding="utf-8").splitlines()
CLASSES = {node.name: node for node in ast.parse("\n".join(TEXT)).body if isinstance(node, ast.ClassDef)}
WARNINGS = {"optimizer", "portable", "parameters", "shrinkage"}
FAULTY = [name for name in CLASSES if name != "Gate"]
CHEAP = [n for n in order.NAMES if n not in ("static-onnx", "dynamic-onnx", "opencv", "compile", "cost", "fuse")]


def planted(name: str) -> tuple[Subject, list[str], int]:
    """The module, the checks that have to find its fault, and the line that they have to name."""
    cls = getattr(plugins.load_file(FILE), name)
    node = CLASSES[name]
    lines = range(node.lineno, (node.end_lineno or 0) + 1)
    (here,) = [n for n in lines if TEXT[n - 1].endswith("# HERE")] or [0]
    return subject_of(name), getattr(cls, "found", "").split(), here


@pytest.mark.parametrize("name", FAULTY)
def test_a_planted_fault_is_found_and_its_line_named(name: str) -> None:
    s, checks, here = planted(name)
    for check in checks:
        found = run.one(check, s)
        warned = (check in WARNINGS and name != "AttendsInTrainingOnly") or (name, check) == ("ItemInForward", "device")
        assert found.status == (WARNING if warned else FAILURE), found
        assert found.line is not None and found.line.file == str(FILE) and found.line.number == here, found
        assert found.said and found.remedy and "\n" not in found.said + found.remedy


def test_a_healthy_module_passes_everything() -> None:
    s, _, _ = planted("Gate")
    found = list(run.several(s))
    assert [f.check for f in found] == list(order.NAMES) == list(run.CHECKS)
    assert [f for f in found if f.status != PASS] == []
    numbers = {f.check: f.numbers for f in found if f.numbers}
    assert numbers["cost"]["parameters"] == 64 * 256 * 2 + 64 + 256  # type: ignore[index]
    assert numbers["static-onnx"]["operators"] == {"ReduceMean": 1, "Conv": 2, "Relu": 1, "Sigmoid": 1, "Mul": 1}  # type: ignore[index]
    assert abs(numbers["shrinkage"]["ratio"] - 0.5) < 0.05  # type: ignore[index]


def test_one_fault_does_not_fail_the_other_checks() -> None:
    """What a user reads is short: a fault of one kind does not come back under every name."""
    expected = {
        "OnTheCpu": {"device", "half-weights"}, "UntrainedName": {"optimizer", "autocast"}, "ViewOnChannelsLast": {"memory-format"},
        "RandomGate": {"repeatable"}, "InPlaceOnInput": {"input-kept"}, "LambdaInSelf": {"save", "largest"},
        "BatchNormOnOneValue": {"one-image"}, "UnusedLayer": {"parameters"},
    }  # fmt: skip
    for name, names in expected.items():
        s, _, _ = planted(name)
        bad = {f.check for f in run.several(s, CHEAP) if f.status in (FAILURE, WARNING)}
        assert bad <= names, (name, bad)


def test_what_needs_a_first_check_is_skipped() -> None:
    s, _, _ = planted("NeedsMore")
    first, *rest = run.several(s)
    assert first.status == FAILURE and "[-1, 1, NeedsMore, [{heads: 4}]]" in first.remedy
    assert {f.status for f in rest} == {SKIPPED}
    given = subject_of("NeedsMore", {"heads": 4})
    assert run.one("constructor", given).status == PASS and run.one("runs", given).status == PASS


def test_a_module_of_sequences_is_told_its_entry() -> None:
    found = run.one("runs", planted("TakesSequences")[0])
    assert "It takes (B, H*W, C)" in found.remedy and "layout: sequence" in found.remedy.replace("='sequence'", ": sequence")


# -- in a process of its own -----------------------------------------------------------------------------------------

ODD = '''
import ctypes
import os
import sys
import time

import torch
from torch import nn


class Odd(nn.Module):
    def forward(self, x):
        print("printed by the module")
        os.system("echo printed below Python")
        if x.shape[2:] == (1, 1) and len(x) == 2:
            ctypes.string_at(0)
        while x.shape[2:] == (1, 1):
            time.sleep(0.05)
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class Exits(nn.Module):
    def forward(self, x):
        sys.exit(3)
'''


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("odd") / "odd_ones.py"
    file.write_text(ODD, encoding="utf-8")
    return file


def test_a_module_may_crash_print_and_hang(odd: Path, cli: Callable[..., Run]) -> None:
    done = cli("check", f"{odd}:Odd", "--only", "runs,one-pixel,one-image,names", "--timeout", "5", "--json")
    (told,) = json.loads(done.out)["modules"]  # nothing else is on standard output
    found = {c["check"]: c for c in told["checks"]}
    assert done.code == 1 and "Traceback" not in done.err and not told["passed"]
    assert {n: c["status"] for n, c in found.items()} == {
        "runs": PASS, "one-pixel": FAILURE, "one-image": FAILURE, "names": PASS
    }  # fmt: skip
    assert "the process was ended" in found["one-pixel"]["said"] and "ctypes.string_at(0)" in found["one-pixel"]["line"]["text"]
    assert "still running after 5 s" in found["one-image"]["said"] and "time.sleep" in found["one-image"]["line"]["text"]


def test_a_module_may_call_exit(odd: Path) -> None:
    found = run.one("runs", subject_of(f"{odd}:Exits"))
    assert found.status == FAILURE and "SystemExit: 3" in found.said and found.line and found.line.text == "sys.exit(3)"


def test_a_file_that_ends_the_process_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ends_the_process.py"
    path.write_text("import os\nos._exit(7)\n", encoding="utf-8")
    with pytest.raises(PluginError, match=r"ends_the_process\.py:M: its file ended the process on import \(exit code 7\)$"):
        list(launch.check(f"{path}:M"))


def test_the_table_and_the_exit_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from yolo_attn.inside.check.verdict import Line

    report = table.Report(["M"])
    report.begin("M", 64, "cpu")
    report.add(Finding("runs", PASS, "fine"))
    report.add(Finding("optimizer", WARNING, "a name", Line(str(FILE), 3, "import random"), "rename it"))
    assert (report.exit_code(), report.exit_code(strict=True)) == (0, 1)
    report.add(Finding("save", FAILURE, "lost", None, "keep it"))
    report.add(Finding("opencv", SKIPPED, "not made: x failed"))
    report.add(Finding("compile", SKIPPED, "not made: x failed"))
    report.end(None)
    assert report.exit_code() == 1
    out = capsys.readouterr().out
    assert "tests/inside/planted.py:3: import random" in out.replace("\\", "/") and "-> rename it" in out
    assert "2 checks: not made: x failed" in out and "1 passed, 1 warning, 1 failure, 2 skipped" in out


def test_wrong_options() -> None:
    assert table.chosen(["save,runs"], []) == ("runs", "save")
    with pytest.raises(UsageError, match=r"no check is called 'sav'. Did you mean 'save'"):
        table.chosen(["sav"], [])
    with pytest.raises(UsageError, match="--device tpu: PyTorch cannot use it"):
        subject_of("SE", device="tpu")
    with pytest.raises(UsageError, match="no check is left"):
        table.chosen(["save"], ["save"])


def test_the_command_names_an_unknown_module(cli: Callable[..., Run], tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path / "mine.py")
    done = cli("check", "mine.py:Gat")
    assert done.code == 1 and "has no class 'Gat'. Did you mean 'Gate'" in done.mistake()
    assert cli("check", "SE", "--channels", "0").code == 2
