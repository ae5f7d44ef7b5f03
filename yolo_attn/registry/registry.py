"""The module registry: name -> attention class, with aliases, paper and binding.

Public functions: :func:`register`, :func:`get_module`, :func:`list_modules`, :func:`unregister`::

    @register("Gate", aliases=("MyGate",), arxiv="1709.01507", kind="channel")
    class Gate(nn.Module):
        def __init__(self, channels, *, reduction=16): ...  # - [-1, 1, Gate, [{reduction: 8}]]; the kit fills in channels

Modules are registered by importing them. :mod:`.sources` knows what to import and does so on the first look-up, never
during ``import yolo_attn``. The registry itself imports no module and no plug-in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from .._name import PACKAGE
from ..errors import RegistryError, UnknownModuleError, did_you_mean
from ..system.fork import Lock
from . import sources, spellings
from .binding import Binding
from .forms import Form, check_words
from .layer_class import check_class

__all__ = [
    "Entry",
    "binding_of",
    "entry_of",
    "find",
    "get_entry",
    "get_module",
    "list_modules",
    "plain_name",
    "register",
    "unregister",
]

PREFIX = "yolo_attn."  # before a name in a row: the kit's module, even where the host has one of that name


def plain_name(name: str) -> str:
    """Return a module's name without the kit's prefix.

    ``yolo_attn.SE`` becomes ``SE``. In a copy of the kit that is imported under another name, that name is removed as
    well, in full or by its last part: ``vendor.attn.SE`` and ``attn.SE``.
    """
    for prefix in (f"{PACKAGE}.", PREFIX, f"{PACKAGE.rpartition('.')[2]}."):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


@dataclass(frozen=True)
class Entry:
    """One registered module; the fields are the arguments of :func:`register`."""

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
    implied: bool = False

    @property
    def owner(self) -> str:
        """The full name of the class, ``package.module.Class``."""
        return f"{self.cls.__module__}.{self.cls.__qualname__}"


@dataclass
class _State:
    """What is registered. Survives a reload of this file, since other threads may hold its lock."""

    entries: dict[str, Entry] = field(default_factory=dict)  # by name
    names: dict[str, str] = field(default_factory=dict)  # name or alias -> name
    by_class: dict[type, Entry] = field(default_factory=dict)
    bindings: dict[type, Binding] = field(default_factory=dict)  # of classes that a YAML names under `register:`
    said: dict[type, dict[str, Any]] = field(default_factory=dict)  # what the YAML states about them
    lock: Lock = field(default_factory=Lock)


_state: _State = globals().get("_state") or _State()


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
    out_channels: Callable[..., int] | int | str | None = None,
    positional: Iterable[str] = (),
    layout: str = "map",
    inputs: int | None = None,
    output: int | None = None,
    copy: bool = False,
    lists: bool = True,
    implied: bool = False,
) -> Any:
    """Register an attention class under a name that YAML rows may use.

    Works as ``@register``, ``@register("Name", aliases=...)`` and ``register("Name", cls)``.

    Args:
        name: The name in YAML rows. Default: the name of the class.
        cls: The class, a subclass of ``nn.Module``.
        aliases: Other names for it.
        paper: Title of the paper.
        arxiv: arXiv id of the paper, such as ``1709.01507``.
        kind: What it attends to: ``channel``, ``spatial``, ``both``, ``block`` or ``fusion``.
        oracle: The reference that its tests compare it with.
        use: When to use it, in one line.
        takes: The leading arguments that the kit fills in, where the constructor's signature does not tell: ``""``
            (none), ``"channels"``, ``"c1 c2"`` or ``"c1 c2 n"``.
        out_channels: The output channels of a module that changes their number, where no row states them: a number,
            ``"c1/2"``, ``"c1*2"``, or a function ``f(channels, *args, **kwargs)``.
        positional: What further numbers in a row mean, where they are not the options in their order: one string for
            each count of numbers, such as ``("kernel_size", "reduction kernel_size")``. Each word names an option.
            ``1/option`` and ``width/option`` stand for a number that gives the option as a fraction; ``option?``
            is ignored where the value is not a number; ``-`` is always ignored. Ignored values are announced.
        layout: Layout of the input and output of `forward`: ``map`` (B, C, H, W), ``sequence`` (B, H*W, C) or ``last``
            (B, H, W, C).
        inputs: Number of maps that `forward` takes as separate arguments; with a single `from`, the same map each time.
        output: Index of the output that is passed on, from 0, where there are several.
        copy: Whether the module changes its input in place and is therefore given a copy.
        lists: Whether the module appears in the generated tables.
        implied: The class was found in a plug-in that does not register it by name. A row then prefers the host's
            class of the same name.

    Returns:
        The class, or a decorator where `cls` is not given.

    Raises:
        RegistryError: `cls` is not a subclass of ``nn.Module``, defines a name that the hosts reserve, or the name or
            an alias is taken.
    """
    if isinstance(name, type):  # @register without parentheses
        return register(None, name, takes=takes, out_channels=out_channels, layout=layout, inputs=inputs,
                        output=output, copy=copy)  # fmt: skip
    if cls is None:

        def decorate(c: type) -> type:
            return register(name, c, aliases=aliases, paper=paper, arxiv=arxiv, kind=kind, oracle=oracle, use=use,
                            takes=takes, out_channels=out_channels, positional=positional, layout=layout,
                            inputs=inputs, output=output, copy=copy, lists=lists, implied=implied)  # fmt: skip

        return decorate
    check_class(cls)
    if not cls.__module__.startswith(f"{PACKAGE}.modules."):
        sources.load_first()
    form = Form(layout, inputs, output, copy)
    binding = Binding.of(cls, takes, out_channels, positional, None if form == Form() else form)
    entry = Entry(name or cls.__name__, cls, binding, tuple(aliases), paper, arxiv, kind, oracle, use, lists, implied)
    with _state.lock:
        old = _state.entries.get(entry.name)
        again = old is not None and old.owner == entry.owner  # a reloaded module or a re-run notebook cell
        for n in (entry.name, *entry.aliases):
            if not isinstance(n, str) or not n.strip() or n != n.strip():
                raise RegistryError(f"cannot register {entry.owner} under {n!r}: a name is a non-empty string")
            if n in _state.names and not (again and _state.names[n] == entry.name):
                other = _state.entries[_state.names[n]]
                raise RegistryError(
                    f"cannot register {entry.owner} as '{n}': that name belongs to {other.owner}. "
                    f"Choose another name, or call yolo_attn.unregister('{other.name}') first."
                )
        if old is not None:
            _forget(old)
        _state.entries[entry.name] = _state.by_class[cls] = entry
        for n in (entry.name, *entry.aliases):
            _state.names[n] = entry.name
    return cls


def unregister(name: str) -> None:
    """Remove a module and its aliases from the registry.

    Raises:
        UnknownModuleError: No module has that name.
    """
    entry = get_entry(name)
    with _state.lock:
        _forget(entry)


def _forget(entry: Entry) -> None:
    _state.entries.pop(entry.name, None)
    _state.by_class.pop(entry.cls, None)
    for n in [n for n, owner in _state.names.items() if owner == entry.name]:
        del _state.names[n]


def find(name: str) -> Entry | None:
    """Return the entry of a name or alias, or None."""
    sources.load_all()
    with _state.lock:
        owner = _state.names.get(name)
        return _state.entries[owner] if owner is not None else _spelled(name)


def _spelled(name: str) -> Entry | None:
    """Return the entry of a block with a module's name joined to it, such as ``C3_GC``: the block, its module preset.

    A row prefers the host's class of the same name.
    """
    for block, module, options in spellings.split(name):
        owner = _state.names.get(block)
        inner = next((_state.names[n] for n in _state.names if n.lower() == module.lower()), None)
        inner = _state.names.get(module, inner)
        if owner is not None and inner is not None and _state.entries[inner].kind in ("", "channel", "spatial", "both"):
            entry = _state.entries[owner]
            return replace(entry, binding=entry.binding.preset(module=inner, **options), implied=True)
    return None


def get_entry(name: str) -> Entry:
    """Return the entry of a name or alias.

    Raises:
        UnknownModuleError: No module has that name; the message suggests the nearest ones.
    """
    entry = find(plain_name(name))
    if entry is None:
        raise UnknownModuleError(
            f"no attention module is called '{name}'.{did_you_mean(name, known_names())}{sources.why_missing(name)} "
            f"'yolo-attn list' shows all of them."
        )
    return entry


def get_module(name: str) -> type:
    """Return the class registered under a name or alias.

    Raises:
        UnknownModuleError: No module has that name, or it is a spelling such as ``C3_GC``, which is not a class.
    """
    entry = get_entry(name)
    if entry.binding.sets:
        given = ", ".join(f"{k}={v!r}" for k, v in entry.binding.sets)
        raise UnknownModuleError(
            f"'{name}' is not a class but {entry.cls.__name__} with {given}; use that class and name the options."
        )
    return entry.cls


def list_modules(*, kind: str | None = None) -> list[str]:
    """Return the registered names, sorted, without aliases.

    Args:
        kind: Return only modules of this kind, one of those of :func:`register`.
    """
    sources.load_all()
    return sorted((n for n, e in list(_state.entries.items()) if kind is None or e.kind == kind), key=str.lower)


def entry_of(cls: type) -> Entry | None:
    """Return the entry of a class, or None if the class is not registered."""
    return _state.by_class.get(cls)


def entries_of(module: str) -> list[Entry]:
    """Return the entries whose class is defined in a module or below it, without importing anything.

    Args:
        module: Full name of the module, with a trailing dot.
    """
    with _state.lock:
        return [e for e in _state.entries.values() if f"{e.cls.__module__}.".startswith(module)]


def binding_of(cls: Any) -> Binding | None:
    """Return the binding of a class that is registered or that a YAML names under ``register:``; None for any other."""
    if not isinstance(cls, type):
        return None
    said = _state.bindings.get(cls)
    entry = _state.by_class.get(cls) if said is None else None
    return entry.binding if entry is not None else said


def bind_class(cls: type, words: Mapping[str, Any] | None = None) -> Binding:
    """Record the binding of a class without giving it a name, for a class that a YAML names under ``register:``.

    Args:
        cls: The class.
        words: What the YAML states about it, as the arguments of :func:`register`.

    Raises:
        RegistryError: The class cannot be a layer of a detector.
    """
    check_class(cls)
    words = dict(words or {})
    entry = _state.by_class.get(cls)
    if entry is not None and not words:
        as_registered(cls)
        return entry.binding
    known = _state.bindings.get(cls)
    if known is None or _state.said.get(cls) != words:
        known = _bound(cls, words)
        _state.bindings[cls], _state.said[cls] = known, words
    return known


def _bound(cls: type, words: dict[str, Any]) -> Binding:
    check_words(words)
    form = Form.of(words)
    return Binding.of(cls, words.get("takes"), words.get("out_channels"), (), None if form == Form() else form)


def as_registered(cls: type) -> None:
    """Forget what a model file said of a class: a row names it by the name that it is registered under."""
    if cls in _state.bindings and cls in _state.by_class:
        _state.bindings.pop(cls, None)


def known_names() -> list[str]:
    """Return every name and alias, sorted."""
    sources.load_all()
    return sorted(_state.names)
