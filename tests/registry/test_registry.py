"""Registry and binding: names, owners, and what a constructor is given."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from conftest import ROOT, Run, run_python
from torch import nn

import yolo_attn
from yolo_attn.errors import RegistryError, RowError, UnknownModuleError
from yolo_attn.hook import seams
from yolo_attn.registry import layer_class, registry, sources


@pytest.fixture
def clean() -> Any:
    """Forget what a test registers."""
    before = set(registry.known_names())
    yield
    for name in list(registry.list_modules()):
        if name not in before:
            registry.unregister(name)


class Plain(nn.Module):
    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels // reduction, 1)


def test_register_get_list_unregister(clean: Any) -> None:
    assert yolo_attn.register("MyGate", Plain, aliases=["MG"]) is Plain
    assert yolo_attn.get_module("MyGate") is yolo_attn.get_module("MG") is Plain
    assert "MyGate" in yolo_attn.list_modules()
    assert "MG" not in yolo_attn.list_modules()
    yolo_attn.unregister("MG")
    with pytest.raises(UnknownModuleError):
        yolo_attn.get_module("MyGate")
    assert "MG" not in registry.known_names()


def test_decorator_spellings(clean: Any) -> None:
    @yolo_attn.register
    class BareGate(nn.Module):
        pass

    @yolo_attn.register("NamedGate", kind="channel")
    class Other(nn.Module):
        pass

    assert yolo_attn.get_module("BareGate") is BareGate
    assert yolo_attn.get_module("NamedGate") is Other
    assert registry.get_entry("NamedGate").kind == "channel"


def test_duplicates_name_both_owners(clean: Any) -> None:
    with pytest.raises(RegistryError, match=r"Plain.*'SE'.*yolo_attn\.modules\.se\.SEAttention"):
        yolo_attn.register("MyGate", Plain, aliases=["SE"])
    assert "MyGate" not in registry.known_names()  # all or nothing
    yolo_attn.register("MyGate", Plain)
    yolo_attn.register("MyGate", Plain, aliases=["MG"])  # the same class again, as when a notebook cell is run twice
    with pytest.raises(RegistryError, match="'SE'"):
        yolo_attn.register("MyGate", Plain, aliases=["SE"])
    assert yolo_attn.get_module("MG") is Plain  # what was there stays


def test_unknown_name_suggests() -> None:
    with pytest.raises(UnknownModuleError, match="SEAttenton.*Did you mean 'SEAttention'"):
        yolo_attn.get_module("SEAttenton")


@pytest.mark.parametrize(
    ("name", "near"),
    [("SEAttenton", "SEAttention"), ("yolo_attn.SEAttenton", "SEAttention"), ("eca", "ECA"), ("Cnov", "Conv"), ("Min", "Mine")],
)  # fmt: skip
def test_an_unknown_row_names_file_row_and_the_nearest(name: str, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Conv", object)  # the names of the host's parser are those of its module
    rows_of = {"yaml_file": "my.yaml", "backbone": [[-1, 1, "Conv", [8]]], "head": [[-1, 1, name, []]]}

    def host_lookup() -> Any:
        raise KeyError(name)

    with pytest.raises(UnknownModuleError, match=rf"^my\.yaml, row 1 \(head\).*'{name}'.*Did you mean '{near}'"):
        seams.find(name, [], 1, {**rows_of, "register": {"Mine": "mine.py:Mine"}}, host_lookup)


def module(body: str, parameters: str = "self, channels") -> type:
    """A class whose constructor does this."""
    namespace: dict[str, Any] = {"nn": nn}
    exec(f"class Clash(nn.Module):\n def __init__({parameters}):\n  super().__init__()\n  {body}\n", namespace)
    made: type = namespace["Clash"]
    return made


def build(cls: type, row: list[Any]) -> Any:
    """What the parse hook builds for a row behind one of 16 channels."""
    d = {"yaml_file": "my.yaml", "backbone": [[-1, 1, "Conv", [16]]], "head": [[-1, 1, "Clash", row]]}
    builder, *_ = seams.place(cls, [16], -1, 1, list(row), 1, d, lambda c: c)
    return builder()


@pytest.mark.parametrize("attribute", ["i", "f", "type", "np"])
@pytest.mark.parametrize(
    "how",
    [
        "self.{} = nn.Identity()",
        "self.{} = 3",
        "self.add_module('{}', nn.Identity())",
        "self.register_parameter('{}', None)",
        "self.register_buffer('{}', None)",
        "setattr(self, '{}', 3)",
    ],
)
def test_names_that_the_parser_overwrites_are_refused(clean: Any, attribute: str, how: str) -> None:
    """Once the layer is built, where file and row are known, whatever way the constructor went."""
    cls = module(how.format(attribute))
    yolo_attn.register("Clash", cls)
    with pytest.raises(RowError, match=rf"^my\.yaml, row 1 \(head\).*Clash.*'{attribute}'.*Rename"):
        build(cls, [])


def test_what_a_constructor_does_to_others_is_its_own(clean: Any) -> None:
    cls = module("other = nn.Identity(); other.type = other.f = 3; self.inner = other")
    yolo_attn.register("Clash", cls)
    assert build(cls, []).inner.type == 3


@pytest.mark.parametrize("attribute", ["i", "f", "type", "np"])
@pytest.mark.parametrize("code", [lambda self: 3, property(lambda self: 3)])
def test_methods_and_properties_that_the_parser_hides_are_refused(attribute: str, code: Any) -> None:
    with pytest.raises(RegistryError, match=f"'{attribute}'"):
        yolo_attn.register("Clash", type("Clash", (Plain,), {attribute: code}))


@pytest.mark.parametrize("thing", [3, "nn.Conv2d", dict, lambda c: None])
def test_only_modules(thing: Any) -> None:
    with pytest.raises(RegistryError, match="nn.Module"):
        layer_class.check_class(thing)


def test_a_conv_that_would_lose_its_forward_is_refused() -> None:
    from ultralytics.nn.modules.conv import Conv

    class Attended(Conv):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).sigmoid()

    with pytest.raises(RegistryError, match="fuse"):
        yolo_attn.register("Attended", Attended)


def test_every_module_is_a_safe_global() -> None:
    """What `torch.load(weights_only=True)` may rebuild."""
    sources.load_all()
    names = [
        e[1] if isinstance(e, tuple) else f"{e.__module__}.{e.__qualname__}"
        for e in torch.serialization.get_safe_globals()
    ]
    for name in registry.list_modules():
        assert names.count(registry.get_entry(name).owner) == 1, name


@pytest.mark.parametrize("name", ["SE", "yolo_attn.SE"])
def test_the_prefix_is_no_part_of_a_name(name: str) -> None:
    assert registry.plain_name(name) == "SE"
    assert yolo_attn.get_module(name) is yolo_attn.get_module("SEAttention")


def test_the_prefix_of_a_vendored_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PACKAGE", "vendor.attn")
    assert [registry.plain_name(n) for n in ("vendor.attn.SE", "attn.SE", "yolo_attn.SE", "nn.SE")] == ["SE"] * 3 + ["nn.SE"]


def test_reloading_keeps_what_is_registered(python: Callable[..., Run]) -> None:
    """Every file of the kit, in the order of names, as notebooks' autoreload does."""
    code = """
    import importlib, sys, yolo_attn
    from torch import nn
    @yolo_attn.register
    class Mine(nn.Module):
        def __init__(self, channels):
            super().__init__()
    before = yolo_attn.list_modules()
    for name in sorted(n for n in sys.modules if n.partition(".")[0] == "yolo_attn"):
        importlib.reload(sys.modules[name])
    from yolo_attn.registry import registry
    assert registry.list_modules() == before == yolo_attn.list_modules() and "Mine" in before
    assert registry.get_module("SE") is sys.modules["yolo_attn.modules.se"].SEAttention
    assert registry.get_module("Mine") is Mine and registry.binding_of(Mine).takes == ("channels",)
    from ultralytics.nn.tasks import DetectionModel
    print(type(DetectionModel("yolov5n_se.yaml", verbose=False).model[12]) is registry.get_module("SE"))
    """
    assert python(code).ok().strip().endswith("True")


def test_a_source_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sources.load_all()
    monkeypatch.setattr(sources, "_state", sources._State())
    calls: list[int] = []

    def load() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("not yet")
        registry.find("anything")  # a module that looks names up while it is imported

    sources.add_source("test", load)
    with pytest.raises(OSError, match="not yet"):
        sources.load_all()
    sources.load_all()
    sources.load_all()
    assert len(calls) == 2


def test_the_registry_imports_no_module_and_no_plugin(python: Callable[..., Run]) -> None:
    code = """
    import sys, yolo_attn
    assert "torch" not in sys.modules
    assert not [n for n in sys.modules if n.startswith(("yolo_attn.modules", "yolo_attn.plugins"))]
    """
    python(code).ok()


def test_only_the_package_is_the_package(python: Callable[..., Run]) -> None:
    """Of the repository's root two folders are a part of it, and nothing else."""
    code = """
    import importlib, importlib.resources, yolo_attn
    for name in ("yolo_attn.yolo_attn", "yolo_attn.yolo_attn.registry.registry", "yolo_attn.tests", "yolo_attn.tools",
                 "yolo_attn.train_detect", "yolo_attn.benchmarks"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} can be imported")
    assert len(yolo_attn.__path__) == 1
    assert importlib.import_module("yolo_attn.patches").HOSTS
    import yolo_attn.patches.yolov5_package
    assert (importlib.resources.files("yolo_attn.model_cfgs") / "yolov5_se.yaml").read_text(encoding="utf-8")
    importlib.reload(yolo_attn.patches)
    """
    python(code).ok()


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
def test_a_vendored_copy_under_another_name(tmp_path: Path, inside: bool) -> None:
    """Data folders as in a checkout, or as in an installed package; its own registry, and the prefix of old."""
    copy = tmp_path / "vendor" / "attn"
    shutil.copytree(ROOT / "yolo_attn", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("patches", "model_cfgs"):
        shutil.copytree(ROOT / folder, (copy if inside else copy.parent) / folder)
    (tmp_path / "vendor" / "__init__.py").touch()
    code = """
    import importlib.resources, sys
    import vendor.attn, vendor.attn.patches
    from ultralytics.nn.tasks import DetectionModel
    assert (importlib.resources.files("vendor.attn.model_cfgs") / "yolov5_se.yaml").is_file()
    model = DetectionModel("yolov5n_se.yaml", verbose=False)
    print(type(model.model[12]).__module__, vendor.attn.get_module("yolo_attn.SE").__module__)
    assert "yolo_attn" not in sys.modules
    """
    run = run_python("-c", textwrap.dedent(code), cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert run.ok().split() == ["vendor.attn.modules.se"] * 2


def test_a_name_that_is_another_class_is_not_given_away() -> None:
    """Under its own name as under an alias; the same class again, as a cell of a notebook runs twice, is no other."""
    was = registry.get_module("SE")
    for name in ("SEAttention", "SE"):

        class Other(nn.Module):
            def __init__(self, channels: int) -> None:
                super().__init__()

        with pytest.raises(RegistryError, match=r"belongs to yolo_attn\.modules\.se\.SEAttention.*unregister"):
            registry.register(name, Other)
        assert registry.get_module("SE") is was and registry.binding_of(Other) is None
    try:
        first = registry.register("TwiceRun", type("TwiceRun", (nn.Module,), {"__module__": "notebook"}))
        second = registry.register("TwiceRun", type("TwiceRun", (nn.Module,), {"__module__": "notebook"}))
        assert registry.get_module("TwiceRun") is second is not first
    finally:
        registry.unregister("TwiceRun")


def test_a_name_of_the_kit_is_taken_before_any_look_up(python: Any) -> None:
    """Registered first, it clashes with one clear message, and the kit's modules are whole."""
    code = """
    import importlib, yolo_attn
    from torch import nn
    class Gate(nn.Module):
        def __init__(self, channels):
            super().__init__()
    try:
        yolo_attn.register("SE", Gate)
    except yolo_attn.YoloAttnError as exc:
        print(exc)
    print(yolo_attn.get_module("SE").__name__, yolo_attn.register("Gate", Gate) is Gate)
    """
    out = python(code).ok().splitlines()
    assert out[0].startswith("cannot register __main__.Gate as 'SE': that name belongs to yolo_attn.modules.se")
    assert out[-1] == "SEAttention True"


def test_declarations_survive_a_reload() -> None:
    """A class that is defined again after the file was reloaded still replaces the first."""
    import importlib

    import torch

    from yolo_attn.registry import safe

    if not safe.named():
        pytest.skip("this torch declares by the class's own name")

    def define() -> type:
        return type("AfterReload", (torch.nn.Module,), {"__module__": __name__, "__qualname__": "AfterReload"})

    first = safe.declare([define()])
    before = len(torch.serialization.get_safe_globals())
    # the functions of before stay where other tests of this process hold them: pickle finds a function by its name
    functions = dict(vars(safe))
    second = importlib.reload(safe).declare([define()])
    try:
        assert len(torch.serialization.get_safe_globals()) == before
        assert not {id(e) for e in first} & {id(e) for e in torch.serialization.get_safe_globals()}
    finally:
        safe.withdraw(second)
        vars(safe).update(functions)
