"""The two functions that a spliced parser calls: one turns a row's name into a class, one its numbers into arguments."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from types import ModuleType
from typing import Any, Callable

from ..errors import RowError, UnknownModuleError, YoloAttnError, first_line, shown
from ..log import announce
from ..registry import allowed, installed, plugins, registry, sources
from ..registry.binding import Binding, Call, Mismatch
from ..registry.forms import Calls, adapt, is_users
from ..registry.layer_class import RESERVED
from ..registry.registry import PREFIX, plain_name
from ..system.stillness import lifted, stillness
from . import elsewhere
from .fitting import fitting_row, signature_of
from .module_trial import Row, try_out
from .resolve import rival

__all__ = ["Reader", "find", "location_of", "place", "reading", "watched"]

# Names in a row's arguments that a host's parser resolves and that public YAMLs use.
RESOLVED = frozenset({"nc", "anchors", "None", "True", "False"})


# The file being built, for hosts whose model dictionary does not name it.
_file: ContextVar[str] = ContextVar("file", default="model YAML")


# Whether the model is untrusted, such as a dictionary from a checkpoint: its rows may name layers only.
_layers_only: ContextVar[bool] = ContextVar("layers_only", default=False)


@contextlib.contextmanager
def reading(file: str, *, layers_only: bool = False) -> Iterator[None]:
    """Set the file name in the messages about rows that are parsed within this context.

    Args:
        file: Name of the model file.
        layers_only: Refuse rows that name a class which :mod:`~yolo_attn.registry.allowed` does not allow; for
            untrusted models.
    """
    tokens = _file.set(file), _layers_only.set(layers_only)
    try:
        with stillness(file) if layers_only else contextlib.nullcontext():
            yield
    finally:
        _file.reset(tokens[0])
        _layers_only.reset(tokens[1])


class Reader:
    """Reads the rows of a model before it is built, and lets the parser go on after a wrong or unknown row."""

    def unknown(self, name: str, i: int) -> type:
        """Return a class to use for an unknown name.

        Args:
            name: Third column of the row.
            i: Number of the row.
        """
        raise NotImplementedError

    def place(self, m: Any, channels: Any, n: int, args: list[Any], i: int, widen: Callable[[Any], Any]) -> Any:
        """Return what :func:`place` returns, or None if the row is the host's; the arguments are those of :func:`place`."""
        raise NotImplementedError


_reader: ContextVar[Reader | None] = ContextVar("reader", default=None)


@contextlib.contextmanager
def watched(reader: Reader) -> Iterator[None]:
    """Pass every row that is parsed within this context to a reader first."""
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


class Text:
    """Wraps a string argument, which the host's parser would otherwise evaluate."""

    def __init__(self, value: str) -> None:
        self.value = value


def find(name: Any, args: list[Any], i: int, d: dict[str, Any], host_lookup: Callable[[], Any]) -> Any:
    """Return the class that a row names: the registry's, or the result of the host's own look-up.

    Args:
        name: Third column of the row.
        args: Fourth column; changed in place.
        i: Number of the row.
        d: The model dictionary.
        host_lookup: The host's own look-up of the name.

    Raises:
        UnknownModuleError: Neither the registry nor the host knows the name.
        RowError: Both know it, as different classes.
    """
    if not isinstance(name, str):
        return host_lookup()
    with lifted():  # the kit's own modules, and plug-ins that the user named, may be imported first
        cls, entry = registered(name, d, i)
    if cls is None:
        try:
            found = host_lookup()
        except (KeyError, NameError, AttributeError, SyntaxError) as exc:
            reader = _reader.get()
            if reader is not None:
                return reader.unknown(name, i)
            home = _home(host_lookup)
            raise UnknownModuleError(
                f"{location_of(d, i)}: no module is called '{name}'.{elsewhere.advice(plain_name(name), _known(d, home), home)}"
                f"{sources.why_missing(plain_name(name))} "
                f"'yolo-attn list' shows the attention modules; add your own under 'register:' in the YAML "
                f"or with --plugin FILE."
            ) from exc
        if _layers_only.get():
            allowed.check_class(found, name, location_of(d, i), _home(host_lookup))
        return found
    if _layers_only.get():
        allowed.check_class(cls, name, location_of(d, i), _home(host_lookup))
        allowed.check_spelled(entry, name, location_of(d, i), _home(host_lookup))
    if plain_name(name) == name:
        try:
            hosts = host_lookup()
        except Exception:  # usually, the host does not know the name
            hosts = cls
        if rival(hosts, cls):
            # A plug-in, or a package that the user did not name, that happens to define, say, its own Conv
            if entry is not None and (entry.implied or installed.brings(cls)):
                if _layers_only.get():
                    allowed.check_class(hosts, name, location_of(d, i), _home(host_lookup))
                return hosts
            from ..patches.yolov5_shared import hand_edit

            raise RowError(
                f"{location_of(d, i)}: '{name}' is ambiguous: the host has {hosts.__module__}.{hosts.__qualname__}, "
                f"the registry {cls.__module__}.{cls.__qualname__}. {hand_edit(hosts)}Write '{PREFIX}{name}' for the latter."
            )
    if entry is not None:
        args[:] = entry.binding.with_sets(args)  # C3_GC is C3Attention with {module: GC}
    args[:] = [Text(a) if isinstance(a, str) and a not in RESOLVED else a for a in args]
    return cls


def place(
    m: Any, ch: list[int], f: Any, n: int, args: list[Any], i: int, d: dict[str, Any], widen: Callable[[Any], Any]
) -> tuple[Any, Any, int, list[Any]]:
    """Return what the parser goes on with: builder, output channels, repeats, arguments.

    For a class that is not registered this is exactly the host's default, the output channels ``ch[f]``.

    Args:
        m: The class.
        ch: Output channels of the rows so far.
        f: The row's `from`.
        n: Repeats, after depth scaling.
        args: The row's arguments.
        i: Number of the row.
        d: The model dictionary.
        widen: The host's width rule, ``f(channels) -> channels``.

    Raises:
        RowError: The row's numbers contradict the graph, or its `from` is not an earlier row.
    """
    binding, reader = registry.binding_of(m), _reader.get()
    if reader is not None:
        row = [a.value if isinstance(a, Text) else a for a in args]
        read: tuple[Any, Any, int, list[Any]] | None = reader.place(m, _channels(ch, f, i), n, row, i, widen)
        if read is not None:
            return read
    if binding is None:
        return m, ch[f], n, args
    location = location_of(d, i)
    args = [a.value if isinstance(a, Text) else a for a in args]
    if args and isinstance(args[-1], dict):
        args[-1] = _own_module(args[-1], d, location)
    try:
        channels = _channels(ch, f, i)
        call = binding.bind(args, _as_one(m, binding, channels), n, widen)
    except Mismatch as exc:
        raise RowError(f"{location}: {m.__name__}: {exc}.{_beside(m, binding, args, ch, f, n, i, d, widen)}") from exc
    for note in call.notes:
        _tell(f"{location}: {m.__name__}: {note}")
    shown = [*call.args, dict(call.kwargs)] if call.kwargs else list(call.args)
    if "model_scale" in binding.signature.parameters:
        call.kwargs.setdefault("model_scale", str(d.get("scale") or next(iter(d.get("scales") or ()), "")))
    if "host_kernels" in binding.signature.parameters:
        call.kwargs.setdefault("host_kernels", _kernels(widen))
    beside = partial(_beside, m, binding, args, list(ch), f, n, i, d, widen)
    return Builder(m, call, location, _row(m, binding, location, channels, call, i, d), beside), call.c2, call.n, shown


def _beside(
    m: Any, binding: Binding, args: list[Any], ch: list[int], f: Any, n: int, i: int, d: dict[str, Any], widen: Callable[[Any], Any]
) -> str:
    """The constructor beside the row, and the row that fits it, for the end of a message."""
    told = f" Its constructor: {signature_of(m, binding)}."
    if _layers_only.get():  # nothing of an untrusted model is built but what it says itself
        return told
    try:
        channels = _as_one(m, binding, _channels(ch, f, i))
    except Mismatch:  # the row's `from` is wrong, and not its arguments
        return ""
    rows = [*(d.get("backbone") or ()), *(d.get("head") or ())]
    name = rows[i][2] if i < len(rows) else m.__name__
    row = fitting_row(m, binding, args, channels, n, widen, [f, n if i >= len(rows) else rows[i][1], name])
    return f"{told} This row builds: {row}" if row else told


def _kernels(widen: Callable[[Any], Any]) -> tuple[int, int]:
    """The kernels of the host's own bottleneck: (3, 3) where it takes them as an option, and (1, 3) in YOLOv5."""
    bottleneck: Any = getattr(widen, "__globals__", {}).get("Bottleneck")
    try:
        default = inspect.signature(bottleneck).parameters["k"].default
        return int(default[0]), int(default[1])
    except (TypeError, ValueError, KeyError, IndexError):
        return 1, 3


def _as_one(m: type, binding: Binding, channels: Any) -> Any:
    """The channels that a user's class is built with where its `forward` takes equal inputs one by one."""
    if isinstance(channels, list) and is_users(m) and len(set(channels)) == 1:
        return channels[0] if Calls.of(m).one_by_one(len(channels), binding.form) else channels
    return channels


def _row(m: type, binding: Binding, location: str, channels: Any, call: Call, i: int, d: dict[str, Any]) -> Row | None:
    """Where a user's module is to be tried; None for the kit's own, and for a head, which gives what it likes."""
    if not is_users(m):
        return None
    rows = [*(d.get("backbone") or ()), *(d.get("head") or ())]
    entry = registry.entry_of(m)
    if i >= len(rows) - 1 or (entry is not None and entry.kind == "head"):
        return None
    register = d.get("register")
    name = plain_name(str(rows[i][2]))
    return Row(location, name, channels, call.c2, register if isinstance(register, dict) else {}, binding.form, i)


_told: set[str] = set()


def _tell(line: str) -> None:
    """Announce a line about a row once, however often the model is built."""
    if line not in _told and not logging.root.manager.disable:  # not while a model is only measured
        _told.add(line)
        announce("%s", line)


class Builder:
    """Stands in for a class until the parser has built the row: builds the class, and prints as it in the table."""

    cls: type
    call: Call
    location: str
    row: Row | None
    beside: Callable[[], str]

    def __init__(
        self, cls: type, call: Call, location: str, row: Row | None = None, beside: Callable[[], str] = str
    ) -> None:
        vars(self).update(cls=cls, call=call, location=location, row=row, beside=beside)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set attributes on the class: ultralytics before 8.3.9 sets `np` on the class of a row and reads it back."""
        setattr(self.cls, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cls, name)

    def __call__(self, *_: Any) -> Any:
        try:
            with lifted() if _layers_only.get() and allowed.trusted(self.cls) else contextlib.nullcontext():
                built = self.cls(*self.call.args, **self.call.kwargs)
        except UnknownModuleError as exc:  # a block's `module:`
            raise UnknownModuleError(f"{self.location}: {exc}") from exc
        except YoloAttnError:
            raise
        except (MemoryError, OSError):
            raise
        except Exception as exc:  # a constructor can raise anything
            for name in RESERVED:
                if isinstance(exc, KeyError) and f"'{name}'" in str(exc):  # torch refuses to add it
                    raise self._occupied(name) from exc
            given = [*map(shown, self.call.args), *(f"{k}={shown(v)}" for k, v in self.call.kwargs.items())]
            usual = (TypeError, ValueError, AssertionError, ZeroDivisionError)
            told = f"{exc}"[:600] if isinstance(exc, usual) else f"{type(exc).__name__}: {first_line(exc)}"
            raise RowError(
                f"{self.location}: {self.cls.__name__}({', '.join(given)}) cannot be built: {told.rstrip('.')}.{self._taken()}{self.beside()}"
            ) from exc
        self._check(built)
        if self.row is not None:
            adapt(built, self.row.form, self.row.count)
            try_out(built, self.row)
        return built

    def _taken(self) -> str:
        """How the numbers of the row were read, for an error that may come from it."""
        taken = ", ".join(f"{k} = {shown(v)}" for k, v in self.call.taken.items())
        return f" The row's numbers are read as {taken}; name options to be sure: [{{option: value}}]." if taken else ""

    def _check(self, built: Any) -> None:
        """Refuse a layer with attributes that the host is about to overwrite.

        Raises:
            RowError: It has one; the message names the attribute, the class and the remedy.
        """
        own = vars(built)
        places = (own, *(own.get(k) or {} for k in ("_modules", "_parameters", "_buffers")))
        for name in RESERVED:
            if any(name in place for place in places):
                raise self._occupied(name)

    def _occupied(self, name: str) -> RowError:
        return RowError(
            f"{self.location}: {self.cls.__module__}.{self.cls.__qualname__} has an attribute '{name}' of its own, and the "
            f"host sets .i, .f, .type and .np on every layer. Rename it in the class."
        )

    def __str__(self) -> str:
        return str(self.cls)


def location_of(d: dict[str, Any], i: int) -> str:
    """Return the location that messages name, ``file, row i (backbone) [from, number, module]``."""
    part = "backbone" if i < len(d.get("backbone") or ()) else "head"
    rows = [*(d.get("backbone") or ()), *(d.get("head") or ())]
    text = f" {rows[i][:3]}" if i < len(rows) else ""
    return f"{d.get('yaml_file') or _file.get()}, row {i} ({part}){text}"


def _own_module(options: dict[str, Any], d: dict[str, Any], location: str) -> dict[str, Any]:
    """Replace a block's `module:` by the class if the YAML itself registers the name."""
    name = plain_name(options["module"]) if isinstance(options.get("module"), str) else None
    own = plugins.from_yaml(name, d, location) if isinstance(name, str) and d.get("register") else None
    return options if own is None else {**options, "module": own}


def _home(host_lookup: Callable[[], Any]) -> ModuleType | None:
    """The module of the parser that the look-up is part of."""
    return sys.modules.get(getattr(host_lookup, "__globals__", {}).get("__name__", ""))


def _channels(ch: list[int], f: Any, i: int) -> Any:
    def one(x: Any) -> int:
        if not isinstance(x, int) or isinstance(x, bool):
            raise Mismatch(f"'from' must be row numbers, got {shown(f)}")
        if x >= i and not (i == 0 and x == -1):
            raise Mismatch(f"'from' is {x}, but only rows 0 to {i - 1} exist before it")
        try:
            return ch[x]
        except IndexError:
            raise Mismatch(f"'from' is {x}, which lies before the first row") from None

    return [one(x) for x in f] if isinstance(f, (list, tuple)) else one(f)


def registered(name: str, d: dict[str, Any], i: int) -> tuple[type | None, registry.Entry | None]:
    """Return the class of a name in a row, and its entry; a class under ``register:`` may have no entry."""
    plain = plain_name(name)
    own = plugins.from_yaml(plain, d, location_of(d, i)) if d.get("register") else None
    if own is not None:
        return own, registry.entry_of(own)
    entry = registry.find(plain)
    if entry is None:
        return None, None
    registry.as_registered(entry.cls)
    return entry.cls, entry


def _known(d: dict[str, Any], home: ModuleType | None) -> list[str]:
    """Every name that a row may have: of the registry, the YAML, and the host's parser."""
    hosts = elsewhere.ULTRALYTICS | elsewhere.CLASSIC
    return [
        *registry.known_names(),
        *(d.get("register") or {}),
        *sorted(hosts & vars(home or object).keys()),
        "nn.Upsample",
    ]
