"""Attacks, each with a payload that leaves a mark: none gets it left, and each ends in one clear line."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Tuple  # noqa: UP035

import pytest
import torch
import yaml
from classic_host import Classic, classic
from torch import nn

import yolo_attn
from yolo_attn.detectors.bundle import MANIFEST, MODEL, WEIGHTS, _seal, read_manifest
from yolo_attn.errors import CheckpointError, YoloAttnError
from yolo_attn.export.single import export
from yolo_attn.model_yaml import check, find, load
from yolo_attn.registry import allowed, plain, plugins, registry, safe

__all__ = ["classic"]

SMALL: dict[str, Any] = {
    "nc": 1,
    "scales": {"n": [1.0, 1.0, 1024]},
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SEAttention", []]],
    "head": [[[1], 1, "Detect", ["nc"]]],
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    (folder / "yolov8n-small.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    return export(folder / "yolov8n-small.yaml", format="bundle", output=folder / "a.bundle", log=lambda line: None).path


def forged(honest: Path, target: Path, model: bytes | dict[str, Any], **more: Any) -> Path:
    """A bundle of another model, with the hashes that fit it."""
    manifest, content = read_manifest(honest)
    text = model if isinstance(model, bytes) else yaml.safe_dump(model, sort_keys=False).encode()
    manifest = {**manifest, **more}
    manifest["sha256"][MODEL] = hashlib.sha256(text).hexdigest()
    manifest["sha256"][MANIFEST] = _seal(manifest)
    with zipfile.ZipFile(target, "w") as file:
        file.writestr(MANIFEST, json.dumps(manifest))
        file.writestr(MODEL, text)
        file.writestr(WEIGHTS, content[WEIGHTS])
    return target


def small(row: Any = None, **more: Any) -> dict[str, Any]:
    """The small model with another second row, and further keys."""
    d = {**copy.deepcopy(SMALL), **more}
    if row is not None:
        d["backbone"][1] = row
    return d


def poisoned(folder: Path) -> None:
    """A pickle that leaves a mark when it is loaded, a TorchScript name of it, and a YAML with a plug-in that does."""
    mark = folder / "mark"
    (folder / "evil_plugin.py").write_text(f"open({str(mark)!r}, 'w')\nfrom torch import nn\nclass X(nn.Module): pass\n")
    (folder / "evil.yaml").write_text(yaml.safe_dump({**SMALL, "register": {"SEAttention": "evil_plugin.py:X"}}))

    class Payload:
        def __reduce__(self) -> Any:
            return open, (str(mark), "w")

    torch.save({"model": Payload()}, folder / "pwn.pt")


def hostile(folder: Path) -> dict[str, dict[str, Any] | bytes]:
    """Model dictionaries and texts that each try to leave the mark."""
    code = f"__import__('pathlib').Path({str(folder / 'mark')!r}).touch()"
    pt, evil = str(folder / "pwn.pt"), str(folder / "evil.yaml")
    nested = {**copy.deepcopy(SMALL), "activation": code}
    binary = base64.b64encode(code.encode()).decode()
    text = yaml.safe_dump(SMALL, sort_keys=False)
    return {
        "1 activation in bytes": f"{text}activation: !!binary {binary}\n".encode(),
        "2 a model as a row": small([-1, 1, "DetectionModel", [nested]]),
        "3 a registered reader": small([-1, 1, "X", [pt]], register={"X": "ultralytics.nn.autobackend:AutoBackend"}),
        "4 a reader of addresses": small(
            [-1, 1, "X", ["http://127.0.0.1:9/remote.pt"]], register={"X": "ultralytics.nn.autobackend:AutoBackend"}
        ),
        "5 a function as a row": small([-1, 1, "load_checkpoint", [pt]]),
        "6 a model of a file": small([-1, 1, "DetectionModel", [evil]]),
        "a model by another name": small([-1, 1, "X", [nested]], register={"X": "ultralytics.nn.tasks:DetectionModel"}),
        "a layer of torch under another name": small([-1, 1, "X", [8]], register={"X": "torch.nn:BatchNorm2d"}),
        "through a module's attribute": small([-1, 1, "X", [nested]], register={"X": "ultralytics:nn.tasks.DetectionModel"}),
        "the wrapper": small([-1, 1, "X", [pt]], register={"X": "ultralytics:YOLO"}),
        "text activation": small(activation=code),
        "a call in an argument": small([-1, 1, "Conv", [8, 3, 1, None, 1, 1, code]]),
        "a call in a list": small([-1, 1, "Conv", [8, 3, 1, None, 1, 1, [[code]]]]),
        "a call in a mapping": small([-1, 1, "Conv", [8, {"k": code}]]),
        "a call as a key": small([-1, 1, "Conv", [8, {code: 1}]]),
        "a row that is a mapping": small({-1: 1, 1: 1, "Conv": 1, code: 1}),
        "arguments that are a mapping": small([-1, 1, "Conv", {8: 1, code: 1}]),
        "a name that is a call": small([-1, 1, code, []]),
        "a name that is a list": small([-1, 1, [code], []]),
        "an attribute": small([-1, 1, "nn.Module.load_state_dict", [pt]]),
        "a path to another package": small([-1, 1, "torch.hub.load", ["a", "b"]]),
        "a name in other letters": small([-1, 1, "\uff24etectionModel", [nested]]),
        "a name with an end of line": small([-1, 1, "Conv\n", [8]]),
        "a function of TorchVision": small([-1, 1, "torchvision.ops.box_convert", []]),
        "a class of TorchVision's operators": small([-1, 1, "torchvision.ops.FrozenBatchNorm2d", [8]]),
        "the base of all": small([-1, 1, "nn.Module", []]),
        "a container": small([-1, 1, "nn.ModuleList", []]),
        "a lazy layer": small([-1, 1, "nn.LazyConv2d", [8, 1]]),
        "a variable of the parser": small([-1, 1, "Conv", [8, "layers"]]),
        "a module of the parser": small([-1, 1, "Conv", ["contextlib"]]),
        "a head that is a model": {**small(), "head": [[[1], 1, "WorldModel", [nested]]]},
        "scales that are calls": small(scales={"n": [code, 1.0, 1024]}),
        "scales that are a model": small(scales={"n": nested}),
        "from that is a call": small([code, 1, "Conv", [8]]),
        "repeats that are a call": small([-1, code, "Conv", [8]]),
        "weights that are fetched": small([-1, 1, "TorchVision", [8, "fasterrcnn_resnet50_fpn", "DEFAULT"]]),
        "an import": small([-1, 1, "X", []], register={"X": "evil_plugin.py:X"}),
        "an import by name": small([-1, 1, "X", []], register={"X": "evil_plugin:X"}),
        "an object": text.encode() + b"x: !!python/object/apply:os.system [touch mark]\n",
    }  # fmt: skip


@pytest.mark.parametrize("name", hostile(Path()))
def test_a_bundle_runs_nothing(
    name: str, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    poisoned(tmp_path)
    path = forged(honest, tmp_path / "x.bundle", hostile(tmp_path)[name])
    with pytest.raises(YoloAttnError) as caught:
        yolo_attn.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1_500
    assert not (tmp_path / "mark").exists()
    assert not any(m.startswith("evil_plugin") or m == "yolo_attn.plugins.evil_plugin" for m in sys.modules)


def test_a_bundle_runs_nothing_on_the_command_line(honest: Path, python: Any, tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    poisoned(folder)
    cases = hostile(folder)
    for i, model in enumerate(cases.values()):
        forged(honest, tmp_path / f"{i}.bundle", model)
    out = python(
        f"""
        import yolo_attn.cli
        for i in range({len(cases)}):
            assert yolo_attn.cli.main(["export", f"{{i}}.bundle"]) == 1, i
        print("all refused")
        """
    )
    assert out.ok().split("\n")[-2] == "all refused" and "Traceback" not in out.err
    assert len([line for line in out.err.splitlines() if line.startswith("yolo-attn export: ")]) == len(cases)
    assert not (folder / "mark").exists()


def test_honest_models_pass(tmp_path: Path) -> None:
    """Every YAML of the kit and of the host that names layers alone, as a dictionary, unchanged."""
    from ultralytics.nn import tasks

    host = Path(tasks.__file__).parents[1] / "cfg" / "models"
    files = [*find.configs_folder().glob("*.yaml"), *host.rglob("*.yaml")]
    assert len(files) > 100
    for file in files:
        d = load.read(file)
        assert allowed.checked(d, file.name, tasks) == d or "torchvision" in file.read_text().lower(), file
        check.validate({"nc": 80, **d}, file.name)
        plain.check_size({"nc": 80, **d}, file.name)


def test_torchvision_fetches_nothing() -> None:
    from ultralytics.nn import tasks

    for args in ([8, "resnet18"], [8, "resnet18", "DEFAULT", True, 2]):
        row = allowed.checked(small([-1, 1, "TorchVision", args]), "a.yaml", tasks)["backbone"][1]
        assert row[3][2] is None


def test_the_class_that_is_checked_is_the_class_that_is_built(honest: Path, tmp_path: Path) -> None:
    """A name that means something else by the time the host's parser looks it up."""
    from ultralytics.nn import tasks

    built = []

    class Other(nn.Module):
        def __init__(self, *args: Any) -> None:
            super().__init__()
            built.append(args)

    path = forged(honest, tmp_path / "x.bundle", small([-1, 1, "Conv", [8, 3, 1]]))
    real = allowed.checked

    def late(d: Any, file: str, home: Any) -> Any:
        checked = real(d, file, home)
        tasks.Focus = Other
        checked["backbone"][1][2] = "Focus"
        return checked

    before = tasks.Focus
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(allowed, "checked", late)
            with pytest.raises(YoloAttnError, match="is not called"):
                yolo_attn.load(path)
    finally:
        tasks.Focus = before
    assert built == []


def test_the_host_builds_restricted(honest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the host has a mode that evaluates nothing, a bundle is built in it, and the mode is left afterwards."""
    from ultralytics.nn import tasks

    if not hasattr(tasks, "_SafeLoad"):
        pytest.skip("this ultralytics has no restricted mode")
    seen = []
    real = tasks.DetectionModel.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(tasks._SafeLoad.restricted())
        real(self, *args, **kwargs)

    monkeypatch.setattr(tasks.DetectionModel, "__init__", init)
    yolo_attn.load(honest)
    assert seen[-1] is True and not tasks._SafeLoad.restricted()


def test_a_package_s_module_needs_the_user_s_word(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that an entry point registers is built from a bundle only if the user names it."""
    from types import SimpleNamespace

    class Brought(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()

        def forward(self, x: Any) -> Any:
            return x

    Brought.__module__ = "some_package.gates"
    registry.register("Brought", Brought)
    try:
        points = [SimpleNamespace(name="Brought", value="some_package.gates:Brought")]
        monkeypatch.setattr(plugins, "entry_points", lambda: points)
        path = forged(honest, tmp_path / "x.bundle", small([-1, 1, "Brought", []]))
        with pytest.raises(YoloAttnError, match=allowed.TRUST):
            yolo_attn.load(path)
        monkeypatch.setenv(allowed.TRUST, "Brought")
        with pytest.raises(CheckpointError, match="weights do not match"):  # it was built
            yolo_attn.load(path)
    finally:
        registry.unregister("Brought")


def test_a_package_s_module_inside_a_block(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that names it in its own name, in its options, or with the kit's prefix."""
    from types import SimpleNamespace

    built = []

    class Brought(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            built.append(channels)

        def forward(self, x: Any) -> Any:
            return x

    Brought.__module__ = "some_package.gates"
    registry.register("Brought", Brought)
    try:
        points = [SimpleNamespace(name="Brought", value="some_package.gates:Brought")]
        monkeypatch.setattr(plugins, "entry_points", lambda: points)
        for row in (
            [-1, 1, "C3_Brought", [8]], [-1, 1, "yolo_attn.C3_Brought", [8]], [-1, 1, "Conv_Brought", [8]],
            [-1, 1, "C3Attention", [8, {"module": "Brought"}]], [-1, 1, "C3Attention", [8, "Brought"]],
            [-1, 1, "ResBlock_Brought", [8]], [-1, 1, "C3_brought", [8]],
            [-1, 1, "C3Attention", [8, {"module": "yolo_attn.Brought"}]],
        ):  # fmt: skip
            with pytest.raises(YoloAttnError):
                yolo_attn.load(forged(honest, tmp_path / "x.bundle", small(row)))
        assert built == []
    finally:
        registry.unregister("Brought")


def test_a_module_of_the_user_s_own_that_reads_a_file(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, since the file says which; unless the user names the module."""
    (tmp_path / "secret").write_text("")

    class ReadsItself(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            (tmp_path / "secret").read_text()

        def forward(self, x: Any) -> Any:
            return x

    registry.register("ReadsItself", ReadsItself)
    try:
        path = forged(honest, tmp_path / "x.bundle", small([-1, 1, "ReadsItself", []]))
        with pytest.raises(YoloAttnError, match="while it is built.*YOLO_ATTN_TRUST"):
            yolo_attn.load(path)
        monkeypatch.setenv(allowed.TRUST, "Else, ReadsItself")
        with pytest.raises(CheckpointError, match="weights do not match"):  # it was built
            yolo_attn.load(path)
    finally:
        registry.unregister("ReadsItself")


def test_a_bundle_whose_options_ask_for_memory(honest: Path, tmp_path: Path) -> None:
    """Refused by counting: the file holds its weights, so it tells what there can be."""
    for row in (
        [-1, 1, "CBAM", [{"kernel_size": 99_999}]], [-1, 1, "Conv", [8, 60_001]], [-1, 1, "nn.Conv2d", [8, 8, 60_001]],
        [-1, 900, "Conv", [60_000, 3]],
    ):  # fmt: skip
        with pytest.raises(YoloAttnError, match="parameters|cannot be built|kernel size"):
            yolo_attn.load(forged(honest, tmp_path / "x.bundle", small(row)))


WAYS = {
    "open": "open('mark', 'w')",
    "a caught refusal": "exec('try:\\n open(\"mark\", \"w\")\\nexcept BaseException: pass')",
    "a file by its number": "__import__('os').open('mark', 65)",
    "behind the system's own": "open('/proc/self/cwd/secret').read()",
    "a process": "__import__('os').system('touch mark')",
    "another process": "__import__('subprocess').run(['touch', 'mark'])",
    "a folder": "__import__('os').mkdir('mark')",
    "an address": "__import__('socket').create_connection(('127.0.0.1', 9))",
    "a pickle": "__import__('pickle').loads(b'cos\\ngetcwd\\n.')",
    "torch": "__import__('torch').load('secret')",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_that_does_more_than_compute(
    way: str, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of a later release of the host: whatever its code looks like, it is refused when it is built."""
    from ultralytics.nn import tasks
    from ultralytics.nn.modules import conv

    class Later(nn.Module):
        def __init__(self, *args: Any) -> None:
            super().__init__()
            eval(WAYS[way])

        def forward(self, x: Any) -> Any:
            return x

    Later.__module__ = conv.__name__
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("")
    for home in (conv, tasks):
        monkeypatch.setattr(home, "Later", Later, raising=False)
    with pytest.raises(YoloAttnError, match="while it is built"):
        yolo_attn.load(forged(honest, tmp_path / "x.bundle", small([-1, 1, "Later", [8]])))
    assert not (tmp_path / "mark").exists()
    (tmp_path / "mark").write_text("")  # and afterwards all is as before
    yolo_attn.load(honest)


def test_safe_load_by_the_host_s_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics import utils

    words = {"1": True, "true": True, "YES": True, "On": True, "y": True, "Y": True, "t": True, " T ": True, "0": False,
             "": False, "no": False, "2": False, "enabled": False}  # fmt: skip
    for host in (True, False):
        if not host:
            monkeypatch.delattr(utils, "env_bool", raising=False)
        for word, wanted in words.items():
            monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", word)
            assert safe.safe_load() is wanted, word
            assert not host or not hasattr(utils, "env_bool") or utils.env_bool("ULTRALYTICS_SAFE_LOAD") is wanted
    monkeypatch.delenv("ULTRALYTICS_SAFE_LOAD")
    assert safe.safe_load() is False


@pytest.mark.parametrize("word", ["y", "T"])
def test_safe_load_keeps_register_from_running(word: str, cli: Any, tmp_path: Path) -> None:
    poisoned(tmp_path)
    told = cli("show", "evil.yaml", env={"ULTRALYTICS_SAFE_LOAD": word}).mistake()
    assert "ULTRALYTICS_SAFE_LOAD is set" in told and not (tmp_path / "mark").exists()


# -- Dictionaries on a classic host --------------------------------------------------------------------------------

CLASSIC = """
import copy, json, pathlib, sys, yaml
import torch, yolo_attn
from yolo_attn.model_yaml import find, load
from yolo_attn.errors import YoloAttnError
{host}
code = "__import__('pathlib').Path('mark').touch()"
pathlib.Path("evil.yaml").write_text("x: 1")
pathlib.Path("evil").write_text("x: 1")

def model(row=None, **more):
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], row or [-1, 1, "Conv", [8, 3, 2]]]
    return {"nc": 1, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13, 16, 30, 33, 23]],
            "backbone": rows, "head": [[[2], 1, "Detect", ["nc", "anchors"]]], **more}

class Text(str):
    pass

rows = {
    "activation in bytes": model(activation=code.encode()),
    "activation": model(activation=code),
    "activation of another text type": model(activation=Text(code)),
    "a row that is a mapping": model({-1: 1, 1: 1, "Conv": 1, code: 1}),
    "a row of keys": model({code: 1, "a": 1, "Conv": 1, "b": 1}),
    "arguments that are a mapping": model([-1, 1, "Conv", {8: 1, code: 1}]),
    "arguments in bytes": model([-1, 1, "Conv", [8, code.encode()]]),
    "arguments as a text": model([-1, 1, "Conv", code]),
    "a name in bytes": model([-1, 1, code.encode(), []]),
    "a nested model": model([-1, 1, "Model", [model(activation=code)]]),
    "a model of a file": model([-1, 1, "Model", ["evil.yaml"]]),
    "a detector": model([-1, 1, "DetectionModel", [model(activation=code)]]),
    "a call": model([-1, 1, "Conv", [8, 3, code]]),
    "a call in a list": model([-1, 1, "Conv", [8, 3, [code]]]),
    "a reader": model([-1, 1, "AutoShape", ["x"]]),
    "a backend": model([-1, 1, "DetectMultiBackend", ["x.pt"]]),
    "a variable": model([-1, 1, "Conv", [8, 3, "layers"]]),
    "a module": model([-1, 1, "Conv", [8, 3, "torch"]]),
    "a builtin": model([-1, 1, "Conv", [8, 3, "exit"]]),
    "a path": model([-1, 1, "torch.hub.load", ["a", "b"]]),
    "other letters": model([-1, 1, "\uff2dodel", [model(activation=code)]]),
    "anchors that are a call": model(anchors=code),
    "a class": model([-1, 1, yolo.Conv, [8, 3, 2]]),
}
told = {}
for name, d in rows.items():
    try:
        yolo.Model(d)
        told[name] = "built"
    except YoloAttnError as exc:
        told[name] = "refused"
    except Exception as exc:
        told[name] = type(exc).__name__
told["mark"] = pathlib.Path("mark").exists()

class Fork(torch.nn.Module):
    def __init__(self, c1, k=3):
        super().__init__()
        self.cv = torch.nn.Conv2d(c1, c1, k, padding=k // 2)
    def forward(self, x):
        return self.cv(x)

class Reads(Fork):
    def __init__(self, c1, file):
        super().__init__(c1)
        try:
            getattr(pathlib.Path(file), "read" + "_bytes")()
        except Exception:
            pass

common = sys.modules[yolo.Conv.__module__]
for cls in (Fork, Reads):
    cls.__module__ = common.__name__
    setattr(common, cls.__name__, cls)
    setattr(yolo, cls.__name__, cls)
d = model([-1, 1, "Fork", [8]], activation="nn.LeakyReLU(0.1)")
before = copy.deepcopy(d)
built = yolo.Model(d)
assert d == before, "the user's dictionary was changed"
told["a fork's layer"] = type(built.model[2]).__name__
try:
    yolo.Model(model([-1, 1, "Reads", [8, "evil"]]))
except YoloAttnError as exc:
    told["a fork's reader"] = str(exc)

own = [*pathlib.Path(yolo.__file__).parent.glob("*.yaml"), *pathlib.Path(yolo.__file__).parent.glob("hub/*.yaml")]
kits = [p for p in find.configs_folder().glob("yolov5*.yaml") if "p2" not in p.name]
count = 0
for file in [*own, *kits[::4]]:
    if file.name in ("anchors.yaml",):
        continue
    d = load.read(file)
    d.update({"depth_multiple": 0.33, "width_multiple": 0.125} if "scales" not in d else {"scale": "n"})
    torch.manual_seed(0)
    yolo.Model(d)
    count += 1
told["honest"] = count
print("TOLD" + json.dumps(told))
"""


def test_dictionaries_on_a_classic_host(classic: Classic, tmp_path: Path) -> None:
    told = json.loads(classic.python(CLASSIC, cwd=tmp_path).ok().rpartition("TOLD")[2])
    assert told.pop("mark") is False
    assert told.pop("a fork's layer") == "Fork" and "opens 'evil' while it is built" in told.pop("a fork's reader")
    assert told.pop("honest") > 10
    assert set(told.values()) == {"refused"}, told


# -- TorchScript under the name of a checkpoint --------------------------------------------------------------------


class Saves(nn.Module):
    """Writes a file when TorchScript loads it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> Tuple[str, bool]:  # noqa: UP006 # TorchScript resolves no other here
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[str, bool]) -> None:  # noqa: UP006
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def real_script(target: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", torch.serialization.save)  # the host's own cannot be compiled
        torch.jit.save(torch.jit.script(Saves(str(target.parent / "mark"))), str(target))
    return target


def hidden_script(target: Path) -> Path:
    """TorchScript whose index a second index hides: readers of zip files disagree on which counts."""
    real_script(target)
    with zipfile.ZipFile(target.with_suffix(".outer"), "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
        file.writestr("archive/data/0", target.read_bytes())
    os.replace(target.with_suffix(".outer"), target)
    return target


@pytest.mark.parametrize("make", [real_script, hidden_script])
@pytest.mark.parametrize("word", ["", "1"])
def test_torchscript_is_refused(
    make: Any, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before torch sees it: its `__setstate__` could write any file."""
    from yolo_attn.detectors.opening import open_source
    from yolo_attn.weights import checkpoint

    if word:
        monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", word)

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("torch was asked to load it")

    for name in ("torch.load", "torch.jit.load"):
        monkeypatch.setattr(name, never)
    path = make(tmp_path / "ts.pt")
    for attempt in (
        lambda: checkpoint.read(path),
        lambda: open_source(path),
        lambda: open_source(path, cfg="yolov5n_se.yaml"),
    ):
        with pytest.raises(CheckpointError, match="TorchScript"):
            attempt()


def test_torchscript_on_the_command_line(cli: Any, tmp_path: Path) -> None:
    real_script(tmp_path / "ts.pt")
    for command in (
        ("transfer", "ts.pt", "yolov5n_se.yaml", "--output", "o.pt"),
        ("export", "ts.pt"),
        ("train", "--weights", "ts.pt", "--cfg", "yolov5n_se.yaml", "--epochs", "1"),
    ):
        assert "TorchScript" in cli(*command).mistake()
    assert not (tmp_path / "mark").exists()


def test_what_is_promised_has_the_tests_that_it_names() -> None:
    root = Path(__file__).resolve().parents[1]
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")
    silent = ("Not promised", "Reporting")
    assert all("*Tests* " in s for s in sections if not s.startswith(silent)), "a section without its tests"
    named = re.findall(r"`(test_\w+\.py): ([^`]+)`", text)
    assert len(named) > 15
    files = {f.name: f for folder in ("", "*/") for f in (root / "tests").glob(f"{folder}test_*.py")}
    for file, functions in named:
        defined = set(re.findall(r"^def (\w+)", files[file].read_text(encoding="utf-8"), re.MULTILINE))
        assert set(functions.split(", ")) <= defined, (file, set(functions.split(", ")) - defined)
