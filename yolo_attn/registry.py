"""The module registry: name -> attention class, with aliases, paper and binding.

Four public verbs: :func:`register`, :func:`get_module`, :func:`list_modules`, :func:`unregister`::

    @register("Gate", aliases=("MyGate",), arxiv="1709.01507", kind="channel")
    class Gate(nn.Module):
        def __init__(self, channels, *, reduction=16): ...  # `- [-1, 1, Gate, [{reduction: 8}]]`; channels come by themselves

Registering is importing: the files in ``yolo_attn/modules`` and the entry points of the group
``yolo_attn.modules`` are imported on the first look-up, never by ``import yolo_attn``.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Callable

from . import safe
from .binding import Binding
from .errors import PluginError, RegistryError, UnknownModuleError, did_you_mean
from .fork import Lock

__all__ = ["ENTRY_POINT_GROUP", "Entry", "find", "get_entry", "get_module", "list_modules", "register", "unregister"]

ENTRY_POINT_GROUP = "yolo_attn.modules"

# The hosts' parsers set these on every layer; a submodule of that name would be overwritten or refuse the value.
RESERVED = ("i", "f", "type", "np")


@dataclass(frozen=True)
class Entry:
    """What the registry knows of one module."""

    name: str
    cls: type
    binding: Binding
    aliases: tuple[str, ...] = ()
    paper: str = ""
    arxiv: str = ""
    kind: str = ""
    oracle: str = ""
    use: str = ""
    lists: bool = True

    @property
    def owner(self) -> str:
        """Where the class lives, `package.module.Class`."""
        return f"{self.cls.__module__}.{self.cls.__qualname__}"


_entries: dict[str, Entry] = {}  # by name
_names: dict[str, str] = {}  # name or alias -> name
_by_class: dict[type, Entry] = {}
_lock = Lock()
# Another one than the former: a thread that imports a module registers it, and must not wait for one that loads all.
_load_lock = Lock()
_loaded = _loading = False


def register(
    name: str | type | None = None,
    cls: type | None = None,
    *,
    aliases: Iterable[str] = (),
    paper: str = "",
    arxiv: str = "",
    kind: str = "",
    oracle: str = "",
    use: str = "",
    takes: str | None = None,
    out_channels: Callable[..., int] | None = None,
    lists: bool = True,
) -> Any:
    """Register an attention class under a name that YAML rows may use.

    Works as ``@register``, ``@register("Name", aliases=...)`` and ``register("Name", cls)``.

    Args:
        name: The name in YAML rows; the class's own name when absent.
        cls: The class, an ``nn.Module``.
        aliases: Further spellings.
        paper: Title of the paper.
        arxiv: Its arXiv id.
        kind: What it attends to: ``channel``, ``spatial``, ``both``, ``block`` or ``fusion``.
        oracle: What its tests compare it with.
        use: One line on when to use it.
        takes: Overrides what the constructor's signature says: ``""`` (no channels), ``"channels"``,
            ``"c1 c2"`` or ``"c1 c2 n"``.
        out_channels: ``f(channels, *args, **kwargs)`` giving the output channels of a module whose output
            differs from its input and that takes no ``c2``.
        lists: Whether the module appears in the generated tables.

    Returns:
        The class, so that it works as a decorator.

    Raises:
        RegistryError: Not an ``nn.Module`` subclass, a reserved submodule name, or a name that is taken.
    """
    if isinstance(name, type):  # @register without parentheses
        return register(None, name, takes=takes)
    if cls is None:

        def decorate(c: type) -> type:
            return register(name, c, aliases=aliases, paper=paper, arxiv=arxiv, kind=kind, oracle=oracle, use=use,
                            takes=takes, out_channels=out_channels, lists=lists)  # fmt: skip

        return decorate
    check_class(cls)
    entry = Entry(name or cls.__name__, cls, Binding.of(cls, takes, out_channels), tuple(aliases), paper, arxiv, kind,
                  oracle, use, lists)  # fmt: skip
    with _lock:
        old = _entries.get(entry.name)
        again = old is not None and old.owner == entry.owner  # a reloaded module or a re-run notebook cell
        for n in (entry.name, *entry.aliases):
            if not isinstance(n, str) or not n.strip() or n != n.strip():
                raise RegistryError(f"cannot register {entry.owner} under {n!r}: a name is a non-empty string")
            if n in _names and not (again and _names[n] == entry.name):
                other = _entries[_names[n]]
                raise RegistryError(
                    f"cannot register {entry.owner} as '{n}': that name belongs to {other.owner}. "
                    f"Choose another name, or call yolo_attn.unregister('{other.name}') first."
                )
        if old is not None:
            _forget(old)
        _entries[entry.name] = _by_class[cls] = entry
        for n in (entry.name, *entry.aliases):
            _names[n] = entry.name
    return cls


def check_class(cls: object) -> None:
    """Raise :class:`RegistryError` unless `cls` can live in a detector.

    Also declares the class safe for ``torch.load(weights_only=True)``.
    """
    from torch import nn

    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise RegistryError(f"cannot register {cls!r}: not a subclass of torch.nn.Module")
    taken = [n for n in RESERVED if isinstance(getattr(cls, n, None), property) or n in _submodules(cls)]
    if taken:
        raise RegistryError(
            f"cannot register {cls.__module__}.{cls.__qualname__}: it uses {', '.join(map(repr, taken))} as an attribute "
            f"of its own, and YOLO's parser sets .i, .f, .type and .np on every layer. Rename it in the class."
        )
    for base in cls.__mro__[1:]:
        if base.__name__ == "Conv" and base.__module__ in _CONV_HOMES and "forward" in vars(cls):
            raise RegistryError(
                f"cannot register {cls.__module__}.{cls.__qualname__}: it overrides the forward of {base.__module__}.Conv, "
                f"and the host's fuse() replaces that forward, so the attention would vanish in val, predict and export. "
                f"Derive from nn.Module and hold a Conv instead."
            )
    # With it what it is built of: the classes that its file defines or takes from the kit.
    near = vars(sys.modules.get(cls.__module__) or object).values()
    parts = [c for c in near if isinstance(c, type) and issubclass(c, nn.Module) and _is_near(c, cls)]
    safe.declare([cls, *parts])


_CONV_HOMES = ("ultralytics.nn.modules.conv", "ultralytics.nn.modules", "models.common", "yolov5.models.common")


def _is_near(part: type, cls: type) -> bool:
    return part is not cls and (part.__module__ == cls.__module__ or part.__module__.startswith(f"{__package__}."))


def _submodules(cls: type) -> set[str]:
    """Names assigned on `self` by the constructors of `cls`, read from their code and so without building it."""
    names: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.startswith("torch.nn"):
            break
        init = vars(base).get("__init__")
        code = getattr(init, "__code__", None)
        if code is None:
            continue
        import dis

        names |= {ins.argval for ins in dis.get_instructions(code) if ins.opname == "STORE_ATTR"}
    return names


def unregister(name: str) -> None:
    """Forget a module and its aliases.

    Raises:
        UnknownModuleError: No module of that name.
    """
    entry = get_entry(name)
    with _lock:
        _forget(entry)


def _forget(entry: Entry) -> None:
    _entries.pop(entry.name, None)
    _by_class.pop(entry.cls, None)
    for n in [n for n, owner in _names.items() if owner == entry.name]:
        del _names[n]


def find(name: str) -> Entry | None:
    """Return the entry of a name or alias, or None."""
    load_all()
    with _lock:
        owner = _names.get(name)
        return _entries[owner] if owner is not None else None


def get_entry(name: str) -> Entry:
    """Return the entry of a name or alias.

    Raises:
        UnknownModuleError: With the nearest known names.
    """
    entry = find(name)
    if entry is None:
        raise UnknownModuleError(
            f"no attention module is called '{name}'.{did_you_mean(name, known_names())} "
            f"'yolo-attn list' shows all of them."
        )
    return entry


def get_module(name: str) -> type:
    """Return the class registered under a name or alias.

    Raises:
        UnknownModuleError: With the nearest known names.
    """
    return get_entry(name).cls


def list_modules(*, kind: str | None = None) -> list[str]:
    """Return the registered names, sorted, aliases left out.

    Args:
        kind: Only modules of this kind.
    """
    load_all()
    return sorted((n for n, e in list(_entries.items()) if kind is None or e.kind == kind), key=str.lower)


def binding_of(cls: type) -> Binding | None:
    """Return how a registered class is bound to its row, or None if no registered class is this one."""
    entry = _by_class.get(cls)
    return entry.binding if entry is not None else None


def known_names() -> list[str]:
    """Return every name and alias, sorted."""
    load_all()
    return sorted(_names)


def load_all() -> None:
    """Import the kit's own modules and the installed entry points, once; other threads wait until all are there.

    Raises:
        PluginError: An installed package brings a module that cannot be used.
    """
    global _loaded, _loading
    if _loaded:
        return
    with _load_lock:
        if _loaded or _loading:  # the latter in this very thread: a module that looks names up while it is imported
            return
        _loading = True
        try:
            package = importlib.import_module(__package__ + ".modules")
            for info in pkgutil.iter_modules(package.__path__):
                if not info.name.startswith("_"):
                    importlib.import_module(f"{package.__name__}.{info.name}")
            _load_entry_points()
            _loaded = True
        finally:
            _loading = False


def entry_points() -> list[Any]:
    """Return the installed entry points of the group ``yolo_attn.modules``, not loaded."""
    from importlib import metadata

    points = metadata.entry_points()
    select = getattr(points, "select", None)  # a plain dictionary before Python 3.10
    return list(select(group=ENTRY_POINT_GROUP) if select else points.get(ENTRY_POINT_GROUP, ()))  # type: ignore[attr-defined]


def _load_entry_points() -> None:
    for point in entry_points():
        try:
            loaded = point.load()
            if isinstance(loaded, type) and point.name not in _names:  # unless the class registered itself
                register(point.name, loaded)
        except Exception as exc:
            raise PluginError(
                f"the entry point '{point.name} = {point.value}' in group '{ENTRY_POINT_GROUP}' cannot be used: "
                f"{type(exc).__name__}: {exc}. Uninstall or mend the package that brings it."
            ) from exc
