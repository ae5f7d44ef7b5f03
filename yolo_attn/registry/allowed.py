"""Which classes the rows of an untrusted model may name: layers that compute and do nothing else.

A bundle, or a model dictionary from a checkpoint, names classes that a host's parser then builds with arguments of the
file's choice. Some classes within the parser's reach read files, download weights, or build another model from another
dictionary. So only these classes are allowed, by identity and not by name:

- layers of torch.nn: convolutions, norms, activations, pooling and the like;
- layers that the host's own packages define, except its models and those that open files or URLs;
- the kit's registered modules; those that this process registered or that a plug-in file defines, which only the
  user can name; those that an installed package registers by an entry point, if the user names them too.

A row is checked twice: before the host sees the dictionary, and when the host's parser has looked its name up. While
the model is built, :mod:`yolo_attn.system.stillness` refuses everything but computing, whichever layer tries it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from .._name import PACKAGE
from ..errors import ConfigError, RowError, did_you_mean, shown
from ..system.stillness import lifted
from . import plain, plugins, registry

__all__ = ["TRUST", "check_class", "check_spelled", "checked", "restricted", "trusted"]

TRUST = "YOLO_ATTN_TRUST"  # names of modules that installed packages register, separated by commas

# The files of torch.nn whose classes only compute.
_TORCH = """
    activation batchnorm channelshuffle conv dropout flatten fold instancenorm linear normalization padding
    pixelshuffle pooling upsampling
"""
_NAME = re.compile(r"(?:(?:torch\.)?nn\.|yolo_attn\.)?[A-Za-z_][A-Za-z0-9_]*")


def checked(d: Any, file: str, home: ModuleType | None) -> dict[str, Any]:
    """Return a plain copy of an untrusted model dictionary, checked and safe for a host's parser.

    Args:
        d: The model dictionary.
        file: Named in messages.
        home: The module of the parser that will build it and in which names are looked up; None checks values only.

    Raises:
        ConfigError: A row or a value is not one that a model needs; the message names the row.
        RowError: A row names a class that is not allowed.
        PluginError: A row names a module whose code is not loaded.
    """
    if not isinstance(d, dict):
        raise ConfigError(f"{file}: is a {type(d).__name__}, not a model.")
    d = plain.copy(d, file)
    if d.get("activation"):
        plain.activation(d["activation"], f"{file}, activation")
    for key in ("nc", "depth_multiple", "width_multiple", "max_channels", "anchors", "channel_multiple"):
        if d.get(key) is not None and next(plain.texts([d[key]]), None) is not None:
            raise ConfigError(f"{file}: '{key}' must be numbers, got {shown(d[key])}.")
    parts = {part: d.get(part) or [] for part in ("backbone", "head")}
    for part, rows in parts.items():
        if not isinstance(rows, list):
            raise ConfigError(f"{file}: '{part}' is not a list of rows.")
    names = _parser_names(home)
    for i, row in enumerate([*parts["backbone"], *parts["head"]]):
        _check_row(row, f"{file}, row {i}", d, home, names)
    return d


def check_class(found: Any, name: str, location: str, home: ModuleType | None) -> None:
    """Refuse a class that is not allowed.

    Args:
        found: The object that the row's name means, the very one that would be called.
        name: The row's name, for the message.
        location: File and row, for the message.
        home: The module of the host's parser.

    Raises:
        RowError: It is not allowed.
    """
    with lifted():  # the records of installed packages are read
        why = _refusal(found, home)
    if why:
        raise RowError(f"{location}: '{name}' is {shown(found)}, {why}, and is not called.")


def check_spelled(entry: registry.Entry | None, name: str, location: str, home: ModuleType | None) -> None:
    """Refuse a block whose name includes that of a module, as ``C3_SE`` does, if the module is not allowed.

    Args:
        entry: The block's entry, or None.
        name: The row's name, for the message.
        location: File and row, for the message.
        home: The module of the host's parser.

    Raises:
        RowError: It is not allowed.
    """
    for _, value in entry.binding.sets if entry is not None else ():
        inner = registry.find(value) if isinstance(value, str) else None
        if inner is not None:
            check_class(inner.cls, name, location, home)


@contextlib.contextmanager
def restricted(home: ModuleType) -> Iterator[None]:
    """Let the ultralytics host build without evaluating text, as it does under ULTRALYTICS_SAFE_LOAD.

    Versions without such a mode build as usual: their input has been checked before.

    Args:
        home: The module of the host's parser.
    """
    local = getattr(getattr(home, "_SafeLoad", None), "_local", None)
    if local is None:
        yield
        return
    before = getattr(local, "active", False)
    local.active = True
    try:
        yield
    finally:
        local.active = before


def _check_row(row: Any, location: str, d: dict[str, Any], home: ModuleType | None, taken: frozenset[str]) -> None:
    if not isinstance(row, list) or len(row) != 4:
        raise ConfigError(f"{location}: a row is [from, number, module, args], got {shown(row)}.")
    f, n, name, args = row
    if any(type(x) is not int for x in (f if isinstance(f, list) else [f])):
        raise ConfigError(f"{location}: 'from' must be row numbers, got {shown(f)}.")
    if type(n) is not int:
        raise ConfigError(f"{location}: the number of repeats must be an integer, got {shown(n)}.")
    if not isinstance(args, list):
        raise ConfigError(f"{location}: the arguments must be a list, got {shown(args)}.")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{location}: {shown(name)} is neither a name nor a literal and is not evaluated.")
    cls = _resolve(name, d, location, home)
    if cls is None:
        if home is not None:
            raise RowError(
                f"{location}: no module is called '{name}'.{did_you_mean(name, [*registry.known_names(), *vars(home)])} "
                f"Load attention of your own with --plugin FILE."
            )
    else:
        check_class(cls, name, location, home)
        check_spelled(registry.find(registry.plain_name(name)), name, location, home)
    if cls is not None and (registry.binding_of(cls) or _of_register(name, d, location) is cls):
        for text in plain.texts(args):  # the kit never evaluates its arguments; a name among them is a module's
            inner = _resolve(text, d, location, None) if _NAME.fullmatch(text) else None
            if inner is not None:
                check_class(inner, text, location, home)
        return
    if getattr(cls, "__name__", "") == "TorchVision":  # [channels, model, weights, ...]
        _fetch_nothing(args, location)
    for text in plain.texts(args):
        plain.check_text(text, location, taken)


def _fetch_nothing(args: list[Any], location: str) -> None:
    """Change a TorchVision row to download no weights; accept classifiers only, which have no backbone to fetch."""
    import torchvision

    model = args[1] if len(args) > 1 else None
    builder = getattr(torchvision.models, model, None) if isinstance(model, str) else None
    if getattr(builder, "__module__", "").rpartition(".")[0] != "torchvision.models" or isinstance(builder, type):
        raise RowError(f"{location}: {shown(model)} is not a classifier of TorchVision and is not built.")
    args[2:3] = [None]


def _resolve(name: str, d: dict[str, Any], location: str, home: ModuleType | None) -> Any:
    """What a row's name means: the registry's class, one of torch.nn, or what the parser's module knows."""
    bare = registry.plain_name(name)
    own = _of_register(bare, d, location)
    if own is not None:
        return own
    entry = registry.find(bare)
    hosts = vars(home).get(name) if home is not None else None
    # A host's class precedes one that a plug-in merely defines.
    if entry is not None and not (entry.implied and isinstance(hosts, type)):
        return entry.cls
    if bare != name:
        return None
    if home is None:
        return None
    first, _, last = name.rpartition(".")
    if first:
        import torch

        return getattr(torch.nn, last, None)
    return hosts


def _of_register(name: str, d: dict[str, Any], location: str) -> Any:
    """The class that the dictionary's own ``register:`` gives a name; only looked up, neither bound nor declared."""
    if not isinstance(d.get("register"), dict) or name not in d["register"]:
        return None
    spec = d["register"][name]
    spec = spec.get("from") if isinstance(spec, dict) else spec
    target, _, attribute = str(spec).partition(":")
    target, attribute = target.strip(), attribute.strip()
    full = f"{plugins.__name__}.{os.path.basename(target)[:-3]}" if target.endswith(".py") else target
    found: Any = sys.modules.get(full)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and _is_module(found):
        why = _refusal(found, None)
        if not why and found in _torch_layers() and not plugins.named_by_user(found):
            why = "which rows name themselves"  # registered, it would mean something else in the models to come
        if why:
            raise RowError(f"{location}: '{name}' is {shown(found)}, {why}, and is not called.")
    return plugins.from_yaml(name, d, location)  # also raises for a class that is not loaded or not a layer


def _is_module(cls: Any) -> bool:
    from torch import nn

    return isinstance(cls, type) and issubclass(cls, nn.Module)


def _refusal(cls: Any, home: ModuleType | None) -> str:
    """Why a class is not allowed; empty if it is."""
    if not _is_module(cls):
        return "not a layer"
    if cls in _torch_layers():
        return ""
    module = cls.__module__
    entry = registry.entry_of(cls)
    if entry and not entry.implied and module.startswith((f"{PACKAGE}.modules.", f"{PACKAGE}.plugins.")):
        return ""
    if plugins.named_by_user(cls):
        return ""
    if entry and not entry.implied:
        return "" if _named_by_user(cls) else (
            f"registered by an installed package and not named by you: set {TRUST} to its name"
        )  # fmt: skip
    if not module.startswith(f"{PACKAGE}.plugins.") and not _is_host_layer(cls, home):
        return "not a layer of the host, of torch.nn or of the registry"
    return ""


def _torch_layers() -> set[type]:
    from torch import nn

    homes = {f"torch.nn.modules.{n}" for n in _TORCH.split()}
    return {
        c
        for n, c in vars(nn).items()
        if isinstance(c, type) and issubclass(c, nn.Module) and not n.startswith(("Lazy", "_"))
        if c.__module__ in homes
    } | {nn.Identity}


def _is_host_layer(cls: type, home: ModuleType | None) -> bool:
    """Whether a host's own packages define a layer class, and it is none of its models."""
    from torch import nn

    from ..patches.safe_classes import READERS

    if home is None:
        return False
    package = home.__name__.rpartition(".")[0]
    within = f"{package}.modules" if package.split(".")[0] == "ultralytics" else package
    module = sys.modules.get(cls.__module__)
    if not isinstance(module, ModuleType) or not f"{cls.__module__}.".startswith(f"{within}."):
        return False
    models = tuple(
        c for n, c in vars(home).items() if n.endswith("Model") and isinstance(c, type) and issubclass(c, nn.Module)
    )
    defined = any(c is cls for c in list(vars(module).values()))
    return defined and not issubclass(cls, models) and not READERS & {b.__name__ for b in cls.__mro__}


def _named_by_user(cls: type) -> bool:
    """Whether a registered class is this process's own, or a package's entry point registers it and TRUST names it."""
    package = cls.__module__.partition(".")[0]
    packaged = {p.value.partition(":")[0].partition(".")[0] for p in plugins.entry_points()}
    if package not in packaged:
        return True
    return trusted(cls)


def trusted(cls: type) -> bool:
    """Whether the user names a registered class in ``YOLO_ATTN_TRUST``."""
    named = {n.strip() for n in os.environ.get(TRUST, "").split(",")}
    return any(e is not None and e.cls is cls for e in map(registry.find, filter(None, named)))


def _parser_names(home: ModuleType | None) -> frozenset[str]:
    """Names that are defined where the host's parser evaluates a row's strings."""
    code = getattr(getattr(home, "parse_model", None), "__code__", None)
    own: Iterable[str] = (*code.co_varnames, *code.co_cellvars, *code.co_freevars) if code is not None else ()
    return frozenset(own) | frozenset(vars(home) if home is not None else ())
