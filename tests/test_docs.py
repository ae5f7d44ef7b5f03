"""The READMEs: generated tables fresh, commands and files real, both languages equal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from yolo_attn import cli
from yolo_attn.model_yaml import find
from yolo_attn.training import options

READMES = ["README.md", "README.zh-CN.md"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[str]:
    return re.findall(r"```\w+\n(.*?)```", text(name), re.DOTALL)


def commands(name: str) -> list[str]:
    """The shell lines of a README, comments left out."""
    lines = [t for b in re.findall(r"```bash\n(.*?)```", text(name), re.DOTALL) for t in b.splitlines()]
    return [t.partition("  #")[0].strip() for t in lines if t.strip() and not t.startswith("#")]


def test_generated_tables_are_fresh() -> None:
    """The catalogue and the tables are what registry, hosts and folder give today."""
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "generate.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", READMES)
def test_the_two_commands_come_first(name: str) -> None:
    """CI runs the second one step by step: nothing between its steps but the hosts that the tests run on.

    CI also installs the runtimes, without which the tests of the formats skip.
    """
    first = commands(name)[:2]
    assert first == ["pip install -e . && python train_detect.py --cfg yolov5s_se.yaml", 'pip install -e ".[test]" && pytest']
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    install, test = first[1].replace("[test]", "[test,deploy]").split(" && ")
    assert any(line.startswith("set -e") for line in script)  # as `&&` does, a failing step ends it
    assert script[script.index(install) :] == [install, "python tools/prepare_hosts.py", test]


@pytest.mark.parametrize("name", READMES)
def test_commands_and_files_are_real(name: str) -> None:
    for line in commands(name):
        words = line.split()
        for k, word in enumerate(words[:-1]):
            if word == "yolo-attn" or (word == "yolo_attn" and words[k - 1] == "-m"):
                assert words[k + 1] in cli.COMMANDS, line
        if "train_detect.py" in words:
            options.parse(words[words.index("train_detect.py") + 1 :])
        for script in re.findall(r"(?:benchmarks|tools)/\w+\.py", line):
            assert (ROOT / script).is_file(), line
    for yaml in re.findall(r"`((?:yolo|se|eca)[\w.-]*\.yaml)`", text(name)):
        assert "_mine" in yaml or find.locate(yaml) is not None, yaml  # the reader's own is not shipped
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text(name)):
        assert (ROOT / link).exists(), link


def test_both_languages_are_equal() -> None:
    """The same code, pictures, figures and number of sections and rows; only the words differ."""
    english, chinese = (text(n) for n in READMES)
    strip = re.compile(r"#.*")
    assert [strip.sub("", b).split() for b in blocks(READMES[0])] == [strip.sub("", b).split() for b in blocks(READMES[1])]
    for pattern in (r"^#+ ", r"^\| ", r"!\["):
        assert len(re.findall(pattern, english, re.MULTILINE)) == len(re.findall(pattern, chinese, re.MULTILINE)), pattern
    numbers = [sorted(re.findall(r"[-+]?\d+\.\d+", t)) for t in (english, chinese)]
    assert numbers[0] == numbers[1]


def test_every_command_has_help() -> None:
    """The overview lists what exists, and nothing exists that it does not list."""
    files = {p.stem for p in (Path(cli.__file__).parent / "commands").glob("*.py")}
    assert {f for f in files if not f.startswith("_")} == set(cli.COMMANDS)


@pytest.mark.parametrize("name", READMES)
def test_troubleshooting_quotes_what_is_printed(name: str) -> None:
    """Each message of the table stands in the code, but for the two that a host prints."""
    code = "\n".join(p.read_text(encoding="utf-8") for d in ("yolo_attn", "patches") for p in (ROOT / d).rglob("*.py"))
    code = re.sub(r"[\"']\s*\n\s*f?[\"']", "", re.sub(r"\{[^{}\n]*\}", "0", code))  # joined literals; fields are figures
    table = text(name).split("`cannot patch ...`")[0].rpartition("| --- | --- |")[2]
    table += "`cannot patch ...`" + text(name).split("`cannot patch ...`")[1].partition("\n\n")[0]
    messages = re.findall(r"^\| `([^`]*)` \|", table, re.MULTILINE)
    assert len(messages) >= 13
    for message in messages:
        if message.startswith("expected input"):
            continue
        for part in re.split(r"\.\.\.|'[^']*'|, but |\bmy_attn\.py\b|1e-04", message):
            wanted = re.sub(r"\d+", "0", part).strip(" :")
            if len(wanted) > 3:
                assert wanted in code, (message, wanted)
