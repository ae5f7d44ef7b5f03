"""The module registry: name -> attention class, with aliases, paper and binding.

Four public verbs: :func:`register`, :func:`get_module`, :func:`list_modules`, :func:`unregister`::

    @register("Gate", aliases=("MyGate",), arxiv="1709.01507", kind="channel")
    class Gate(nn.Module):
        def __init__(self, channels, *, reduction=16): ...  # `- [-1, 1, Gate, [{reduction: 8}]]`; channels come by themselves

Registering is importing. What to import, :mod:`.sources` is told; it happens on the first look-up, never by
``import yolo_attn``. The registry itself imports no module and no plug-in.
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

PREFIX = "yolo_attn."  # before a name in a row: the kit's module and not the host's of that name


def plain_name(name: str) -> str:
    """Return a module's name as the registry has it, without the kit's prefix.

    ``yolo_attn.SE`` is ``SE``; in a copy of the kit that is imported under another name, that name's prefix goes as
    well, in full or its last part: ``vendor.attn.SE`` and ``attn.SE``.
    """
    for prefix in (f"{PACKAGE}.", PREFIX, f"{PACKAGE.rpartition('.')[2]}."):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


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
    implied: bool = False

    @property
    def owner(self) -> str:
        """Where the class lives, `package.module.Class`."""
        return f"{self.cls.__module__}.{self.cls.__qualname__}"


@dataclass
class _State:
    """What is registered; kept where this file is reloaded, with the lock that other threads may hold."""

    entries: dict[str, Entry] = field(default_factory=dict)  # by name
    names: dict[str, str] = field(default_factory=dict)  # name or alias -> name
    by_class: dict[type, Entry] = field(default_factory=dict)
    bindings: dict[type, Binding] = field(default_factory=dict)  # of classes that a model file names, by class
    said: dict[type, dict[str, Any]] = field(default_factory=dict)  # what that file says of them
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
        out_channels: The output channels of a module that gives others than it takes, where no row states them:
            a number, ``"c1/2"``, ``"c1*2"``, or ``f(channels, *args, **kwargs)``.
        positional: What further numbers in a row mean, one text for each count of them, where it is not the options
            in their order: ``("kernel_size", "reduction kernel_size")``. A word is an option; ``1/option`` or
            ``width/option`` for a number that states it as a part; ``option?`` for one that is read over where it
            is no number; ``-`` for one that is read over. What is read over is said in one line.
        layout: What `forward` takes and gives: ``map`` (B, C, H, W), ``sequence`` (B, H*W, C) or ``last`` (B, H, W, C).
        inputs: How many maps `forward` takes one by one; with a single `from`, the same one as often.
        output: Which of several outputs goes on, from 0.
        copy: Whether the module changes its input in place, and is therefore given a copy.
        lists: Whether the module appears in the generated tables.
        implied: The class was found in a plug-in, whose author gave it no name: a host's class of that name goes
            first in a row.

    Returns:
        The class, so that it works as a decorator.

    Raises:
        RegistryError: Not an ``nn.Module`` subclass, a reserved submodule name, or a name that is taken.
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
    """Forget a module and its aliases.

    Raises:
        UnknownModuleError: No module of that name.
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
    """Return the entry of a block whose name the field joins with a module's, such as ``C3_GC``: one that sets it.

    A host's class of that name goes first in a row.
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
        UnknownModuleError: With the nearest known names.
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
        UnknownModuleError: With the nearest known names; or a block's spelling such as ``C3_GC``, which is no class.
    """
    entry = get_entry(name)
    if entry.binding.sets:
        given = ", ".join(f"{k}={v!r}" for k, v in entry.binding.sets)
        raise UnknownModuleError(f"'{name}' is no class but {entry.cls.__name__} with {given}: give it that by name.")
    return entry.cls


def list_modules(*, kind: str | None = None) -> list[str]:
    """Return the registered names, sorted, aliases left out.

    Args:
        kind: Only modules of this kind.
    """
    sources.load_all()
    return sorted((n for n, e in list(_state.entries.items()) if kind is None or e.kind == kind), key=str.lower)


def entry_of(cls: type) -> Entry | None:
    """Return the entry of a class, or None if no registered class is this one."""
    return _state.by_class.get(cls)


def entries_of(module: str) -> list[Entry]:
    """Return the entries whose class lives in a module or below it, of those that are here; nothing is imported.

    Args:
        module: Full name, with a dot at its end.
    """
    with _state.lock:
        return [e for e in _state.entries.values() if f"{e.cls.__module__}.".startswith(module)]


def binding_of(cls: Any) -> Binding | None:
    """Return how a class is bound to its row: one that is registered, or that a model file names; None for others."""
    if not isinstance(cls, type):
        return None
    said = _state.bindings.get(cls)
    entry = _state.by_class.get(cls) if said is None else None
    return entry.binding if entry is not None else said


def bind_class(cls: type, words: Mapping[str, Any] | None = None) -> Binding:
    """Record how a class is bound to its row without giving it a name; for classes that a model file names itself.

    Args:
        cls: The class.
        words: What the file says beside its name, as for :func:`register`.

    Raises:
        RegistryError: A class that cannot live in a detector.
    """
    check_class(cls)
    words = dict(words or {})
    known = _state.bindings.get(cls)
    if known is None or _state.said.get(cls) != words:
        entry = _state.by_class.get(cls)
        known = entry.binding if entry is not None and not words else _bound(cls, words)
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
