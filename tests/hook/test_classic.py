"""Classic YOLOv5, a real one in processes of its own: equal to a hand edit, trains, resumes, exports, refuses clearly."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from classic_host import Classic, classic, get
from conftest import ROOT, Cases, run_python

from yolo_attn.errors import ConfigError, HostError
from yolo_attn.hook.checkout import find_host
from yolo_attn.model_yaml import dialect, find, load
from yolo_attn.training import host_imports
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes
from yolo_attn.weights import align, checkpoint

__all__ = ["classic"]

# The tutorial's YAML in the classic dialect: one SE behind the last C3 of the backbone, nominal width and all.
TUTORIAL = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.50
anchors:
  - [10,13, 16,30, 33,23]
  - [30,61, 62,45, 59,119]
  - [116,90, 156,198, 373,326]
backbone:
  [[-1, 1, Conv, [64, 6, 2, 2]], [-1, 1, Conv, [128, 3, 2]], [-1, 3, C3, [128]], [-1, 1, Conv, [256, 3, 2]],
   [-1, 6, C3, [256]], [-1, 1, Conv, [512, 3, 2]], [-1, 9, C3, [512]], [-1, 1, Conv, [1024, 3, 2]],
   [-1, 3, C3, [1024]], [-1, 1, SEAttention, [1024]], [-1, 1, SPPF, [1024, 5]]]
head:
  [[-1, 1, Conv, [512, 1, 1]], [-1, 1, nn.Upsample, [None, 2, 'nearest']], [[-1, 6], 1, Concat, [1]],
   [-1, 3, C3, [512, False]], [-1, 1, Conv, [256, 1, 1]], [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 4], 1, Concat, [1]], [-1, 3, C3, [256, False]], [-1, 1, Conv, [256, 3, 2]], [[-1, 15], 1, Concat, [1]],
   [-1, 3, C3, [512, False]], [-1, 1, Conv, [512, 3, 2]], [[-1, 11], 1, Concat, [1]], [-1, 3, C3, [1024, False]],
   [[18, 21, 24], 1, Detect, [nc, anchors]]]
"""
# The same YOLOv5s with SE behind each of the four C3, written out by hand: what yolov5s_se.yaml must become.
FOUR = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.50
anchors:
  - [10,13, 16,30, 33,23]
  - [30,61, 62,45, 59,119]
  - [116,90, 156,198, 373,326]
backbone:
  [[-1, 1, Conv, [64, 6, 2, 2]], [-1, 1, Conv, [128, 3, 2]], [-1, 3, C3, [128]], [-1, 1, SEAttention, []],
   [-1, 1, Conv, [256, 3, 2]], [-1, 6, C3, [256]], [-1, 1, SEAttention, []], [-1, 1, Conv, [512, 3, 2]],
   [-1, 9, C3, [512]], [-1, 1, SEAttention, []], [-1, 1, Conv, [1024, 3, 2]], [-1, 3, C3, [1024]],
   [-1, 1, SEAttention, []], [-1, 1, SPPF, [1024, 5]]]
head:
  [[-1, 1, Conv, [512, 1, 1]], [-1, 1, nn.Upsample, [None, 2, 'nearest']], [[-1, 9], 1, Concat, [1]],
   [-1, 3, C3, [512, False]], [-1, 1, Conv, [256, 1, 1]], [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 6], 1, Concat, [1]], [-1, 3, C3, [256, False]], [-1, 1, Conv, [256, 3, 2]], [[-1, 18], 1, Concat, [1]],
   [-1, 3, C3, [512, False]], [-1, 1, Conv, [512, 3, 2]], [[-1, 14], 1, Concat, [1]], [-1, 3, C3, [1024, False]],
   [[21, 24, 27], 1, Detect, [nc, anchors]]]
"""

# Builds what the arguments name and prints everything that a build decides.
PROBE = """
import hashlib, json, logging, os, sys
import torch
import yolo_attn
if os.environ.get("WITHOUT"):
    yolo_attn.uninstall()
{host}
assert bool(yolo_attn.installed()) != bool(os.environ.get("WITHOUT")), yolo_attn.installed()
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
yolo.LOGGER.addHandler(handler)
yolo.LOGGER.setLevel(logging.INFO)
told = []
for path in sys.argv[1:]:
    lines.clear()
    torch.manual_seed(0)
    model = yolo.Model(path)
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    told.append(dict(
        weights=digest.hexdigest(),
        rng=hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        layers=[[m.i, m.f, m.type, m.np] for m in model.model],
        save=model.save,
        parameters=sum(p.numel() for p in model.parameters()),
        table=[t for t in lines if "ummary" not in t],
    ))
print("TOLD" + json.dumps(told))
"""


def told(run: object) -> list[dict[str, object]]:
    return json.loads(run.ok().rpartition("TOLD")[2])  # type: ignore[attr-defined]


def hand_edited(host: Classic, folder: Path) -> Classic:
    """A copy of the host with a correct edit of its parser: what a user without the kit should have written."""
    ignore = shutil.ignore_patterns(".git", "__pycache__", "runs", "*.ipynb", "*.jpg", "*.pt")
    target = folder / (host.root.name if host.prefix else "copy")
    shutil.copytree(host.root, target, ignore=ignore)
    parser = target / "models" / "yolo.py"
    text = parser.read_text(encoding="utf-8")
    default = "        else:\n            c2 = ch[f]\n"
    assert text.count(default) == 1
    edit = "        elif m is SEAttention:\n            c2 = ch[f]\n            args = [c2]\n"
    text = text.replace(default, edit + default)
    spot = text.index("class Detect(")
    parser.write_text(text[:spot] + "from yolo_attn.modules.se import SEAttention\n" + text[spot:], encoding="utf-8")
    return Classic(host.name, target, host.prefix, (str(folder), *host.path))


@pytest.mark.slow
def test_equal_to_a_hand_edited_host(classic: Classic, tmp_path: Path) -> None:
    tutorial, four = tmp_path / "tutorial.yaml", tmp_path / "yolov5s_four.yaml"
    tutorial.write_text(TUTORIAL, encoding="utf-8")
    four.write_text(FOUR, encoding="utf-8")
    hooked = told(classic.python(PROBE, str(tutorial), str(four), "yolov5s_se.yaml", cwd=tmp_path))
    edited = hand_edited(classic, tmp_path / "edited")
    plain = told(edited.python(PROBE, str(tutorial), str(four), cwd=tmp_path, env={"WITHOUT": "1"}))
    assert hooked[0]["parameters"] == 7_268_157
    assert hooked[:2] == plain
    assert hooked[2] == plain[1]  # the kit's own file is the same model
    assert any("yolo_attn.modules.se.SEAttention" in line for line in hooked[0]["table"])  # type: ignore[attr-defined]


EVERY = """
import json, sys, torch, yolo_attn
from yolo_attn.errors import YoloAttnError
{host}
x = torch.zeros(2, 3, 128, 128)
told = {}
for name in sys.argv[1:]:
    try:
        model = yolo.Model(name)
        told[name] = [list(y.shape[1:]) for y in model.train()(x)]
    except YoloAttnError as exc:
        told[name] = str(exc)
print("TOLD" + json.dumps(told))
"""


@pytest.mark.slow
def test_every_config_builds_or_is_refused(classic: Classic, tmp_path: Path) -> None:
    files = [f for f in find.list_configs() if f.startswith("yolo")]
    wanted = [f.replace("-p6", "", 1).replace("yolov5", "yolov5n6") if "-p6" in f else f for f in files]
    wanted = [f if "n6" in f else f.replace("yolov5", "yolov5n", 1) for f in wanted]
    result = told(classic.python(EVERY, *wanted, cwd=tmp_path))
    assert len(result) == len(wanted) > 5
    for name, got in result.items():  # type: ignore[attr-defined]
        if name.startswith("yolov5"):
            levels = 4 if "6" in name.partition("_")[0] else 3
            assert [y[:1] + y[-1:] for y in got] == [[3, 85]] * levels, (name, got)
        else:  # another family: its blocks are the other host's
            assert "no module is called" in got, (name, got)


def test_anchors_follow_the_levels() -> None:
    for name, count in (("yolov5_se.yaml", 3), ("yolov5-p6_se.yaml", 4)):
        d = dialect.to_classic(load.read(find.configs_folder() / name), "s")
        assert len(d["anchors"]) == count
        assert d["head"][-1][3] == ["nc", "anchors"]
        assert (d["depth_multiple"], d["width_multiple"]) == (0.33, 0.50)
    rows = load.read(find.configs_folder() / "yolov5_se.yaml")
    rows["head"][-1][0] = [21, 24]  # P3 and P4: nobody has published anchors for these
    assert dialect.to_classic(rows, "n")["anchors"] == 3


def test_max_channels_is_kept() -> None:
    d = load.read(find.configs_folder() / "yolov5_se.yaml")
    d["scales"]["s"] = [0.33, 0.50, 512]
    rows = dialect.to_classic(d, "s")
    assert [row[3][0] for row in rows["backbone"] if row[2] == "Conv"] == [64, 128, 256, 512, 512]


def test_classic_dialect_stays_as_it_is() -> None:
    d = yaml.safe_load(TUTORIAL)
    assert dialect.to_classic(d, "x") is d


def test_translation_is_cached_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_ATTN_CACHE", str(tmp_path))
    path = find.configs_folder() / "yolov5_se.yaml"
    first, other = load.classic_file("yolov5s_se.yaml", path), load.classic_file("yolov5n_se.yaml", path)
    assert first == load.classic_file("yolov5s_se.yaml", path) and first.name == "yolov5s_se.yaml"
    assert first.parent != other.parent
    first.write_text("tampered", encoding="utf-8")
    assert "width_multiple: 0.5" in load.classic_file("yolov5s_se.yaml", path).read_text(encoding="utf-8")
    assert not [p for p in first.parent.iterdir() if p != first]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_cache_in_the_common_folder_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the home cannot be written; the host evaluates strings of what it reads there."""
    (tmp_path / "home").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("YOLO_ATTN_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = find.configs_folder() / "yolov5_se.yaml"
    made = load.classic_file("yolov5s_se.yaml", path)
    mine = tmp_path / f"yolo_attn-{getattr(os, 'getuid', lambda: 'user')()}"
    assert mine in made.parents and mine.stat().st_mode & 0o077 == 0
    mine.chmod(0o777)
    with pytest.raises(ConfigError, match="YOLO_ATTN_CACHE"):
        load.classic_file("yolov5s_se.yaml", path)
    shutil.rmtree(mine)
    mine.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="YOLO_ATTN_CACHE"):
        load.classic_file("yolov5s_se.yaml", path)


@pytest.mark.parametrize(
    ("text", "harmful"),
    [
        ("nn.SiLU()", False),
        ("nn.LeakyReLU(0.1)", False),
        ("nearest", False),
        ("[1, 2]", False),
        ("__import__('os').getcwd()", True),
        ("nn.SiLU(open('x'))", True),
        ("[open('x')]", True),
    ],
)
@pytest.mark.parametrize("place", ["activation", "row"])
def test_strings_of_a_dictionary_are_names_or_literals(place: str, text: str, harmful: bool) -> None:
    d: dict[str, Any] = {"backbone": [[-1, 1, "nn.Upsample", [None, 2, text if place == "row" else "nearest"]]], "head": []}
    if place == "activation":
        d["activation"] = text
        harmful = harmful or not text.startswith("nn.")  # nothing else is an activation
    if harmful:
        with pytest.raises(ConfigError, match="is not evaluated"):
            dialect.check_expressions(d, "a.yaml")
    else:
        dialect.check_expressions(d, "a.yaml")


MISTAKES = """
import sys, yaml, yolo_attn
from yolo_attn.errors import YoloAttnError
{host}
def said(build):
    try:
        build()
    except YoloAttnError as exc:
        print("SAID", exc)
    else:
        print("SAID nothing")
d = yaml.safe_load(sys.argv[1])
def changed(row, value):
    copy = yaml.safe_load(sys.argv[1])
    copy["backbone"][9][row] = value
    with open("mine.yaml", "w") as file:
        yaml.safe_dump(copy, file)
    return "mine.yaml"
said(lambda: yolo.Model(changed(2, "SEAttenton")))
said(lambda: yolo.Model(changed(3, [999])))
said(lambda: yolo.Model(changed(3, [{"reductoin": 8}])))
said(lambda: general.check_file("yolov5s_see.yaml"))
said(lambda: yolo.Model({**d, "activation": "print('run') or nn.SiLU()"}))
d["backbone"][9][2:] = ["print", ["hello"]]
said(lambda: yolo.Model(d))

# Checkpoints that ask to call something, under torch.load(weights_only=True)
import io, os, pickle, torch
class Payload:
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args
d["backbone"][9][2:] = ["print('run')", []]
for payload in (Payload(yolo.Model, d), Payload(os.getcwd), Payload(eval, "print('run')")):
    file = io.BytesIO()
    torch.save({"model": payload}, file)
    file.seek(0)
    try:
        print("LOADED", vars(torch.load(file, weights_only=True)["model"]))
    except pickle.UnpicklingError as exc:
        print("REFUSED")
yolo_attn.uninstall()
known = [x[1] if isinstance(x, tuple) else x.__qualname__ for x in torch.serialization.get_safe_globals()]
print("LEFT", [n for n in known if "models." in n])
"""


def test_mistakes_are_named_and_nothing_is_called(classic: Classic, tmp_path: Path) -> None:
    out = classic.python(MISTAKES, TUTORIAL, cwd=tmp_path).ok()
    said = [line for line in out.splitlines() if line.startswith("SAID")]
    spot = "mine.yaml, row 9 (backbone)"
    assert spot in said[0] and "Did you mean 'SEAttention'" in said[0]
    assert spot in said[1] and "999" in said[1] and "512 arrive" in said[1]
    assert spot in said[2] and "reductoin" in said[2] and "reduction" in said[2]
    assert "yolov5s_see.yaml" in said[3] and "Did you mean 'yolov5_se'" in said[3]
    assert "is not evaluated" in said[4]
    assert "'print'" in said[5]
    assert "\nrun\n" not in out and "\nhello\n" not in out
    # An empty instance, no constructor; nothing else; and nothing stays declared.
    assert [line for line in out.splitlines() if line.startswith(("LOADED", "REFUSED", "LEFT"))] == [
        "LOADED {}", "REFUSED", "REFUSED", "LEFT []",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_hand_edit_is_named(classic: Classic, tmp_path: Path) -> None:
    copy = hand_edited(classic, tmp_path / "edited")
    parser = copy.root / "models" / "yolo.py"
    text = parser.read_text(encoding="utf-8").replace(
        "from yolo_attn.modules.se import SEAttention\n", "class SEAttention(nn.Module):\n    pass\n"
    )
    parser.write_text(text, encoding="utf-8")
    code = "import yolo_attn, sys\n{host}\nyolo.Model(sys.argv[1])\n"
    path = tmp_path / "tutorial.yaml"
    path.write_text(TUTORIAL, encoding="utf-8")
    run = copy.python(code, str(path), cwd=tmp_path)
    assert run.code and "edited by hand" in run.err and "that edit can be removed" in run.err
    assert f"{parser}, line" in run.err

    # An edit that takes the parser's shape: importing still works, the refusal says what is different.
    parser.write_text(
        text.replace("            c2 = ch[f]\n        ", "            c2 = int(ch[f])\n        "), encoding="utf-8"
    )
    parser.write_text(parser.read_text(encoding="utf-8").replace("else:\n            c2 = ch[f]\n", "else:\n            c2 = int(ch[f])\n"), encoding="utf-8")  # fmt: skip
    code = "import yolo_attn\n{host}\nimport importlib\nimportlib.import_module(yolo.__name__.replace('models.yolo', 'utils.loss'))\n"
    code += "print('HOOKED', yolo_attn.installed())\nprint('KNOWN', *yolo_attn.hook.install.failures().values())\nyolo_attn.install()\n"
    run = copy.python(code, cwd=tmp_path)
    hooked, _, known = run.out.partition("HOOKED")[2].partition("KNOWN")
    assert "yolov5" not in hooked and "HostError" in run.err
    assert "cannot patch yolov5" in known  # and stays known when the host's other modules are in order
    assert "it names SEAttention (line" in run.err and "git checkout models/yolo.py" in run.err


@pytest.mark.slow
def test_the_parser_as_a_program(classic: Classic, tmp_path: Path) -> None:
    run = classic.script("models/yolo.py", "--cfg", "yolov5n_se.yaml", "--device", "cpu", cwd=tmp_path)
    assert "yolo_attn.modules.se.SEAttention" in run.ok() + run.err


def test_run_passes_through(tmp_path: Path) -> None:
    script = tmp_path / "folder" / "it.py"
    script.parent.mkdir()
    script.write_text(
        "import sys, yolo_attn\n"
        "print(__name__, sys.argv, sys.path[0], __file__)\n"
        "print('PLUGIN' if 'yolo_attn.plugins.mine' in sys.modules else 'none')\n"
        "if 'fail' in sys.argv: raise KeyError('own')\n"
        "sys.exit(7)\n"
    )
    plugin = tmp_path / "mine.py"
    plugin.write_text("X = 1\n")
    run = run_python("-m", "yolo_attn", "run", "--plugin", "mine.py", "folder/it.py", "--plugin", "a", cwd=tmp_path)
    assert run.code == 7
    lines = run.out.splitlines()
    assert lines[0] == f"__main__ ['folder/it.py', '--plugin', 'a'] {script.parent} folder/it.py"
    assert lines[1] == "PLUGIN"
    failed = run_python("-m", "yolo_attn", "run", "folder/it.py", "fail", cwd=tmp_path)
    assert failed.code == 1 and "KeyError: 'own'" in failed.err and "Traceback" in failed.err
    missing = run_python("-m", "yolo_attn", "run", "nowhere.py", cwd=tmp_path).mistake()
    assert missing.startswith("yolo-attn run: ") and "nowhere.py" in missing


LIFE = Cases("""
import contextlib, copy, importlib, io, logging, re, sys, torch, yolo_attn
{host}
torch_utils = importlib.import_module(yolo.__name__.replace("models.yolo", "utils.torch_utils"))
torch.manual_seed(0)
model = yolo.Model("yolov5n_se.yaml").eval()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.running_mean.normal_(0, 0.1); module.running_var.uniform_(0.5, 1.5)
x = torch.rand(1, 3, 64, 64)
torch.set_grad_enabled(False)
want = model(x)[0]

def case_copied():
    assert torch.equal(copy.deepcopy(model)(x)[0], want)

def case_averaged():
    ema = torch_utils.ModelEMA(model); ema.update(model)
    assert torch.allclose(ema.ema(x)[0], want, atol=1e-4)

def case_compiled():
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    assert torch.allclose(compiled(x)[0], want, atol=1e-3)

def case_halved():
    assert (copy.deepcopy(model).half().float()(x)[0] - want).abs().max() < 1.0

def case_fused():
    fused = copy.deepcopy(model).fuse()
    assert torch.allclose(fused(x)[0], want, rtol=1e-3, atol=1e-2), (fused(x)[0] - want).abs().max()

def case_built_again_from_its_own_yaml():
    assert yolo.Model(model.yaml, nc=3).model[-1].nc == 3

def case_summarised():
    # The line that the host prints: at a side of 6400 SE's share shows in its one decimal, and is next to nothing.
    def gflops(model):
        out = io.StringIO()
        handler = logging.StreamHandler(out)
        logging.getLogger(torch_utils.__name__).addHandler(handler)
        for logger in (torch_utils.LOGGER, logging.getLogger()):
            logger.addHandler(handler); logger.setLevel(logging.INFO)
        with contextlib.redirect_stdout(out):
            model.info(img_size=6400)
        return [float(n) for n in re.findall(r"([\\d.]+) GFLOPs", out.getvalue())][:1]
    plain = yolo.Model(yolo_attn.remove({**model.yaml, "nc": 80}))
    with_attention, without = gflops(model), gflops(plain)
    assert not without or 0 <= with_attention[0] - without[0] <= 0.2, (with_attention, without)
""")


@pytest.mark.parametrize("what", LIFE.names)
def test_life_of_a_model(what: str, classic: Classic, tmp_path: Path) -> None:
    LIFE.check(what, lambda code: classic.python(code, cwd=tmp_path), classic.name)


SAVED = """
import copy, torch, yolo_attn
{host}
torch.save({"model": yolo.Model("yolov5n_se.yaml").eval().half(), "ema": None}, "x.pt")
"""
# A fresh process, which never says yolo_attn itself.
FRESH = """
import sys, torch
{host}
assert "yolo_attn" not in sys.modules
loaded = torch.load("x.pt", weights_only=False)["model"].float().eval()
assert "yolo_attn" in sys.modules
import yolo_attn
assert yolo_attn.installed(), "loading imports the kit, and importing the kit hooks"
yolo.Model("yolov5n_se.yaml")
safe = torch.load("x.pt", weights_only=True)["model"].float().eval()
x = torch.rand(1, 3, 64, 64)
assert torch.equal(loaded(x)[0], safe(x)[0])
print("WANT")
"""


@pytest.mark.slow
def test_a_process_that_never_imports_the_kit_loads_a_checkpoint(classic: Classic, tmp_path: Path) -> None:
    classic.python(SAVED, cwd=tmp_path).ok()
    assert "WANT" in classic.python(FRESH, cwd=tmp_path).ok()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen images."""
    return make_shapes(tmp_path_factory.mktemp("shapes"), Recipe(train=12, val=4, size=96))


TINY = ["--img", "64", "--device", "cpu"]

PARITY = """
import sys, numpy, onnxruntime, torch, yolo_attn
{host}
model = experimental.attempt_load(sys.argv[1]).eval()
x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
print("DIFFERENCE", numpy.abs(got - model(x)[0].detach().numpy()).max())
"""


@pytest.mark.slow
def test_train_resume_val_detect_export(classic: Classic, shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    flags = ["--data", str(shapes), "--batch-size", "4", "--workers", "0", "--project", str(run.parent), "--name", "a"]
    model = ["--cfg", "yolov5n_se.yaml", "--weights", ""]
    script = [sys.executable, "-m", "yolo_attn", "run", "--lr-new", "3", str(classic.root / "train.py")]
    env = {**os.environ, **classic.env}
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen([*script, *model, *flags, *TINY, "--epochs", "3"], env=env, cwd=tmp_path, stdout=log, stderr=log)  # fmt: skip
        last, since = run / "weights" / "last.pt", time.monotonic()
        while child.poll() is None:  # to the second or third epoch, and not amid the writing of last.pt
            assert time.monotonic() - since < 900
            if last.is_file() and (run / "results.csv").read_text().count("\n") >= 3:
                stops = hasattr(signal, "SIGSTOP")  # not on Windows, where the check below may come too late
                if stops:
                    child.send_signal(signal.SIGSTOP)
                if zipfile.is_zipfile(last):
                    break
                if stops:
                    child.send_signal(signal.SIGCONT)
            time.sleep(0.02)
        child.kill()
        child.wait()
    assert last.is_file(), (tmp_path / "log").read_text()
    resumed = classic.script("train.py", "--resume", str(last), cwd=tmp_path)
    text = resumed.ok() + resumed.err
    assert "Resuming training from" in text and "epochs completed" in text
    assert "the learning rate of attention (8 tensors) is 3 times that of the rest" in text
    best = str(run / "weights" / "best.pt")
    checked = classic.script(
        "val.py", "--weights", best, "--data", str(shapes), "--batch-size", "4", *TINY, cwd=tmp_path
    )
    assert re.search(r"\ball\s+4\s", checked.ok() + checked.err)  # old versions name classes that were found
    found = ["--source", str(shapes.parent / "images" / "val"), "--project", str(run), "--name", "found"]
    classic.script("detect.py", "--weights", best, *found, *TINY, cwd=tmp_path).ok()
    assert len(list((run / "found").iterdir())) == 4
    classic.script("export.py", "--weights", best, "--include", "onnx", *TINY, cwd=tmp_path).ok()
    out = classic.python(PARITY, best, str(Path(best).with_suffix(".onnx")), cwd=tmp_path).ok()
    assert float(out.rpartition("DIFFERENCE")[2]) < 1e-3


def test_a_training_that_does_not_fit_in_memory_is_refused_before_its_model_is_built(
    classic: Classic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolo_attn.hook import memory_need
    from yolo_attn.training import classic as training
    from yolo_attn.training import options

    code = """
import os, yolo_attn
{host}
from yolo_attn.errors import ConfigError
from yolo_attn.hook import memory_need
memory_need.available = lambda: 16_000_000
built = yolo.Model("yolov5n_se.yaml")
os.environ[memory_need.TRAINING] = "1"
for model in ("yolov5n_se.yaml", built.yaml):
    try:
        yolo.Model(model)
    except ConfigError as exc:
        print("told", sum(p.numel() for p in built.parameters()), exc)
"""
    told = [line for line in classic.python(code, cwd=tmp_path).ok().splitlines() if line.startswith("told")]
    assert len(told) == 2 and all("--force" in line for line in told)
    assert all(f"its {int(line.split()[1]):,} parameters need 0.0 GB to train" in line for line in told)

    given: list[dict[str, str]] = []
    monkeypatch.setattr(training, "_kit", lambda argv, processes, env: given.append(dict(env)) or 3)
    for argv in ([], ["--force"]):
        asked = options.parse(["--host", "yolov5", *argv])
        asked.made = None
        assert training._trained(asked, classic.root, [], tmp_path) == 3
    assert [env.get(memory_need.TRAINING) for env in given] == ["1", None]


PLAIN = """
import torch, yolo_attn
{host}
torch.save({"model": yolo.Model("yolov5n.yaml")}, "plain.pt")
"""


@pytest.mark.slow
def test_train_detect_on_the_package(shapes: Path, tmp_path: Path) -> None:
    host = get("package")
    host.python(PLAIN, cwd=tmp_path).ok()
    run = run_python(
        str(ROOT / "train_detect.py"), "--host", "yolov5", "--cfg", "yolov5n_se.yaml", "--data", str(shapes), "--img", "64",
        "--batch", "4", "--epochs", "2", "--workers", "0", "--device", "cpu", "--project", str(tmp_path / "runs"), "--export",
        "--weights", "plain.pt", "--freeze", "base:1", "--save-period", "1", "lr0=0.02", cwd=tmp_path, env=host.env,
    )  # fmt: skip
    out = run.ok()
    told = out + run.err
    for line in (
        "begins as the identity",
        "epochs 1 to 1 train attention and head",
        "from epoch 2 on, all layers train",
    ):
        assert line in told
    source = checkpoint.read(tmp_path / "plain.pt")
    frozen, free = (checkpoint.read(tmp_path / "runs" / "exp" / "weights" / n) for n in ("epoch0.pt", "last.pt"))
    pairs = {t: s for t, s in align.align(source, frozen.model).mapping.items() if not t.startswith("model.28.")}
    assert len(pairs) == 342
    assert all(torch.equal(frozen.tensors[t], source.tensors[s].half()) for t, s in pairs.items())
    assert not all(torch.equal(free.tensors[t], source.tensors[s].half()) for t, s in pairs.items())
    assert (tmp_path / "runs" / "exp" / "weights" / "best.onnx").is_file()
    assert "equal to PyTorch" in out
    assert f"weights     {tmp_path / 'runs' / 'exp' / 'weights' / 'best.pt'}" in out
    assert yaml.safe_load((tmp_path / "runs" / "exp" / "hyp.yaml").read_text(encoding="utf-8"))["lr0"] == 0.02


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--host", "nowhere"], "--host nowhere: no such folder"),
        (["--host", "."], "it has no train.py and no models/yolo.py"),
    ],
)
def test_no_such_host(argv: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    assert expected in run_python(str(ROOT / "train_detect.py"), *argv, cwd=tmp_path).mistake()


def test_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HostError, match="the yolov5 package is not installed"):
        find_host("yolov5")


def test_missing_packages_are_named_together(tmp_path: Path) -> None:
    """Those of every file that `train.py` imports, before anything runs; none that the host can do without."""
    host = tmp_path / "host"
    files = {
        "train.py": "import absent_a, os\nfrom utils import general, loggers\nimport val as validate\n"
        "from utils.general import check_git_info\nGIT_INFO = check_git_info()\n"
        "if __name__ == '__main__':\n    import only_as_script\n",
        "val.py": "from models.yolo import Model\nfrom absent_b.part import thing\n",
        "models/yolo.py": "import torch\ndef parse_model(d, ch):\n    import only_when_called\nclass Model: pass\n",
        "models/__init__.py": "",
        "utils/general.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import only_for_types\n"
        "if True:\n    import pkg_absent, cv2\n"
        "def check_git_info():\n    import absent_e\n    if absent_e:\n        import only_if\n",
        "utils/__init__.py": "",
        "utils/loggers/__init__.py": "try:\n    import can_do_without\nexcept (ImportError, ValueError):\n    pass\n"
        "try:\n    import absent_c\nexcept KeyError:\n    pass\nfrom . import inner\nfrom ..general import x\n",
        "utils/loggers/inner.py": "import absent_d.sub\nraise RuntimeError('the check runs no code')\n",
    }
    for name, text in files.items():
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text(text, encoding="utf-8")
    wanted = ["absent_a", "absent_b", "absent_c", "absent_d", "absent_e", "pkg_absent"]
    assert host_imports.missing(host) == wanted
    run = run_python(str(ROOT / "train_detect.py"), "--host", str(host), cwd=tmp_path)
    assert run.code == 1
    (line,) = run.mistake().splitlines()
    assert f"needs {', '.join(wanted)}, which" in line and f"'pip install {' '.join(wanted)}'" in line


def test_nothing_is_missing_where_the_host_trains(classic: Classic, tmp_path: Path) -> None:
    """The other tests train on it, so what the check calls missing would be a false alarm."""
    code = "import sys\nfrom pathlib import Path\nfrom yolo_attn.training import host_imports\n"
    code += "print(host_imports.missing(Path(sys.argv[1])))"
    assert classic.python(code, str(classic.root), cwd=tmp_path).ok().strip() == "[]"


@pytest.mark.slow
def test_two_workers(classic: Classic, tmp_path: Path) -> None:
    """Classic YOLOv5 asks for a GPU a worker: each worker starts as torchrun starts it, joins gloo and builds."""
    (tmp_path / "my_attn.py").write_text(
        "from torch import nn\n\nclass Mine(nn.Module):\n    def __init__(self, channels):\n        super().__init__()\n"
        "        self.w = nn.Conv2d(channels, channels, 1, groups=channels)\n\n    def forward(self, x):\n"
        "        return x * self.w(x).sigmoid()\n"
    )
    text = TUTORIAL.replace("SEAttention, [1024]", "Mine, []") + "register:\n  Mine: my_attn.py:Mine\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "worker.py").write_text(
        "import torch, torch.distributed as dist\n" + classic.imports + "dist.init_process_group('gloo')\n"
        "torch.manual_seed(dist.get_rank())\n"
        "path = general.check_file('mine.yaml')\n"
        "model = torch.nn.parallel.DistributedDataParallel(yolo.Model(path, nc=1))\n"
        "sum(y.mean() for y in model(torch.rand(1, 3, 64, 64))).backward()\n"
        "g = torch.stack([p.grad.abs().sum() for p in model.parameters() if p.grad is not None]).sum()\n"
        "both = [torch.zeros(()) for _ in range(2)]; dist.all_gather(both, g)\n"
        "assert torch.equal(*both)\n"
        "names = [type(m).__name__ for m in model.modules()]\n"
        "open(f'rank{dist.get_rank()}', 'w').write(str(names.count('Mine')))\n"  # one pipe would mix their lines
        "dist.barrier(); dist.destroy_process_group()\n"
    )
    run = run_python(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "yolo_attn", "run", "worker.py",
        cwd=tmp_path, env=classic.env,
    )  # fmt: skip
    run.ok()
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["1", "1"]
