"""Convert the rows of a fork's model YAML to the kit's: names, options by name, without redundant widths.

:func:`tidy` needs the row alone; :class:`Numbers` needs what arrives at it, which the host's parser tells.
"""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from ..hook import elsewhere
from ..hook.resolve import named
from ..hook.seams import Reader
from ..registry import registry
from ..registry.binding import Binding, Call, Mismatch
from ..registry.forms import is_users
from ..registry.parameters import LARGEST_OPTION, LEAST_WIDTH, is_number

__all__ = ["Numbers", "Unknown", "activation", "tidy"]

# Modules of torch that a row may name without `nn.`
_TORCH = ("Upsample", "MaxPool2d", "AvgPool2d", "Identity", "ZeroPad2d", "BatchNorm2d", "ConvTranspose2d")
_MODES = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
_NOTHING = ("none", "null", "nil", "")
_HEADS = ("Detect", "Segment", "Pose", "OBB", "v10Detect")


class Unknown:
    """Stands in for an unknown class while the rows after it are read."""

    def __new__(cls, *_: Any) -> Any:
        from torch import nn

        return nn.Identity()


# -- one row -------------------------------------------------------------------------------------------------------


def tidy(row: Any, d: Mapping[str, Any], hosts: set[str]) -> tuple[Any, list[str]]:
    """Return a corrected row and the reasons for the changes.

    Args:
        row: The row.
        d: The model dictionary.
        hosts: Names that the host's parser knows.
    """
    reasons: list[str] = []
    if not isinstance(row, list) or not 3 <= len(row) <= 4 or not isinstance(row[2], str):
        return row, reasons
    f, n, name, args = deepcopy(row) if len(row) == 4 else [*deepcopy(row), []]
    if len(row) == 3:
        reasons.append("a row has four columns; no arguments are []")
    if not isinstance(args, list):
        args = [] if args is None or args == "None" else [args]
        reasons.append("arguments are a list")
    if (isinstance(n, float) and n.is_integer()) or (isinstance(n, str) and n.strip().isdigit()):
        n = int(float(n))
        reasons.append("the number of repeats is a whole number")
    name = _name(name, d, hosts, reasons)
    change = _ARGUMENTS.get(name)
    if change is not None:
        args = change(args, d, reasons)
    if name in ("MP", "SP") and name not in hosts and named(name, d) is None and all(map(is_number, args)):
        name, args = _pooling(name, args, reasons)
    return [f, n, name, args], reasons


def _name(name: str, d: Mapping[str, Any], hosts: set[str], reasons: list[str]) -> str:
    """The known name for a spelling of it."""
    if name.strip() != name:
        name = name.strip()
        reasons.append("a space beside the name")
    if name in hosts or name.startswith(("nn.", "torch.", "torchvision.")):
        return name
    what = registry.find(registry.plain_name(name))
    own = d.get("register")
    if what is not None or (isinstance(own, Mapping) and name in own):
        return name
    if name in _TORCH:
        reasons.append("torch's modules carry their nn.")
        return f"nn.{name}"
    known = {k.lower() for k in hosts} | {k.lower() for k in registry.known_names()}
    if name.lower() in known and name not in elsewhere.ULTRALYTICS | elsewhere.CLASSIC:
        spelled = next(k for k in (*sorted(hosts), *registry.known_names()) if k.lower() == name.lower())
        reasons.append("the name in its own letters")
        return spelled
    return name


def _pooling(name: str, args: list[Any], reasons: list[str]) -> tuple[str, list[Any]]:
    """YOLOv7's two names of torch's pooling."""
    if name == "MP":
        k = args[0] if args else 2
        reasons.append("YOLOv7's MP is torch's pooling, which halves")
        return "nn.MaxPool2d", [k, k]
    k, s = args[0] if args else 3, args[1] if len(args) > 1 else 1
    reasons.append("YOLOv7's SP is torch's pooling, padded")
    return "nn.MaxPool2d", [k, s, k // 2]


def _upsample(args: list[Any], d: Mapping[str, Any], reasons: list[str]) -> list[Any]:
    """Arguments of an Upsample row: size, factor and mode, ``[None, 2, nearest]``."""
    new = [_value(a) for a in args]
    new = ["None" if a is None or (isinstance(a, str) and a.strip().lower() in _NOTHING) else a for a in new]
    if new and is_number(new[0]) and len(new) < 3 and (len(new) == 1 or isinstance(new[1], str)):
        new = ["None", *new]  # nobody means a size of 2 pixels
    if len(new) == 3 and isinstance(new[2], str):
        mode = new[2].strip().strip("'\"").lower()
        new[2] = next(iter(difflib.get_close_matches(mode, _MODES, n=1)), new[2])
        new[2] = "nearest" if new[2] == "None" else new[2]
    written = ["None" if a is None else a for a in args]
    if new != written:
        reasons.append("nn.Upsample takes size, factor and mode")
        return new
    return args


def _concat(args: list[Any], d: Mapping[str, Any], reasons: list[str]) -> list[Any]:
    """Arguments of a Concat row: the dimension only."""
    dimension = args[0] if args and args[0] in (1, -3) else 1
    if len(args) > 1 or (args and args[0] not in (1, -3)):
        reasons.append("Concat takes the dimension and nothing else; the graph knows the width")
        return [dimension]
    return args


def _head(args: list[Any], d: Mapping[str, Any], reasons: list[str]) -> list[Any]:
    """Arguments of a head, without undefined anchors."""
    if "anchors" in args and "anchors" not in d:
        reasons.append("no anchors are defined: the head is anchor-free")
        return [a for a in args if a != "anchors"]
    return args


_ARGUMENTS: dict[str, Callable[[list[Any], Mapping[str, Any], list[str]], list[Any]]] = {
    "nn.Upsample": _upsample, "Concat": _concat, **dict.fromkeys(_HEADS, _head),
}  # fmt: skip


def _value(a: Any) -> Any:
    """Convert a string that is a number; YAML reads 1e-4 as a string."""
    if not isinstance(a, str):
        return a
    try:
        value = ast.literal_eval(a.strip())
    except (ValueError, SyntaxError):
        return a
    return value if isinstance(value, (int, float, str)) else a


def activation(rows: list[Any]) -> tuple[str, set[int]]:
    """Return the one activation that all convolutions of a model have as their last argument, and their rows.

    Rows of YOLOv5 and YOLOv7 say ``[c, k, s, None, 1, nn.LeakyReLU(0.1)]``; the ultralytics host evaluates no argument.
    Empty where they do not agree, or where blocks with convolutions of their own would take another one than today.
    """
    texts = {i: r[3][5] for i, r in enumerate(rows) if r[2] == "Conv" and len(r[3]) == 6 and isinstance(r[3][5], str)}
    passive = [r[2].startswith("nn.") or r[2] in ("Concat", *_HEADS) for r in rows]
    agreed = len(set(texts.values())) == 1 and all(p or i in texts for i, p in enumerate(passive))
    plain_rows = all(rows[i][3][3:5] in (["None", 1], [None, 1]) for i in texts)
    return (next(iter(texts.values())), set(texts)) if agreed and plain_rows else ("", set())


# -- numbers, as the graph has them --------------------------------------------------------------------------------


@dataclass
class _Seen:
    """What the parser knew about one row."""

    binding: Binding
    args: list[Any]
    channels: Any
    n: int
    widen: Callable[[Any], Any]


@dataclass
class Numbers(Reader):
    """Reads the rows of a model while a host parses it, then gives each row's arguments by name.

    Args:
        d: The model.
    """

    d: Mapping[str, Any]
    _seen: dict[int, _Seen] = field(default_factory=dict)

    def unknown(self, name: str, i: int) -> type:
        return Unknown

    def place(self, m: Any, channels: Any, n: int, args: list[Any], i: int, widen: Callable[[Any], Any]) -> Any:
        if m is Unknown:
            first = args[0] if args and is_number(args[0]) and args[0] >= LEAST_WIDTH else 0
            known = channels if isinstance(channels, int) else max(channels)
            return Unknown, int(widen(first)) if first else known, 1, []
        binding = registry.binding_of(m)
        if binding is None or is_users(m):  # the user knows the numbers of their own module
            return None
        seen = self._seen[i] = _Seen(binding, [_value(a) for a in args], channels, n, widen)
        found = _bound(seen)
        if found is not None:
            return Unknown, found[0].c2, 1, []
        stated = widen(args[0]) if binding.is_block and args and is_number(args[0]) else None
        return Unknown, stated or (channels if isinstance(channels, int) else sum(channels)), 1, []

    def settled(self, sure: set[int]) -> dict[int, tuple[str, list[Any], list[str]]]:
        """Return name, arguments and reasons of every row that changes.

        Args:
            sure: Rows whose width no unknown row decides; the numbers of others stay.
        """
        rows = [*self.d["backbone"], *self.d["head"]]
        groups: dict[str, list[int]] = defaultdict(list)
        for i in self._seen:
            groups[rows[i][2]].append(i)
        found = {}
        for i, seen in self._seen.items():
            name, args = rows[i][2], list(rows[i][3])
            reasons: list[str] = []
            entry = registry.find(registry.plain_name(name))
            if entry is not None and i in sure:
                args = _by_name(seen, args, _first_is([self._seen[k] for k in groups[name]]), entry.kind, reasons)
            if entry is not None and entry.name != registry.plain_name(name):
                if entry.binding.sets:
                    reasons.insert(0, f"{name} is {entry.name} with {_options(dict(entry.binding.sets))}")
                    args = entry.binding.with_sets(args)
                else:
                    reasons.insert(0, f"{name} is registered as {entry.name}")
                name = name[: len(name) - len(registry.plain_name(name))] + entry.name
            if [name, args] != [rows[i][2], rows[i][3]]:
                found[i] = name, args, reasons
        return found


def _bound(seen: _Seen, skip: int = 0) -> tuple[Call, int] | None:
    """The call that a row means if its fewest leading numbers are taken for widths, and their count."""
    while skip <= len(seen.args):
        try:
            call = seen.binding.bind(list(seen.args[skip:]), seen.channels, seen.n, seen.widen)
            if skip < 2 and _takes_second_width(seen, call):
                skip = 2
                continue
            return call, skip
        except Mismatch:
            if skip == len(seen.args) or not _may_be_width(seen, skip):
                return None
            skip += 1
    return None


def _takes_second_width(seen: _Seen, call: Call) -> bool:
    """Whether an option got what is the output width of `[c1, c2]`: a number far above any such option's default."""
    name, value = next(iter(call.taken.items()), ("", None))
    numbers = seen.args[:2]
    if seen.binding.is_block or len(numbers) < 2 or not all(map(is_number, numbers)) or value != numbers[1]:
        return False
    default = seen.binding.signature.parameters[name].default
    return (
        min(numbers) > LARGEST_OPTION
        and not (is_number(default) and default > LARGEST_OPTION)
        and _may_be_width(seen, 1)
    )


def _may_be_width(seen: _Seen, position: int) -> bool:
    """Whether a number may be ignored; a later one only if the spelling of the name gives it no meaning."""
    value = seen.args[position]
    if position == 0 or not is_number(value):
        return is_number(value) and value >= LEAST_WIDTH
    return bool(value > LARGEST_OPTION and not any("/" in word for words in seen.binding.positional for word in words))


def _first_is(group: list[_Seen]) -> str:
    """What the first number in all rows of a name means if they agree: an option, a width, or unknown."""
    firsts = [(s.args[0], s.channels) for s in group if s.args and is_number(s.args[0]) and isinstance(s.channels, int)]
    if len(firsts) < 2 or len(firsts) < len(group) or len({c for _, c in firsts}) < 2:
        return ""
    if len({v for v, _ in firsts}) == 1 and firsts[0][0] <= LARGEST_OPTION:
        return "option"
    if len({v / c for v, c in firsts}) == 1:
        return "width"
    return ""


def _by_name(seen: _Seen, args: list[Any], first: str, kind: str, reasons: list[str]) -> list[Any]:
    """A row's arguments without widths and with options by name; unchanged if nothing is wrong with them."""
    binding = seen.binding
    if binding.is_block:
        if len(args) > 1 and is_number(args[1]) and args[0] == args[1] and args[0] >= LEAST_WIDTH:
            reasons.append("the width is written twice")
            return [args[0], *args[2:]]
        return args
    positional = [a for a in seen.args if not isinstance(a, dict)]
    given = dict(seen.args[-1]) if seen.args and isinstance(seen.args[-1], dict) else {}
    if not positional:
        return args
    if first == "option":
        words = binding._words(positional)
        option = words[0].rpartition("/")[2].rstrip("?") if words and words[0] != "-" else ""
        if option and len(positional) == 1:
            reasons.append(f"{positional[0]} is {option}, as in every row of this name")
            return [{option: positional[0], **given}]
    found = _bound(seen, 1 if first == "width" else 0)
    if found is None:
        return args
    call, skipped = found
    if kind == "fusion" and not skipped and not call.notes and len(positional) == len(call.taken):
        return args
    for v in positional[:skipped]:
        if seen.channels not in (v, seen.widen(v)):
            reasons.append(
                f"{v} is a width, {seen.widen(v)} after scaling, where {_list(seen.channels)} channels arrive"
            )
    if not reasons and is_number(positional[0]) and positional[0] != next(iter(call.taken.values()), None):
        reasons.append("the graph knows the width")
    reasons += call.notes or (["options go by name"] if call.taken else [])
    options = {**call.taken, **given}
    return [options] if options else []


def _list(channels: Any) -> str:
    return str(channels) if isinstance(channels, int) else " and ".join(map(str, channels))


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in options.items())
