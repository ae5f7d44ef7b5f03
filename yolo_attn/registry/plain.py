"""Check the values of an untrusted model dictionary: plain types only, and no more of them than fixed limits.

Both hosts evaluate parts of a model dictionary: classic YOLOv5 passes every string of a row to ``eval``, ultralytics
looks strings up among its parser's own variables. Here each string must be a plain word, a literal, or the name of a
number that public YAMLs use.
"""

from __future__ import annotations

import ast
import builtins
import math
import os
import re
from collections.abc import Collection, Iterator
from typing import Any

from ..errors import ConfigError, shown

__all__ = ["DEPTH", "NODES", "activation", "check_size", "check_text", "copy", "texts"]

NODES = 100_000  # values in one model dictionary; an alias counts each time it is used
DEPTH = 20
TEXT = 1_000  # characters in one string
ROWS, REPEATS, WIDTH = 2_000, 1_000, 65_536  # repeats and channels of one row, after scaling
LAYERS = 20_000  # rows times repeats
LIMITS = "YOLO_ATTN_LIMITS"  # `off` lifts these

# The parser's own names that a string in a row may use: numbers of the model.
NUMBERS = frozenset({"nc", "anchors", "kpt_shape", "no", "na", "None", "True", "False"})
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PHRASE = re.compile(r"[\w .:/+-]+", re.ASCII)  # 'nearest', 'clip:ViT-B/32'


def copy(value: Any, location: str) -> Any:
    """Return a copy of nested plain values: None, bool, int, float, str, list and dict; tuples become lists.

    Args:
        value: Any value.
        location: Named in messages.

    Raises:
        ConfigError: A value is of another type, or there are too many values or levels.
    """
    return _Copy(location).of(value, 0)


class _Copy:
    def __init__(self, location: str) -> None:
        self.location, self.count = location, 0

    def of(self, value: Any, depth: int) -> Any:
        self.count += 1
        if self.count > NODES:
            raise ConfigError(f"{self.location}: holds more than {NODES:,} values.")
        if depth > DEPTH:
            raise ConfigError(f"{self.location}: is nested more than {DEPTH} deep.")
        kind = type(value)
        if kind.__module__ == "numpy" and hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
            value = value.item()  # a NumPy scalar
            kind = type(value)
        if value is None or kind in (bool, int, float):
            return value
        if isinstance(value, os.PathLike):  # the host's own `yaml_file`
            value, kind = str(os.fspath(value)), str
        if kind is str:
            if len(value) > TEXT:
                raise ConfigError(f"{self.location}: {shown(value)} is longer than {TEXT:,} characters.")
            return value
        if isinstance(value, dict):
            out = {}
            for key, inner in dict.items(value):
                if type(key) not in (str, int, float, bool) and key is not None:
                    raise ConfigError(f"{self.location}: {shown(key)} is not a plain key.")
                out[self.of(key, depth + 1)] = self.of(inner, depth + 1)
            return out
        if isinstance(value, (list, tuple)):
            walk = list.__iter__ if isinstance(value, list) else tuple.__iter__
            return [self.of(v, depth + 1) for v in walk(value)]  # type: ignore[arg-type]
        raise ConfigError(f"{self.location}: {shown(value)} is a {kind.__name__}, not a plain value.")


def texts(value: Any) -> Iterator[str]:
    """Yield every string in nested plain values, including keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(key)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def check_text(text: str, location: str, taken: Collection[str] = ()) -> None:
    """Refuse a string that a host's parser would evaluate to anything but the string itself, a literal or a number.

    Args:
        text: The string.
        location: Named in messages.
        taken: Names that are defined for the parser: its variables, and the globals of its module.

    Raises:
        ConfigError: It would; the message quotes the string.
    """
    if text in NUMBERS:
        return
    if _WORD.fullmatch(text):
        if text not in taken and not hasattr(builtins, text):
            return
    elif len(text) <= 200 and text.isascii() and (_is_literal(text) or _call(text) or _is_phrase(text)):
        return
    raise ConfigError(f"{location}: {shown(text)} is neither a name nor a literal and is not evaluated.")


def activation(text: Any, location: str) -> None:
    """Refuse an ``activation:`` other than one of torch.nn with literal arguments, such as ``nn.SiLU()``.

    Raises:
        ConfigError: It is another one; the message quotes it.
    """
    if not isinstance(text, str) or not text.isascii() or len(text) > 200 or not _call(text):
        raise ConfigError(
            f"{location}: {shown(text)} is not an activation of torch.nn with literal arguments, such as nn.SiLU(), "
            f"and is not evaluated."
        )


def _is_phrase(text: str) -> bool:
    """Whether a string is words that do not parse as an expression."""
    if not _PHRASE.fullmatch(text):
        return False
    try:
        ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return False


def _is_literal(text: str) -> bool:
    try:
        copy(ast.literal_eval(text), "")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, ConfigError):
        return False
    return not re.match(r"\s", text)


def _call(text: str) -> bool:
    """Whether a string is the call of an activation of torch.nn with literal arguments."""
    from torch import nn

    match = re.fullmatch(r"(?:torch\.)?nn\.([A-Z][A-Za-z0-9]*)\(.*\)", text)
    cls = getattr(nn, match.group(1), None) if match else None
    if cls is not nn.Identity and getattr(cls, "__module__", "") != "torch.nn.modules.activation":
        return False
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if not isinstance(tree, ast.Call) or ast.unparse(tree.func) != text[: text.index("(")]:
        return False
    if any(isinstance(a, ast.Starred) for a in tree.args) or any(k.arg is None for k in tree.keywords):
        return False
    return all(isinstance(v, ast.Constant) and type(v.value) in (int, float, bool) for v in _arguments(tree))


def _arguments(call: ast.Call) -> list[ast.expr]:
    """The arguments of a call, without a leading minus sign."""
    values = [*call.args, *(k.value for k in call.keywords)]
    return [v.operand if isinstance(v, ast.UnaryOp) and isinstance(v.op, ast.USub) else v for v in values]


def check_size(d: dict[str, Any], file: str) -> None:
    """Refuse a model with more rows, repeats, channels or classes than any detector has, which would exhaust memory.

    Args:
        d: A model dictionary whose rows have four columns.
        file: Named in messages.

    Raises:
        ConfigError: A limit is exceeded; the message names the row and the limit.
    """
    if os.environ.get(LIMITS) == "off":
        return
    lifted = f"{LIMITS}=off lifts the limits."
    rows = [*d["backbone"], *d["head"]]
    if len(rows) > ROWS:
        raise ConfigError(f"{file}: has {len(rows):,} rows; at most {ROWS:,} are built. {lifted}")
    depth, width = _largest(d)
    total = 0
    for i, (_, n, _name, args) in enumerate(rows):
        repeats = max(1, round(n * depth)) if n > 1 else 1
        total += repeats
        if repeats > REPEATS:
            raise ConfigError(
                f"{file}, row {i}: is repeated {shown(repeats)} times; at most {REPEATS:,} are built. {lifted}"
            )
        first = args[0] if args and type(args[0]) in (int, float) else 0
        if not math.isfinite(first) or abs(first) * width > WIDTH:
            raise ConfigError(f"{file}, row {i}: has {shown(first)} channels; at most {WIDTH:,} are built. {lifted}")
    if total > LAYERS:
        raise ConfigError(f"{file}: has {total:,} layers, repeats counted; at most {LAYERS:,} are built. {lifted}")
    if d.get("nc", 1) > WIDTH:
        raise ConfigError(f"{file}: has {shown(d['nc'])} classes; at most {WIDTH:,} are built. {lifted}")


def _largest(d: dict[str, Any]) -> tuple[float, float]:
    """The depth and width multiples of the chosen scale; 1 and 1 where there is none."""
    scales, scale = d.get("scales"), d.get("scale")
    pairs: list[Any] = [[d.get("depth_multiple", 1), d.get("width_multiple", 1)]]
    if isinstance(scales, dict) and scales:
        pairs = [scales[scale]] if scale in scales else [next(iter(scales.values()))]
    numbers = [x for x in pairs[0][:2] if isinstance(x, (int, float)) and math.isfinite(x)]
    depth, width = numbers if len(numbers) == 2 else (1.0, 1.0)
    return min(float(depth), 1e6), min(float(width), 1e6)
