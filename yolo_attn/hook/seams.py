"""What happens at the parse hook's two seams: a row's name becomes a class, its numbers become arguments."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Callable

from ..errors import RowError, UnknownModuleError, YoloAttnError, first_line
from ..log import announce
from ..registry import allowed, installed, plugins, registry, sources
from ..registry.binding import Binding, Call, Mismatch
from ..registry.forms import Calls, adapt, is_users
from ..registry.layer_class import RESERVED
from ..registry.registry import PREFIX, plain_name
from ..system.stillness import stillness
from . import elsewhere
from .module_trial import Row, try_out
from .resolve import rival

__all__ = ["Reader", "find", "place", "reading", "watched", "where"]

# Names in a row's arguments that a host's parser resolves and that its users rely on.
RESOLVED = frozenset({"nc", "anchors", "None", "True", "False"})


# The file being built, for hosts whose model dictionary does not name it.
_file: ContextVar[str] = ContextVar("file", default="model YAML")


# Whether the model came without a file, perhaps out of somebody's checkpoint: its rows may name layers only.
_layers_only: ContextVar[bool] = ContextVar("layers_only", default=False)


@contextlib.contextmanager
def reading(file: str, *, layers_only: bool = False) -> Iterator[None]:
    """Name the model file in the messages of rows parsed meanwhile.

    Args:
        file: The file.
        layers_only: The model is somebody else's: refuse rows that name a class which :mod:`.allowed` does not list.
    """
    tokens = _file.set(file), _layers_only.set(layers_only)
    try:
        with stillness(file) if layers_only else contextlib.nullcontext():
            yield
    finally:
        _file.reset(tokens[0])
        _layers_only.reset(tokens[1])


class Reader:
    """Who reads a model's rows before it is to be built, and lets the parser go on where a row is wrong or unknown."""

    def unknown(self, name: str, i: int) -> type:
        """Return a class that stands in for one that nobody knows."""
        raise NotImplementedError

    def place(self, m: Any, channels: Any, n: int, args: list[Any], i: int, widen: Callable[[Any], Any]) -> Any:
        """Return what :func:`place` returns; None where the row is the host's."""
        raise NotImplementedError


_reader: ContextVar[Reader | None] = ContextVar("reader", default=None)


@contextlib.contextmanager
def watched(reader: Reader) -> Iterator[None]:
    """Let `reader` see, and place, every row of others than the host that is parsed meanwhile."""
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


class Text:
    """A string argument kept from the host's parser, which would evaluate it."""

    def __init__(self, value: str) -> None:
        self.value = value


def find(name: Any, args: list[Any], i: int, d: dict[str, Any], host_lookup: Callable[[], Any]) -> Any:
    """Return the class that row `i` names: the registry's, or what the host's own look-up gives.

    Raises:
        UnknownModuleError: Neither knows the name.
        RowError: Both know it, as different classes.
    """
    if not isinstance(name, str):
        return host_lookup()
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
                f"{where(d, i)}: no module is called '{name}'.{elsewhere.advice(plain_name(name), _known(d, home), home)}"
                f"{sources.why_missing(plain_name(name))} "
                f"'yolo-attn list' shows the attention modules; your own are named under 'register:' in the YAML, "
                f"or given with --plugin FILE."
            ) from exc
        if _layers_only.get():
            allowed.check_class(found, name, where(d, i), _home(host_lookup))
        return found
    if _layers_only.get():
        allowed.check_class(cls, name, where(d, i), _home(host_lookup))
        allowed.check_spelled(entry, name, where(d, i), _home(host_lookup))
    if plain_name(name) == name:
        try:
            hosts = host_lookup()
        except Exception:  # the usual case: the host does not know the name
            hosts = cls
        if rival(hosts, cls):
            # A plug-in, or a package that nobody named, that happens to have a Conv of its own
            if entry is not None and (entry.implied or installed.brings(cls)):
                if _layers_only.get():
                    allowed.check_class(hosts, name, where(d, i), _home(host_lookup))
                return hosts
            from ..patches.yolov5_shared import hand_edit

            raise RowError(
                f"{where(d, i)}: '{name}' is two things, {hosts.__module__}.{hosts.__qualname__} of the host and "
                f"{cls.__module__}.{cls.__qualname__}. {hand_edit(hosts)}Write '{PREFIX}{name}' for the latter."
            )
    if entry is not None:
        args[:] = entry.binding.with_sets(args)  # C3_GC: C3Attention with {module: GC}
    args[:] = [Text(a) if isinstance(a, str) and a not in RESOLVED else a for a in args]
    return cls


def place(
    m: Any, ch: list[int], f: Any, n: int, args: list[Any], i: int, d: dict[str, Any], widen: Callable[[Any], Any]
) -> tuple[Any, Any, int, list[Any]]:
    """Return what the parser goes on with: builder, output channels, repeats, arguments.

    For every class that the kit does not know, exactly the host's default: `ch[f]` and nothing else.

    Raises:
        RowError: The row's numbers contradict the graph, or its `from` points nowhere.
    """
    binding, reader = registry.binding_of(m), _reader.get()
    if reader is not None:
        row = [a.value if isinstance(a, Text) else a for a in args]
        read: tuple[Any, Any, int, list[Any]] | None = reader.place(m, _channels(ch, f, i), n, row, i, widen)
        if read is not None:
            return read
    if binding is None:
        return m, ch[f], n, args
    spot = where(d, i)
    args = [a.value if isinstance(a, Text) else a for a in args]
    if args and isinstance(args[-1], dict):
        args[-1] = _own_module(args[-1], d, spot)
    try:
        channels = _channels(ch, f, i)
        call = binding.bind(args, _as_one(m, binding, channels), n, widen)
    except Mismatch as exc:
        raise RowError(f"{spot}: {m.__name__}: {exc}.") from exc
    for note in call.notes:
        _tell(f"{spot}: {m.__name__}: {note}")
    shown = [*call.args, dict(call.kwargs)] if call.kwargs else list(call.args)
    if "model_scale" in binding.signature.parameters:
        call.kwargs.setdefault("model_scale", str(d.get("scale") or next(iter(d.get("scales") or ()), "")))
    return Builder(m, call, spot, _row(m, binding, spot, channels, call, i, d)), call.c2, call.n, shown


def _as_one(m: type, binding: Binding, channels: Any) -> Any:
    """The channels that a user's class is built with where its `forward` takes equal inputs one by one."""
    if isinstance(channels, list) and is_users(m) and len(set(channels)) == 1:
        return channels[0] if Calls.of(m).one_by_one(len(channels), binding.form) else channels
    return channels


def _row(m: type, binding: Binding, spot: str, channels: Any, call: Call, i: int, d: dict[str, Any]) -> Row | None:
    """Where a user's module is to be tried; None for the kit's own, and for a head, which gives what it likes."""
    rows = [*(d.get("backbone") or ()), *(d.get("head") or ())]
    entry = registry.entry_of(m)
    if not is_users(m) or i >= len(rows) - 1 or (entry is not None and entry.kind == "head"):
        return None
    register = d.get("register")
    name = plain_name(str(rows[i][2]))
    return Row(spot, name, channels, call.c2, register if isinstance(register, dict) else {}, binding.form)


_told: set[str] = set()


def _tell(line: str) -> None:
    """Say a line about a row once, however often the model is built."""
    if line not in _told:
        _told.add(line)
        announce("%s", line)


class Builder:
    """Stands for the class from the seam to the end of the row: builds it, and prints as it in the table."""

    cls: type
    call: Call
    spot: str
    row: Row | None

    def __init__(self, cls: type, call: Call, spot: str, row: Row | None = None) -> None:
        vars(self).update(cls=cls, call=call, spot=spot, row=row)

    def __setattr__(self, name: str, value: Any) -> None:
        """What a host notes on the class of a row, as ultralytics did with `np` before 8.3.9, it finds there again."""
        setattr(self.cls, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cls, name)

    def __call__(self, *_: Any) -> Any:
        try:
            built = self.cls(*self.call.args, **self.call.kwargs)
        except UnknownModuleError as exc:  # a block's `module:`
            raise UnknownModuleError(f"{self.spot}: {exc}") from exc
        except YoloAttnError:
            raise
        except (MemoryError, OSError):
            raise
        except Exception as exc:  # a constructor raises whatever it likes
            for name in RESERVED:
                if isinstance(exc, KeyError) and f"'{name}'" in str(exc):  # what torch itself does not let it add
                    raise self._occupied(name) from exc
            given = [*map(repr, self.call.args), *(f"{k}={v!r}" for k, v in self.call.kwargs.items())]
            usual = (TypeError, ValueError, AssertionError, ZeroDivisionError)
            told = f"{exc}" if isinstance(exc, usual) else f"{type(exc).__name__}: {first_line(exc)}"
            raise RowError(
                f"{self.spot}: {self.cls.__name__}({', '.join(given)}) cannot be built: {told}.{self._taken()}"
            ) from exc
        self._check(built)
        if self.row is not None:
            adapt(built, self.row.form, self.row.count)
            if not any(p.is_meta for p in built.parameters()):  # a model that is only measured
                try_out(built, self.row)
        return built

    def _taken(self) -> str:
        """What bare numbers of the row were taken for, after an error that may come from it."""
        taken = ", ".join(f"{k} = {v!r}" for k, v in self.call.taken.items())
        return (
            f" The row's numbers are read as {taken}; by name none is mistaken: [{{option: value}}]." if taken else ""
        )

    def _check(self, built: Any) -> None:
        """Refuse a layer that keeps something of its own where the host is about to write.

        Raises:
            RowError: Names the attribute, the class and the remedy.
        """
        own = vars(built)
        places = (own, *(own.get(k) or {} for k in ("_modules", "_parameters", "_buffers")))
        for name in RESERVED:
            if any(name in place for place in places):
                raise self._occupied(name)

    def _occupied(self, name: str) -> RowError:
        return RowError(
            f"{self.spot}: {self.cls.__module__}.{self.cls.__qualname__} has an attribute '{name}' of its own, and the "
            f"host sets .i, .f, .type and .np on every layer. Rename it in the class."
        )

    def __str__(self) -> str:
        return str(self.cls)


def where(d: dict[str, Any], i: int) -> str:
    """Return `file, row i (backbone)`, the spot that error messages name."""
    part = "backbone" if i < len(d.get("backbone") or ()) else "head"
    rows = [*(d.get("backbone") or ()), *(d.get("head") or ())]
    text = f" {rows[i][:3]}" if i < len(rows) else ""
    return f"{d.get('yaml_file') or _file.get()}, row {i} ({part}){text}"


def _own_module(options: dict[str, Any], d: dict[str, Any], spot: str) -> dict[str, Any]:
    """Put the class in place of its name where a block's `module:` names one that the YAML itself registers."""
    name = plain_name(options["module"]) if isinstance(options.get("module"), str) else None
    own = plugins.from_yaml(name, d, spot) if isinstance(name, str) and d.get("register") else None
    return options if own is None else {**options, "module": own}


def _home(host_lookup: Callable[[], Any]) -> ModuleType | None:
    """The module of the parser that a look-up was spliced into."""
    return sys.modules.get(getattr(host_lookup, "__globals__", {}).get("__name__", ""))


def _channels(ch: list[int], f: Any, i: int) -> Any:
    def one(x: Any) -> int:
        if not isinstance(x, int) or isinstance(x, bool):
            raise Mismatch(f"'from' must be row numbers, got {f!r}")
        if x >= i and not (i == 0 and x == -1):
            raise Mismatch(f"'from' is {x}, but only rows 0 to {i - 1} exist before it")
        try:
            return ch[x]
        except IndexError:
            raise Mismatch(f"'from' is {x}, which lies before the first row") from None

    return [one(x) for x in f] if isinstance(f, (list, tuple)) else one(f)


def registered(name: str, d: dict[str, Any], i: int) -> tuple[type | None, registry.Entry | None]:
    """Return the class of a row's name, and its entry; a class that the YAML names itself may have none."""
    plain = plain_name(name)
    own = plugins.from_yaml(plain, d, where(d, i)) if d.get("register") else None
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
