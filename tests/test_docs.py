"""READMEs and docs: generated tables fresh, commands and files real, both languages equal, the site builds."""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import absolute_links
import pytest
import torch
from conftest import ROOT, WITHOUT, Run, run_python

import yolo_attn
from yolo_attn import cli
from yolo_attn.commands import parser_of
from yolo_attn.model_yaml import find
from yolo_attn.registry import registry
from yolo_attn.training import options

READMES = ["README.md", "README.zh-CN.md"]
DOCS = [f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))]
OTHERS = ["CONTRIBUTING.md", "SECURITY.md", "skills/yolo-attn/SKILL.md", *(f"examples/{p.name}" for p in sorted((ROOT / "examples").glob("*.md")))]
PAIRS = [(READMES[0], READMES[1]), *((n, n.replace(".md", ".zh.md")) for n in DOCS if not n.endswith(".zh.md"))]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[str]:
    return re.findall(r"```\w+\n(.*?)```", text(name), re.DOTALL)


def commands(name: str) -> list[str]:
    """The shell lines of a README, comments left out."""
    lines = [t for b in re.findall(r"```bash\n(.*?)```", text(name), re.DOTALL) for t in b.splitlines()]
    return [t.partition("  #")[0].strip() for t in lines if t.strip() and not t.startswith("#")]


def headings(name: str) -> list[str]:
    """The anchors of a page, as GitHub makes them and mkdocs.yml asks for."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text(name), flags=re.DOTALL), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in found]


def test_generated_tables_are_fresh() -> None:
    """The catalogue and the tables are what registry, hosts and folder give today."""
    run_python(str(ROOT / "tools" / "generate.py"), "--check").ok()


@pytest.mark.parametrize("name", READMES)
def test_the_two_commands_come_first(name: str) -> None:
    """CI runs the second one step by step: nothing between its steps but the hosts that the tests run on.

    CI also installs the runtimes and what builds the docs, without which their tests skip.
    """
    first = commands(name)[:2]
    assert first == ["pip install -e . && python train_detect.py --cfg yolov5s_se.yaml", 'pip install -e ".[test]" && pytest']
    script = [t.partition(" # ")[0] for t in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]
    install, test = first[1].replace("[test]", "[test,deploy,docs]").replace(" -e ", " --no-compile -e ").split(" && ")
    assert any(line.startswith("set -e") for line in script)  # as `&&` does, a failing step ends it
    assert script[script.index(install) :] == [install, "python tools/prepare_hosts.py", test]


@pytest.mark.parametrize("name", [*READMES, *DOCS, *OTHERS])
def test_commands_and_files_are_real(name: str) -> None:
    for line in commands(name):
        words = line.split()
        for k, word in enumerate(words[:-1]):
            if word == "yolo-attn" or (word == "yolo_attn" and words[k - 1] == "-m"):
                assert words[k + 1] in cli.COMMANDS, line
                if words[k + 1] not in cli.PASS_THROUGH:  # every option exists and has a value that it takes
                    rest = re.split(r" (?:\||&&|>) ", line.partition(f"{word} {words[k + 1]}")[2])[0]
                    parser_of(words[k + 1]).parse_args(shlex.split(rest))
        if "train_detect.py" in words:
            options.parse(words[words.index("train_detect.py") + 1 :])
        for script in re.findall(r"(?:benchmarks|tools)/\w+\.py", line):
            assert (ROOT / script).is_file(), line
    for yaml in re.findall(r"`((?:yolo|se|eca)[\w.-]*\.yaml)`", text(name)):
        assert "_mine" in yaml or find.locate(yaml) is not None, yaml  # the reader's own is not shipped
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text(name)):
        page, _, anchor = link.partition("#")
        target = (ROOT / name).parent / page if page else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in headings(str(target.relative_to(ROOT))), link
        if name.endswith((".zh.md", "zh-CN.md")) and (target.parent == ROOT / "docs") and target.suffix == ".md":
            assert target.name.endswith(".zh.md"), f"{link} leads to the English page"


@pytest.mark.parametrize("pair", PAIRS, ids=[a for a, _ in PAIRS])
def test_both_languages_are_equal(pair: tuple[str, str]) -> None:
    """The same code, pictures, figures and number of sections and rows; only the words differ."""
    if pair[0] == "docs/safety.md":  # SECURITY.md itself, in English; the Chinese page is a summary that says so
        pytest.skip("a summary")
    english, chinese = (text(n) for n in pair)
    strip = re.compile(r"#.*")
    assert [strip.sub("", b).split() for b in blocks(pair[0])] == [strip.sub("", b).split() for b in blocks(pair[1])]
    for pattern in (r"^#+ ", r"^\| ", r"!\["):
        assert len(re.findall(pattern, english, re.MULTILINE)) == len(re.findall(pattern, chinese, re.MULTILINE)), pattern
    numbers = [sorted(re.findall(r"[-+]?\d+\.\d+", t)) for t in (english, chinese)]
    assert numbers[0] == numbers[1]


QUESTIONS = [  # what a new user asks, in the words of the page, with what its answer runs and the page that goes on
    ("My own module does not build", "自己的模块构建失败", "yolo-attn check my_attn.py:MyAttn", "own_modules"),
    ("My pretrained weights are lost", "预训练权重丢失", "yolo-attn transfer", "weights"),
    ("Export fails, or the exported file finds nothing", "导出失败，或导出的文件检测不到目标", "yolo-attn list SE --deploy", "deployment"),
    ("Does attention help?", "注意力有用吗？", "yolo-attn compare", "compare"),
    ("Which module, and where?", "选哪个模块、放在哪里？", "yolo-attn search", "modules"),
    ("How do I get to TensorRT?", "怎样部署到 TensorRT？", "yolo-attn export best.pt --format engine", "export"),
    ("Does it work with YOLO11, YOLO12, YOLO26, segmentation, pose?", "支持 YOLO11、YOLO12、YOLO26、分割、姿态吗？", "--weights yolo11n.pt --attention ECA", "placement"),
    ("Two GPUs?", "两块 GPU？", "--device 0,1", "quickstart"),
    ("My plug-in on another machine?", "插件换一台机器？", "--plugin my_attn.py", "own_modules"),
    ("How do I remove it again?", "怎样去掉？", "yolo-attn insert my.yaml --remove", "fold"),
]


@pytest.mark.parametrize(("english", "chinese", "command", "page"), QUESTIONS, ids=[q[0][:20] for q in QUESTIONS])
def test_a_question_is_two_clicks_from_the_readme(english: str, chinese: str, command: str, page: str) -> None:
    """README, question, page: each link leads to a heading that exists, and the answer has a command on the way."""
    for readme, question, tail in ((READMES[0], english, ".md"), (READMES[1], chinese, ".zh.md")):
        anchor = re.sub(r"[^\w\- ]", "", question.lower()).replace(" ", "-")
        assert f"(docs/questions{tail}#{anchor})" in text(readme)
        answer = re.search(rf"^## {re.escape(question)}\n(.*?)(?=^## |\Z)", text(f"docs/questions{tail}"), re.DOTALL | re.MULTILINE)
        assert answer is not None
        assert any(command in b for b in re.findall(r"```\w+\n(.*?)```", answer[1], re.DOTALL)), answer[1]
        assert f"]({page}{tail}" in answer[1]


def test_every_command_has_help() -> None:
    """The overview lists what exists, and nothing exists that it does not list."""
    files = {p.stem for p in (Path(cli.__file__).parent / "commands").glob("*.py")}
    assert {f for f in files if not f.startswith("_")} == set(cli.COMMANDS)


@pytest.mark.parametrize("name", ["docs/troubleshooting.md", "docs/troubleshooting.zh.md"])
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


def known_options() -> set[str]:
    """Every long option of every command, of the launchers, and of the tools that the pages name."""
    known = {"--no-deps", "--nproc_per_node", "--node_rank", "--fp16", "--stronglyTyped", "--searches", "--docs"}  # of pip, torchrun, trtexec, benchmarks, tools
    for name in cli.COMMANDS:
        if name not in cli.PASS_THROUGH:
            known |= {o for action in parser_of(name)._actions for o in action.option_strings}
    known |= {o for action in options.parser()._actions for o in action.option_strings}
    return known


@pytest.mark.parametrize("name", [*READMES, *DOCS, *OTHERS])
def test_options_in_prose_are_real(name: str) -> None:
    """A word such as ``--tolerance`` in a sentence or a table is an option that some command has."""
    prose = re.sub(r"<!-- messages -->.*?<!-- /messages -->|```.*?```", "", text(name), flags=re.DOTALL)
    used = {o for span in re.findall(r"`([^`\n]+)`", prose) for o in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert used <= known_options(), used - known_options()


@pytest.mark.parametrize("name", [*READMES, *DOCS, *OTHERS])
def test_python_in_the_pages_is_python(name: str) -> None:
    """Each block parses; what it takes from the kit exists, and is called with parameters that exist."""
    for block in re.findall(r"```python\n(.*?)```", text(name), re.DOTALL):
        for node in ast.walk(ast.parse(textwrap.dedent(block))):  # in a list, a block is indented
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yolo_attn"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), block
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yolo_attn":
                assert hasattr(yolo_attn, node.attr), node.attr
            if isinstance(node, ast.Call) and re.fullmatch(r"yolo_attn\.\w+", ast.unparse(node.func)):
                target = getattr(yolo_attn, ast.unparse(node.func).partition(".")[2])
                inspect.signature(target).bind(*node.args, **{str(k.arg): k.value for k in node.keywords})


def test_the_skill_names_the_commands_with_json() -> None:
    told = re.search(r"Commands that report take `--json` \((.*?)\)", text("skills/yolo-attn/SKILL.md"))
    assert told is not None
    have = {n for n in cli.COMMANDS if n not in ("run", "yolo", "train") and "--json" in parser_of(n)._option_string_actions}
    assert set(re.findall(r"`(\w+)`", told[1])) == have


def test_the_readme_is_short() -> None:
    for name in READMES:
        assert len(text(name).splitlines()) <= 200, name


@pytest.mark.parametrize("name", ["docs/environment.md", "docs/environment.zh.md"])
def test_every_environment_variable_is_documented(name: str) -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for d in ("yolo_attn", "patches") for p in (ROOT / d).rglob("*.py"))
    used = set(re.findall(r"[\"'](YOLO_ATTN_[A-Z_]+)[\"']", code))
    assert len(used) >= 8
    assert set(re.findall(r"`(YOLO_ATTN_[A-Z_]+)`", text(name))) == used


@pytest.mark.parametrize("name", ["docs/api.md", "docs/api.zh.md"])
def test_every_public_name_is_in_the_reference(name: str) -> None:
    told = set(re.findall(r"^::: yolo_attn\.([\w.]+)$", text(name), re.MULTILINE))
    want = set()
    for public, where in yolo_attn._EXPORTS.items():
        module, _, attribute = where.partition(":")
        want.add(f"{module}.{attribute or public}")
    assert told == want


def test_the_version_is_the_same_everywhere() -> None:
    """It stands in _version.py; what cannot read it from there agrees with it."""
    version = yolo_attn.__version__
    cited = re.search(r'^version: (\S+)\ndate-released: "([\d-]+)"$', text("CITATION.cff"), re.MULTILINE)
    released = re.search(r"^## \[(\d\S*)\] - ([\d-]+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert cited and released and cited.groups() == released.groups() == (version, released[2])
    assert 'dynamic = ["version"]' in text("pyproject.toml")
    for name in [*READMES, "examples/quickstart.ipynb"]:
        assert set(re.findall(r"yolo_attn-(\d[\d.]*\d)-py3", text(name))) == {version}, name


def test_links_of_the_package_s_page_are_absolute() -> None:
    """A package index shows the README without the files beside it."""
    page = absolute_links.absolute(text("README.md"), "https://example.org/a/b", "v1")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", page)
    assert len(links) > 40 and all(link.startswith("https://") for _, link in links)
    for picture, link in links:
        kind = "raw" if picture else "blob"
        if link.startswith("https://example.org"):
            assert (ROOT / link.partition("#")[0].removeprefix(f"https://example.org/a/b/{kind}/v1/")).exists(), link


class _Links(HTMLParser):
    """Links and pictures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.loaded: list[str] = []  # from elsewhere, by the browser itself

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [v for k, v in attrs if v and tag != "a" and k in ("href", "src", "srcset") and re.match(r"(?:https?:)?//", v)]
        self.found += [v for k, v in attrs if k in ("href", "src") and v]


def test_the_site_builds_and_no_link_is_dead(tmp_path: Path) -> None:
    """With warnings as errors; every page and picture that a page names is in the folder, so that it reads from disk."""
    if not os.environ.get("CI") and any(importlib.util.find_spec(m) is None for m in ("material", "mkdocstrings", "mkdocs_static_i18n")):
        pytest.skip("needs the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    made = list(site.rglob("*.html"))
    assert len(made) >= 2 * 15
    for language, folder in (("en", site), ("zh", site / "zh")):  # what the search box reads, served and from disk
        index = json.loads((folder / "search" / "search_index.json").read_text(encoding="utf-8"))
        assert json.loads((folder / "search" / "search_index.js").read_text(encoding="utf-8").partition("=")[2]) == index
        assert index["config"]["lang"] == [language]
        assert {e["location"].partition("#")[0] for e in index["docs"]} == {p.name for p in folder.glob("*.html")} - {"404.html"}
        words = {w for e in index["docs"] for w in e["text"].split("\u200b")}
        if language == "zh" and (os.environ.get("CI") or importlib.util.find_spec("jieba")):
            assert {"插件", "权重"} <= words
        for page in folder.glob("[a-z]*.html"):
            assert json.loads(re.findall(r'id="__config"[^>]*>(.*?)</script>', page.read_text(encoding="utf-8"))[0])["base"] == "."
    for page in made:
        if page.name == "404.html":  # its links are from the root of a server
            continue
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        assert not links.loaded, f"{page.name} loads {links.loaded}: it cannot be read without a network"
        assert not re.search(r":(func|class|mod):", page.read_text(encoding="utf-8")), page.name
        for link in links.found:
            target = link.partition("#")[0].partition("?")[0]
            if target and not re.match(r"[a-z]+:|//", target):
                assert (page.parent / target).exists(), (page.relative_to(site), link)


def test_the_pages_on_own_modules_are_true(tmp_path: Path, python: Callable[..., Run]) -> None:
    """The class and the `register:` of one page build a detector; the other's class fails as it says, at that line.

    The Chinese pages have the same code.
    """
    source = re.findall(r"```python\n(.*?)```", text("docs/own_modules.md"), re.DOTALL)[0]
    register = re.findall(r"```yaml\n(register:\n.*?)\n\n", text("docs/own_modules.md"), re.DOTALL)[0]
    (tmp_path / "my_attn.py").write_text(source, encoding="utf-8")
    broken = re.findall(r"```python\n(.*?)```", text("docs/check.md"), re.DOTALL)[0]
    (tmp_path / "bad.py").write_text(f"import torch\nfrom torch import nn\n\n\n{broken}", encoding="utf-8")
    told = re.findall(r"^  FAILURE  one-image +(.*)\n +my_attn.py:(.*)\n +-> (.*)$", text("docs/check.md"), re.MULTILINE)[0]
    code = f"""
        from pathlib import Path
        import yolo_attn
        from ultralytics import YOLO
        from yolo_attn.inside.check import run, subject
        rows = yolo_attn.insert("yolov5n.yaml", "my_attn.py:MyAttn", where="backbone")
        Path("yolov5n_mine.yaml").write_text({register!r} + "\\n\\n" + rows, encoding="utf-8")
        print([type(m).__name__ for m in YOLO("yolov5n_mine.yaml").model.model].count("MyAttn"))
        yolo_attn.unregister("MyAttn")
        found = run.one("one-image", subject.subject_of("bad.py:MyAttn"))
        print(found.status, found.said, f"{{found.line.number}}: {{found.line.text.strip()}}", found.remedy, sep="|")
        """
    done = python(code).ok()
    assert "\n4\n" in f"\n{done}"
    said = done.strip().splitlines()[-1]
    assert told[0] in said and told[1] in said and told[2] in said, (told, said)


def test_the_module_of_the_contributors_guide_is_one() -> None:
    """The file that the page shows: it registers a module, which begins as the identity and as its formula says."""
    block = re.search(r"```python\n(.*?)```", text("CONTRIBUTING.md"), re.DOTALL)
    assert block is not None
    code = textwrap.dedent(block[1]).replace("from ..", "from yolo_attn.").replace("from ._", "from yolo_attn.modules._")
    known = sys.modules["shown"] = types.ModuleType("shown")
    try:
        exec(compile(code, "shown.py", "exec"), known.__dict__)
        made = yolo_attn.get_module("MyModule")
        x = torch.randn(2, 8, 5, 4)
        assert torch.equal(made(8, start="identity")(x), x)
        m = made(8)
        scores = m.scale.weight.flatten() * x.mean((2, 3)) + m.scale.bias
        assert torch.allclose(m(x), x * scores.sigmoid()[:, :, None, None], atol=1e-6)
    finally:
        registry.unregister("MyModule")
        del sys.modules["shown"]


def test_the_example_of_an_own_module_runs(tmp_path: Path) -> None:
    """From the class to a proved ONNX file, in a process of its own, as a reader would run it."""
    script = ROOT / "examples" / "own_attention.py"
    words = ["--epochs", "1", "--img", "32", "--output", str(tmp_path / "run")]
    done = run_python(str(script), *words, cwd=tmp_path).ok()
    assert "attention: 4 x EnergyGate" in done and "verified: equal to PyTorch" in done
    assert (tmp_path / "run/train/weights/best.onnx").is_file()


NO_FIGURE = re.compile(
    r"(?:Python|ultralytics|YOLOv5|torch|NumPy|onnx|MNN|OpenVINO|AGPL|version|版本|v)[ -]?(?:until |before |之前的 )?\d+(?:\.\d+)+(?: (?:to|至) \d+(?:\.\d+)+)?"
    r"|\d+\.\d+\.\d+\S*|\d{4}\.\d{5}"
)


def figures(page: str) -> list[str]:
    """The decimal numbers of a page that are neither code, generated, a version nor a paper's number."""
    prose = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->|```.*?```|`[^`\n]*`|\]\([^)]*\)", " ", text(page), flags=re.DOTALL)
    return re.findall(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?", NO_FIGURE.sub(" ", prose))


def recorded() -> set[str]:
    """Every value in results/*.csv."""
    found: set[str] = set()
    for file in sorted((ROOT / "results").glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                assert row["what"] and row["values"] and (row.get("command") or row.get("source")), (file.name, row)
                found |= set(row["values"].split())
    return found


@pytest.mark.parametrize("name", [*READMES, *DOCS])
def test_every_figure_that_is_quoted_is_on_record(name: str) -> None:
    """With the command that made it, or the paper that it is from."""
    missing = [f for f in figures(name) if f not in recorded()]
    assert not missing, f"{name}: {missing} stand in no file of results/"


def test_a_figure_that_is_not_on_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "It gains 0.4711, `0.5` in code, YOLOv5 7.0, Python 3.9, arXiv 1709.01507 and 2.71e-4."
    monkeypatch.setattr(sys.modules[__name__], "text", lambda name: page)
    assert figures("any") == ["0.4711", "2.71e-4"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, in a kernel of its own, on the embedded data; it shows the drawing and the picture of the run.

    One epoch in place of its six, which change how good the detector is and nothing that is asserted.
    """
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH"), str(WITHOUT)])))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    (training,) = (c for c in notebook.cells if c.cell_type == "code" and "--epochs 6 " in c.source)
    training.source = training.source.replace("--epochs 6 ", "--epochs 1 ")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    shown = {k for c in notebook.cells if c.cell_type == "code" for o in c.outputs for k in o.get("data", {})}
    assert "equal to PyTorch" in said and "every gate at its mean" in said
    assert {"image/svg+xml", "image/jpeg"} <= shown
