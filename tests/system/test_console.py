"""Called from anywhere: a notebook, a redirected stream, no console, a closed pipe; and the process is left as it was."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from yolo_attn import cli
from yolo_attn.errors import UsageError
from yolo_attn.system import console


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


INSERT = ["insert", "yolov5s.yaml", "--module", "SE", "--where", "neck"]


def test_a_stream_without_bytes_gets_text(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook's; `patch` writes the same way."""
    import ultralytics.nn.tasks as host

    for argv, start in ((INSERT, "#"), (["patch", "--diff", str(host.__file__)], "--- a/"), (["list"], "module")):
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        assert cli.main(argv) == 0
        assert sys.stdout.getvalue().startswith(start)  # type: ignore[attr-defined]


def test_no_console(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """pythonw has no streams at all: files are written, exit codes are the same."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main([*INSERT, "-o", "a.yaml"]) == 0
    assert Path("a.yaml").is_file()
    for argv, code in ((INSERT, 0), (["list"], 0), (["list", "--help"], 0), (["list", "--nothing"], 2), (["lst"], 2)):
        assert cli.main(argv) == code


def test_a_console_that_lacks_a_character(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """It shows the escape; the stream is given back as strict as it was."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main([*INSERT, "-o", "\u5206.yaml"]) == 0
    out.flush()
    assert b"\\u5206.yaml: " in out.buffer.getvalue()  # type: ignore[attr-defined]
    assert out.errors == "strict"


@pytest.mark.skipif(os.name == "nt", reason="a pipe that nobody reads is another error there")
@pytest.mark.parametrize("argv", [["list"], INSERT, ["list", "--help"]])
def test_a_closed_pipe_is_no_error(argv: list[str], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, "-m", "yolo_attn", *argv], stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, env=env, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_workers_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only standard output's own counts as `| head`: a command that failed must not end with 0."""
    with pytest.raises(BrokenPipeError), console.standard_output():
        raise BrokenPipeError("a worker is gone")


def test_one_parser_raises_and_takes_no_abbreviation() -> None:
    parser = console.Parser(prog="tool")
    parser.add_argument("--start", type=int)
    for argv in (["--sta", "1"], ["--start", "x"], ["--other"]):
        with pytest.raises(UsageError, match="'tool --help' shows the options"):
            parser.parse_args(argv)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        *(([name, "--no-such-option"], 2) for name in cli.COMMANDS if name not in ("yolo", "data")),
        (["show", "yolov5s_se.yaml", "--img", "wide"], 2),
        (["show", "yolov5s_se.yaml", "--img", "0"], 2),
        (["train", "--epochs", "many"], 2),
        (["train", "--epochs", "-1"], 2),
        (["train", "stray"], 2),
        (["train", "--device", "gpu"], 2),
        (["train", "lr=0.1"], 2),
        (["export", "x.pt", "--format", "tflight"], 2),
        (["insert", "yolov5s.yaml", "--module", "SE", "--where", "nek"], 2),
        (["run", "--freeze", "backbone", "a.py"], 2),
        (["train", "--data", "nowhere.yaml"], 1),
        (["train", "--cfg", "nowhere.yaml"], 1),
        (["train", "--resume", "nowhere.pt"], 1),
        (["show", "nowhere.yaml"], 1),
        (["export", "nowhere.pt"], 1),
        (["detect", "nowhere.onnx", "--source", "."], 1),
        (["transfer", "nowhere.pt", "yolov5s_se.yaml"], 1),
        (["run", "nowhere.py"], 1),
        (["env", "--host", "nowhere"], 1),
    ],
)
def test_wrong_options_are_2_and_wrong_files_1(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int
) -> None:
    assert cli.main(argv) == code
    (line,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith(f"yolo-attn {argv[0]}: ")]
    assert line


SCRIPT = """
import os, subprocess, sys
names = ("YOLO_ATTN_START", "YOLO_ATTN_SCHEDULE", "YOLO_ATTN_PLUGINS", "YOLO_AUTOINSTALL")
assert all(os.environ.get(n) for n in names), dict(os.environ)
subprocess.run([sys.executable, "-c", f"import os; assert all(os.environ.get(n) for n in {names!r})"], check=True)
assert sys.argv == ["script.py", "word"] and sys.path[0] == os.getcwd()
os.environ["OWN"] = "1"
sys.path.append("own")
"""

COMMANDS: dict[str, list[str]] = {
    "list": ["list", "--plugin", "mine.py"],
    "show": ["show", "yolov5n_se.yaml", "--img", "32"],
    "env": ["env", "--host", "."],
    "insert": INSERT,
    "transfer": ["transfer", "nowhere.pt", "yolov5n_se.yaml"],
    "train": ["train", "--data", "nowhere.yaml", "--plugin", "mine.py"],
    "export": ["export", "nowhere.pt"],
    "detect": ["detect", "nowhere.onnx", "--source", "."],
    "val": ["val", "nowhere.onnx", "--data", "nowhere.yaml"],
    "bench": ["bench", "nowhere.pt"],
    "yolo": ["yolo", "--start", "identity", "version"],
    "run": ["run", "--plugin", "mine.py", "--start", "identity", "--freeze", "base:2", "script.py", "word"],
    "patch": ["patch", "--diff", "script.py"],
    "adopt": ["adopt", "nowhere.yaml", "-o", "mine.yaml"],
    "compare": ["compare", "--data", "nowhere.yaml", "--cfgs", "nowhere.yaml", "elsewhere.yaml"],
    "report": ["report", "nowhere"],
    "search": ["search", "--data", "nowhere.yaml", "--base", "nowhere.yaml"],
    "gates": ["gates", "nowhere.pt", "--data", "nowhere.yaml"],
    "fold": ["fold", "nowhere.pt", "--data", "nowhere.yaml"],
    "explain": ["explain", "nowhere.pt", "nowhere.jpg"],
    "check": ["check", "nowhere.py:Nothing"],
    "draw": ["draw", "yolov5n_se.yaml", "-o", "drawn.svg"],
    "completion": ["completion", "bash"],
    "data": ["data", "drawn", "--train", "1", "--val", "1", "--size", "32"],
}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_process_is_left_as_it_was(name: str, here: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, arguments, module path and log handlers; what is started within a command inherits all of it."""
    Path("script.py").write_text(SCRIPT, encoding="utf-8")
    Path("mine.py").write_text("from torch import nn\nclass MineOfThisTest(nn.Module): pass\n", encoding="utf-8")
    for variable in ("YOLO_AUTOINSTALL", "YOLO_OFFLINE", "YOLOv5_AUTOINSTALL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "argv", ["caller", "words"])
    kit = logging.getLogger("yolo_attn")

    def state() -> list[Any]:
        return [dict(os.environ), list(sys.argv), list(sys.path), list(kit.handlers), kit.level, kit.propagate]

    before, argv, path = state(), sys.argv, sys.path
    assert cli.main(COMMANDS[name]) in (0, 1)
    assert state() == before
    assert sys.argv is argv and sys.path is path
