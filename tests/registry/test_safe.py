"""Hostile checkpoints and model dictionaries: what each tries, and that it gets nowhere. Honest ones still load."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from classic_host import Classic, classic
from torch import nn

import yolo_attn
from yolo_attn.errors import ConfigError, PluginError
from yolo_attn.model_yaml import dialect
from yolo_attn.registry import layer_class, plugins, registry, safe

__all__ = ["classic"]

needs_names = pytest.mark.skipif(not safe.named(), reason="torch before 2.6 declares whole classes")


class Call:
    """Pickles as a call of `function`, and then as attributes that fill what it returned."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


def load(thing: Any) -> Any:
    """What `torch.load(weights_only=True)` makes of a checkpoint that holds `thing`."""
    file = io.BytesIO()
    torch.save({"model": thing}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["model"]


class Telltale(nn.Module):
    """Notes that its constructor ran."""

    built: list[Any] = []  # noqa: RUF012 # one list for all instances is the point

    def __init__(self, *args: Any) -> None:
        super().__init__()
        self.built.append(args)


@pytest.fixture
def telltale() -> Any:
    layer_class.check_class(Telltale)
    yield Telltale
    Telltale.built.clear()


@needs_names
def test_no_constructor_runs(telltale: Any) -> None:
    """Neither of a user's class nor of the kit's, by any of pickle's ways to make an object."""
    made = load(Call(telltale, "a file to read"))
    assert type(made) is telltale and vars(made) == {} and telltale.built == []
    huge = load(Call(yolo_attn.get_module("SE"), 10**9))
    assert vars(huge) == {}
    block = load(Call(yolo_attn.get_module("C3Attention"), 64, 64, 10**6))
    assert vars(block) == {}


@needs_names
def test_the_class_itself_is_out_of_reach(telltale: Any) -> None:
    """It stands in torch's table under a name that no file can know."""
    entries = [e for e in torch.serialization.get_safe_globals() if isinstance(e, tuple) and e[0] is telltale]
    name = f"{telltale.__module__}.{telltale.__qualname__}"
    assert entries and all(n != name and len(n) == 32 for _, n in entries)
    assert telltale not in torch.serialization.get_safe_globals()


@needs_names
def test_honest_instances_load(telltale: Any) -> None:
    made = telltale(1)
    made.weight = nn.Parameter(torch.arange(3.0))
    again = load(made)
    assert type(again) is telltale and torch.equal(again.weight, made.weight)
    assert telltale.built == [(1,)]


@needs_names
def test_a_class_that_was_defined_again_replaces_the_first() -> None:
    """As a notebook's cell that is run twice."""
    made = []
    for size in (1, 2):
        cls = type("Cell", (nn.Module,), {"__module__": __name__, "size": size})
        globals()["Cell"] = cls
        layer_class.check_class(cls)
        made.append(load(cls()))
    assert [type(m).size for m in made] == [1, 2]
    del globals()["Cell"]


@needs_names
@pytest.mark.parametrize(
    "function",
    [eval, exec, __import__, getattr, open, pickle.loads, subprocess.run, type, torch.load, torch.hub.load,
     yolo_attn.load_plugin, yolo_attn.get_module, registry.register, safe.declare],
)  # fmt: skip
def test_functions_are_refused(function: Any) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load(Call(function, "print('run')"))


def evaluated(d: dict[str, Any], text: str) -> None:
    """What passes the check Python must not be able to evaluate either: the host keeps it as a string."""
    dialect.check_expressions(d, "a.yaml")
    eval(text)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').getcwd()", "(lambda: print('run'))()", "f\"{print('run')}\"", "[print('run')]", "x := print('run')",
     "nn.SiLU(inplace=print('run'))", "nn.modules.activation.SiLU(print('run'))", "torch.hub.load('a', 'b')",
     "nn.Module.__subclasses__()", "\n\tprint('run')", "\x0cprint('run')", "\ufeffprint('run')", "print('run')#",
     "nn.SiLU() or print('run')", "{**print('run')}", "await print('run')", "nn.__loader__.load_module('antigravity')"],
)  # fmt: skip
def test_strings_that_the_classic_parser_would_evaluate(text: str) -> None:
    for d in (
        {"activation": text, "backbone": [], "head": []},
        {"backbone": [[-1, 1, text, []]], "head": []},
        {"backbone": [], "head": [[-1, 1, "Conv", [64, text]]]},
    ):
        with pytest.raises((ConfigError, SyntaxError)):
            evaluated(d, text)


def test_safe_load_takes_no_class_from_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's dictionary could name any class that happens to be imported."""
    d = {"register": {"X": f"{__name__}:Telltale"}}
    assert plugins.from_yaml("X", d, "a.yaml") is Telltale
    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "1")
    with pytest.raises(PluginError, match="ULTRALYTICS_SAFE_LOAD is set"):
        plugins.from_yaml("X", d, "a.yaml")


# On a classic host: its layers are declared too, and NumPy's numbers.
CLASSIC = """
import importlib, io, json, os, sys, zipfile
import numpy as np, torch, yolo_attn
from yolo_attn.errors import YoloAttnError
{host}
common = importlib.import_module(yolo.__name__.replace("models.yolo", "models.common"))
multiarray = (getattr(np, "_core", None) or np.core).multiarray

class Call:
    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)
    def __reduce__(self):
        return self.reduced

def load(thing):
    file = io.BytesIO()
    torch.save({"model": thing}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["model"]

def f8(*state):  # a float64 as NumPy pickles it, with another state
    return Call(np.dtype, "f8", False, True, state=state)

plain = f8(3, "<", None, None, None, -1, -1, 0)
tried = {
    "fields anywhere in memory": lambda: load(f8(3, "<", None, ("a",), {"a": (plain, 10**12)}, 8, 8, 0)).fields,
    "objects out of bytes": lambda: load(f8(3, "<", None, None, None, 8, 8, 0x3F)).hasobject,
    "a subarray": lambda: load(f8(3, "<", (plain, (10**6,)), None, None, -1, -1, 0)).subdtype,
    "an array of objects": lambda: load(Call(np.dtype, "O", False, True)),
    "a structure": lambda: load(Call(np.dtype, {"names": ["a"], "formats": ["O"]})),
    "an array of a size": lambda: load(Call(np.ndarray, (10**9,), "O")),
    "an array of nothing": lambda: load(Call(multiarray._reconstruct, np.ndarray, (10**9,), b"b")).nbytes,
    "a file": lambda: load(Call(common.AutoShape, "x")),
    "a detector": lambda: vars(load(Call(yolo.Model, "x.yaml"))),
    "the parser": lambda: load(Call(yolo.parse_model, {}, [3])),
    "the loader": lambda: load(Call(experimental.attempt_load, "x.pt")),
    "a hook": lambda: load(Call(torch.nn.Identity, state={"_forward_hooks": {0: os.getcwd}})),
}
told = {}
for name, attempt in tried.items():
    try:
        told[name] = repr(attempt())
    except Exception as exc:
        told[name] = type(exc).__name__
told["float64"] = repr(np.dtype("f8"))

honest = {"number": np.float64(0.5), "flag": np.bool_(True), "array": np.array([[1.5, 2.5]]), "half": np.float16(2),
          "ints": np.arange(3, dtype=np.int32)}
back = load(honest)
told["honest"] = all(np.array_equal(back[k], v) and np.asarray(back[k]).dtype == v.dtype for k, v in honest.items())

def named(module, name):  # the class that a file calls by this name
    empty, file = io.BytesIO(), io.BytesIO()
    torch.save(0, empty)
    with zipfile.ZipFile(empty) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.namelist():
            pickled = f"c{module}\\n{name}\\n".encode() + b")R."
            target.writestr(entry, b"\\x80\\x02" + pickled if entry.endswith("data.pkl") else source.read(entry))
    file.seek(0)
    return type(torch.load(file, weights_only=True))

told["names"] = [named("models.yolo", "Model") is yolo.Model, named("models.common", "C3") is common.C3]

def model(**more):
    row = [-1, 1, more.pop("name", "X"), ["x.torchscript"]]
    return {"nc": 1, "depth_multiple": 1, "width_multiple": 1, "anchors": [[10, 13, 16, 30, 33, 23]], "backbone": [row],
            "head": [[[-1], 1, "Detect", ["nc", "anchors"]]], **more}

for name, d in {
    "a row": model(name="AutoShape"),
    "a registered row": model(register={"X": f"{common.__name__}:AutoShape"}),
    "no layer": model(register={"X": "os:PathLike"}),
    "an import": model(register={"X": "antigravity:X"}),
}.items():
    try:
        yolo.Model(d)
    except YoloAttnError as exc:
        told[name] = str(exc)
assert "antigravity" not in sys.modules
print("TOLD" + json.dumps(told))
"""


@pytest.mark.slow
@needs_names
def test_a_hostile_checkpoint_on_a_classic_host(classic: Classic, tmp_path: Path) -> None:
    """Memory, files, constructors and functions stay out of reach; numbers, arrays and older names load."""
    told = json.loads(classic.python(CLASSIC, cwd=tmp_path).ok().rpartition("TOLD")[2])
    assert told.pop("honest") is True
    assert told.pop("names") == [True, True]
    assert told.pop("float64") == "dtype('float64')"
    assert "AutoShape" in told["a row"]
    assert (
        "is not called" in told["a row"] or "no module is called" in told["a row"]
    )  # where the parser has no such name
    assert "AutoShape" in told["a registered row"] and "is not called" in told.pop("a registered row")
    del told["a row"]
    assert "not a subclass of torch.nn.Module" in told.pop("no layer")
    assert "is not loaded" in told.pop("an import")
    refused = "UnpicklingError"
    assert told == {
        "fields anywhere in memory": "None",
        "objects out of bytes": "False",
        "a subarray": "None",
        "an array of objects": refused,
        "a structure": refused,
        "an array of a size": refused,
        "an array of nothing": "0",
        "a file": refused,
        "a detector": "{}",
        "the parser": refused,
        "the loader": refused,
        "a hook": refused,
    }
