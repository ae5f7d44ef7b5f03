"""Registry and binding: names, owners, and what a constructor is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import yolo_attn
from yolo_attn import registry, rows
from yolo_attn.binding import Binding, Mismatch
from yolo_attn.errors import RegistryError, UnknownModuleError


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
def test_an_unknown_row_names_file_row_and_the_nearest(name: str, near: str) -> None:
    rows_of = {"yaml_file": "my.yaml", "backbone": [[-1, 1, "Conv", [8]]], "head": [[-1, 1, name, []]]}

    def host_lookup() -> Any:
        raise KeyError(name)

    with pytest.raises(UnknownModuleError, match=rf"^my\.yaml, row 1 \(head\).*'{name}'.*Did you mean '{near}'"):
        rows.find(name, [], 1, {**rows_of, "register": {"Mine": "mine.py:Mine"}}, host_lookup)


@pytest.mark.parametrize("attribute", ["i", "f", "type", "np"])
def test_names_that_the_parser_overwrites_are_refused(attribute: str) -> None:
    namespace: dict[str, Any] = {"nn": nn}
    exec(
        f"class Clash(nn.Module):\n    def __init__(self, c1):\n        super().__init__()\n"
        f"        self.{attribute} = nn.Identity()\n",
        namespace,
    )
    with pytest.raises(RegistryError, match=f"'{attribute}'"):
        yolo_attn.register("Clash", namespace["Clash"])


@pytest.mark.parametrize("thing", [3, "nn.Conv2d", dict, lambda c: None])
def test_only_modules(thing: Any) -> None:
    with pytest.raises(RegistryError, match="nn.Module"):
        registry.check_class(thing)


def test_a_conv_that_would_lose_its_forward_is_refused() -> None:
    from ultralytics.nn.modules.conv import Conv

    class Attended(Conv):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).sigmoid()

    with pytest.raises(RegistryError, match="fuse"):
        yolo_attn.register("Attended", Attended)


def make(parameters: str) -> type:
    namespace: dict[str, Any] = {"nn": nn}
    exec(
        f"class M(nn.Module):\n    def __init__({', '.join(['self', parameters])}):\n        super().__init__()\n",
        namespace,
    )
    made: type = namespace["M"]
    return made


def half(c: Any) -> Any:
    return c // 2


@pytest.mark.parametrize(
    ("parameters", "row", "channels", "n", "args", "kwargs", "c2", "repeats"),
    [
        ("channels, *, reduction=16", [], 256, 1, [256], {}, 256, 1),
        ("channels, *, reduction=16", [512], 256, 1, [256], {}, 256, 1),  # nominal width, scaled
        ("channels, *, reduction=16", [256], 256, 1, [256], {}, 256, 1),  # true width
        ("channels, *, reduction=16", [512.0], 256, 1, [256], {}, 256, 1),
        ("channels, *, reduction=16", [{"reduction": 8}], 256, 1, [256], {"reduction": 8}, 256, 1),
        ("channels, *, reduction=16", [512, 8], 256, 1, [256], {"reduction": 8}, 256, 1),  # the field's habit
        ("channels, reduction=16, k=3", [512, 8, 5], 256, 1, [256, 8, 5], {}, 256, 1),
        ("in_channels, reduction=16", [], 256, 3, [256], {}, 256, 3),  # repeated by the parser
        ("c1, c2, k=1", [128, 3], 256, 1, [256, 64, 3], {}, 64, 1),
        ("c1, c2, n=1, shortcut=True", [128, False], 256, 4, [256, 64, 4, False], {}, 64, 1),
        ("inp, oup, reduction=32", [512], 256, 1, [256, 256], {}, 256, 1),
        ("e_lambda=1e-4", [], 256, 1, [], {}, 256, 1),
        ("e_lambda=1e-4", [512], 256, 1, [], {}, 256, 1),  # a width, not e_lambda
        ("e_lambda=1e-4", [{"e_lambda": 0.1}], 256, 1, [], {"e_lambda": 0.1}, 256, 1),
        ("", [], 256, 1, [], {}, 256, 1),
        ("channels", [], [64, 64], 1, [[64, 64]], {}, 64, 1),
        ("c1, c2", [256], [64, 32], 1, [[64, 32], 128], {}, 128, 1),
    ],
)
def test_binding(
    parameters: str,
    row: list[Any],
    channels: Any,
    n: int,
    args: list[Any],
    kwargs: dict[str, Any],
    c2: int,
    repeats: int,
) -> None:
    call = Binding.of(make(parameters)).bind(row, channels, n, half)
    assert (call.args, call.kwargs, call.c2, call.n) == (args, kwargs, c2, repeats)


@pytest.mark.parametrize(
    ("parameters", "row", "channels", "n", "told"),
    [
        ("channels, *, reduction=16", [1024.0], 256, 1, "1024 channels, 512"),
        ("channels", [1024], 256, 1, "1024 channels, 512 after width scaling, but 256 arrive"),
        ("channels, *, reduction=16", [{"reductio": 8}], 256, 1, "reductio.*reduction=16"),
        ("channels, *, reduction=16", [512, 8, 9], 256, 1, "takes reduction=16|too many"),
        ("channels, *, reduction=16", [512, 8, {"reduction": 4}], 256, 1, "given twice"),
        ("c1, c2", [], 256, 1, "output channels is missing"),
        ("c1, c2", ["wide"], 256, 1, "'wide'"),
        ("c1, c2", [64], 256, 2, "repeated 2 times"),
        ("channels", [], [64, 32], 1, r"\[64, 32\]"),
    ],
)
def test_rows_that_contradict(parameters: str, row: list[Any], channels: Any, n: int, told: str) -> None:
    with pytest.raises(Mismatch, match=told):
        Binding.of(make(parameters)).bind(row, channels, n, half)


def test_takes_overrides_the_signature() -> None:
    assert Binding.of(make("width, factor=2"), "channels").bind([], 64, 1, half).args == [64]
    assert Binding.of(make("channels=8"), "").bind([], 64, 1, half).args == []
    with pytest.raises(RegistryError, match="takes="):
        Binding.of(make("c1"), "everything")


def test_out_channels() -> None:
    binding = Binding.of(make("channels"), None, lambda c: c * 4)
    assert binding.bind([], 64, 1, half).c2 == 256


def test_every_module_is_a_safe_global() -> None:
    """What `torch.load(weights_only=True)` may rebuild."""
    registry.load_all()
    names = [
        e[1] if isinstance(e, tuple) else f"{e.__module__}.{e.__qualname__}"
        for e in torch.serialization.get_safe_globals()
    ]
    for name in registry.list_modules():
        assert names.count(registry.get_entry(name).owner) == 1, name
