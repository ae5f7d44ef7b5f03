"""The commands that look and do not train: list, show, env, data, and the help of all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from yolo_attn import cli
from yolo_attn.commands import _tables
from yolo_attn.model_yaml import find
from yolo_attn.registry import registry


def told(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command prints, which must succeed."""
    assert cli.main(argv) == 0
    return capfd.readouterr().out


@pytest.mark.parametrize("name", [n for n in cli.COMMANDS if n != "yolo"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command says how it is used, and every option has a word of explanation."""
    try:
        code = cli.main([name, "--help"])
    except SystemExit as exc:
        code = int(exc.code or 0)
    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("usage: ")
    lines = out.splitlines()
    for line, after in zip(lines, [*lines[1:], ""]):
        if re.match(r" {2}-", line):
            assert re.search(r"\S {2,}\S", line.strip()) or after.startswith(" " * 8), f"no help: {line}"


def test_the_hosts_command_line_says_what_may_stand_before_it(capfd: pytest.CaptureFixture[str]) -> None:
    import sys

    before = list(sys.argv)
    try:
        out = told(capfd, "yolo", "--help")
    finally:
        sys.argv[:] = before
    assert out.startswith("usage: yolo-attn yolo [--plugin FILE ...]")
    assert "--start identity" in out


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["export", "model=a.pt", "format=openvino"], "yolo-attn export a.pt --format openvino"),
        (["mode=export", "model=a.pt"], "yolo-attn export a.pt --format torchscript"),
        (["export", "model=my runs/a.pt"], "yolo-attn export 'my runs/a.pt' --format torchscript"),
        (["export", "model=a.pt", "format=litert"], "yolo-attn export a.pt --format tflite"),
        (["export", "model=a.pt", "format=paddle"], "yolo-attn export --help"),
        (["predict", "model=a.pt"], ""),
    ],
)
def test_an_export_of_the_hosts_command_line_is_not_called_proved(
    argv: list[str], names: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import sys

    from ultralytics import cfg

    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(cfg, "entrypoint", lambda: None)
    assert cli.main(["yolo", *argv]) == 0
    err = capfd.readouterr().err
    assert ("not compared with PyTorch" in err and names in err) if names else not err


def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    """Every module, and one in full under each of its names."""
    out = told(capfd, "list")
    shown = [r["name"] for r in _tables.catalog()]
    assert len(shown) > 30
    assert [line.split()[0] for line in out.splitlines()[1 : len(shown) + 1]] == shown
    for name in ("SEAttention", *registry.get_entry("SEAttention").aliases):
        one = told(capfd, "list", name)
        for word in ("SEAttention", "1709.01507", "reduction=16", "[-1, 1, SEAttention, []]"):
            assert word in one
    channel = told(capfd, "list", "--kind", "channel")
    assert "SEAttention" in channel and "CoordAtt" not in channel


def test_list_configs(capfd: pytest.CaptureFixture[str]) -> None:
    out = told(capfd, "list", "--configs")
    assert [line.split()[0] for line in out.splitlines()[1:]] == find.list_configs()
    some = told(capfd, "list", "--configs", "neck", "--markdown")
    assert "yolov5_se_neck.yaml" in some and "yolov5_se.yaml" not in some


def test_show(capfd: pytest.CaptureFixture[str]) -> None:
    """YOLOv5s with SE behind each backbone C3 beside YOLOv5s; a side between two strides is rounded up."""
    out = told(capfd, "show", "yolov5s_se.yaml", "--img", "100")
    rows = {line[:17].strip(): line.split()[-3:] for line in out.splitlines()[-4:-1]}
    assert rows["yolov5s_se"][:2] == ["29", "9,196,672"]
    assert rows["without attention"][:2] == ["25", "9,153,152"]
    assert rows["attention adds"][:2] == ["+4", "+43,520"]
    assert "GFLOPs at 128" in out


def test_show_prints_before_it_builds(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Building takes seconds, and importing the host too: the file is named before either."""
    from yolo_attn.model_yaml import load

    def stopped(*_: object) -> None:
        assert capfd.readouterr().out.startswith("yolov5n_se.yaml: ")
        raise SystemExit(9)

    monkeypatch.setattr(load, "load_ultralytics", stopped)
    with pytest.raises(SystemExit, match="9"):
        cli.main(["show", "yolov5n_se.yaml"])


def test_show_of_own_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the YAML registers is attention too, where it keeps the channels."""
    monkeypatch.chdir(tmp_path)
    source = (
        "from torch import nn\nclass Own(nn.Module):\n    def __init__(self, channels):\n        super().__init__()\n"
    )
    source += (
        "        self.g = nn.Conv2d(channels, channels, 1)\n    def forward(self, x):\n        return x * self.g(x)\n"
    )
    Path("own_gate.py").write_text(source, encoding="utf-8")
    text = (find.configs_folder() / "yolov5_se_p5.yaml").read_text(encoding="utf-8")
    text = text.replace("SEAttention", "Own") + "register:\n  Own: own_gate.py:Own\n"
    Path("yolov5n_own.yaml").write_text(text, encoding="utf-8")
    out = told(capfd, "show", "yolov5n_own.yaml", "--img", "32").splitlines()
    assert out[-2].split()[:4] == ["attention", "adds", "+1", f"+{256 * 256 + 256:,}"]


def test_env(capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    import ultralytics

    pairs = [re.split(r" {2,}", line, maxsplit=1) for line in told(capfd, "env").splitlines()]
    rows = {p[0]: p[1] for p in pairs if len(p) == 2}  # the host says something of its own when it is first imported
    assert rows["torch"] == torch.__version__.partition("+")[0] or rows["torch"] == torch.__version__
    assert rows["host ultralytics"].startswith(f"{ultralytics.__version__}, ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lst"], "no command is called 'lst'. Did you mean 'list'"),
        (["list", "SEAtention"], "no attention module is called 'SEAtention'. Did you mean .*'SEAttention'"),
        (["list", "nothing"], "no attention module is called 'nothing'. 'yolo-attn list' shows"),
        (["list", "--kind", "foo"], "invalid choice: 'foo'"),
        (["list", "--configs", "nothing"], "no model YAML of the kit has 'nothing' in its name"),
        (["show", "yolov5s_see.yaml"], "model YAML not found: yolov5s_see.yaml.*Did you mean 'yolov5_se'"),
        (["show", "yolov5s_se.yaml", "--img", "0"], "--imgsz must be at least 1, got 0"),
        (["show", "yolov5s_se.yaml", "--nc", "-1"], "--nc must be at least 1, got -1"),
        (["env", "--host", "nowhere"], "--host nowhere: no such folder"),
        (["data", "new", "--train", "0"], "train must be at least 1, got 0"),
        (["data", "new", "--size", "8"], "size must be at least 32, got 8"),
        (["data", "new", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["data", "a_file"], "a_file is a file"),
        (["run", "nowhere.py"], "not found: nowhere.py"),
        (["transfer", "yolov5su.pt", "yolov5s_se.yaml"], "yolov5su.pt was not found and cannot be downloaded"),
        (["transfer", "mine.pt", "yolov5s_se.yaml"], "checkpoint not found: mine.pt"),
    ],
)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    """One message, exit code not 0, nothing written."""
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("", encoding="utf-8")
    try:
        code = cli.main(argv)
    except SystemExit as exc:
        code = int(exc.code or 0)
    assert code in (1, 2)
    assert re.search(message, capsys.readouterr().err)
    assert [p.name for p in tmp_path.iterdir()] == ["a_file"]


def test_what_the_disk_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the file, no traceback."""
    target = tmp_path / "folder.yaml"
    target.mkdir()
    argv = ["insert", "yolov5s.yaml", "--module", "ECA", "--where", "neck", "-o", str(target), "--force"]
    assert cli.main(argv) == 1
    assert re.search(r"yolo-attn insert: .*folder\.yaml", capsys.readouterr().err)


def test_json(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What the tables say, as data, and nothing beside it on standard output."""
    assert json.loads(told(capfd, "list", "--json")) == _tables.catalog()
    assert json.loads(told(capfd, "list", "SE", "--json"))["name"] == "SEAttention"
    assert [r["config"] for r in json.loads(told(capfd, "list", "--configs", "--json"))] == find.list_configs()
    assert json.loads(told(capfd, "env", "--json"))["host ultralytics"]
    shown = json.loads(told(capfd, "show", "yolov5n_se.yaml", "--img", "64", "--json"))
    with_se, without, added = shown["models"]
    assert with_se["parameters"] - without["parameters"] == added["parameters"] > 0
    found = json.loads(told(capfd, "adopt", str(find.configs_folder() / "yolov5_se.yaml"), "--json"))
    assert found["whole"] is True and found["changes"] == []
    shutil.copy(find.configs_folder() / "yolov5_se.yaml", tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("backbone: [[-1, 1, Conv\nhead: []\n", encoding="utf-8")
    assert cli.main(["adopt", str(tmp_path), "--json"]) == 1
    good, bad = json.loads(capfd.readouterr().out)
    assert (good["file"], good["whole"]) == ("a.yaml", True) and (bad["file"], bad["whole"]) == ("b.yaml", False) and bad["problem"]
    import torch
    from ultralytics.nn.tasks import DetectionModel

    weights = tmp_path / "w.pt"
    torch.save(DetectionModel("yolov5n.yaml", verbose=False).state_dict(), weights)
    moved = json.loads(told(capfd, "transfer", str(weights), "yolov5n_se.yaml", "--json"))
    assert moved and cli.main(["transfer", str(weights), "yolov5n_se.yaml", "--json", str(tmp_path / "t.json")]) == 0
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8")) == moved
    assert "SEAttention" in capfd.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_names_every_command(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    script = told(capfd, "completion", shell)
    assert all(name in script for name in cli.COMMANDS)
    assert "--lr-new" in script and "SEAttention" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The script completes commands, options and names of modules in a real shell."""
    script = tmp_path / "completion.bash"
    script.write_text(told(capfd, "completion", "bash"), encoding="utf-8")
    for words, wanted in (("yolo-attn ins", "insert"), ("yolo-attn insert --mod", "--module"), ("yolo-attn insert --module CoordAtt", "CoordAtt")):
        count = len(words.split()) - 1
        line = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={count}; _shtab_yolo_attn; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert wanted in done.stdout.split(), (words, done.stdout, done.stderr)
