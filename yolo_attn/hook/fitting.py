"""Find the row that fits a constructor: small changes of the written one, each tried on torch's meta device."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Iterator
from math import gcd
from typing import Any, Callable

from ..errors import shown
from ..registry.binding import Binding
from ..registry.forms import is_users
from ..registry.parameters import LARGEST_OPTION, is_number, sensible

__all__ = ["fitting_row", "signature_of"]


def signature_of(cls: type, binding: Binding) -> str:
    """Return a constructor as it is written, with the line that it stands at: ``MyAttn(channels, heads=8), my_attn.py:7``."""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in binding.signature.parameters.values()]
    written = str(inspect.Signature(parameters)).replace("'", '"')
    where = ""
    if is_users(cls):
        try:
            own: Any = inspect.unwrap(vars(cls).get("__init__", object.__init__))
            where = f", {os.path.basename(inspect.getsourcefile(own) or '')}:{inspect.getsourcelines(own)[1]}"
        except (TypeError, OSError):  # no source: compiled, or made by exec
            where = ""
    return f"{cls.__name__}{written[:300]}{where}"


def fitting_row(
    cls: type, binding: Binding, args: list[Any], channels: Any, n: int, widen: Callable[[Any], Any], head: list[Any]
) -> str:
    """Return the row nearest to the written one that builds; empty if none is found.

    Tried are, in this order: numbers without the width; options under their nearest names; missing options with a
    value; options that divide the channels with the nearest divisor; the row without the option that is in the way;
    the row without any.

    Args:
        cls: The class.
        binding: How a row builds it.
        args: The row's fourth column.
        channels: Input channels; a list where `from` is one.
        n: Repeats.
        widen: The host's width rule.
        head: The row's first three columns.
    """
    seen: list[list[Any]] = [args]
    for candidate in _candidates(binding, list(args), channels):
        if candidate not in seen:
            seen.append(candidate)
            if _builds(cls, binding, candidate, channels, n, widen):
                return _written([*head[:3], candidate])
    return ""


def _candidates(binding: Binding, args: list[Any], channels: Any) -> Iterator[list[Any]]:
    *numbers, last = args if args and isinstance(args[-1], dict) else [*args, {}]
    options: dict[str, Any] = {k: v for k, v in last.items() if isinstance(k, str)}
    width = numbers[:1] if binding.is_block else []
    if binding.is_block and not width:
        width = [channels if isinstance(channels, int) else max(channels)]
    least = channels if isinstance(channels, int) else min(channels)
    known = binding.option_names()
    repaired, dropped = {}, False
    for name, value in options.items():
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        if name in known or any(p.kind is p.VAR_KEYWORD for p in binding.signature.parameters.values()):
            repaired[name] = value
        elif near and near[0] not in options:
            repaired[near[0]] = value
        else:
            dropped = True
    # A number above the largest option was meant as a width.
    surplus = [v for v in numbers[len(width) if binding.is_block else 0 :] if v != least and not (is_number(v) and v > LARGEST_OPTION)]
    named = dict(zip([k for k in known if k not in repaired], surplus))
    missing = {
        p.name: sensible(p, least)
        for p in binding.signature.parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name in known
    }
    for base in ({**repaired, **named}, repaired, named) if not dropped else ({**repaired, **named}, repaired, {}):
        full = {**{k: v for k, v in missing.items() if k not in base}, **base}
        yield _row(width, full)
        for name, value in full.items():
            for other in _near(value, least):
                yield _row(width, {**full, name: other})
        for name in binding.option_names():
            default = binding.signature.parameters[name].default
            if name not in full:
                for other in _near(default, least):
                    yield _row(width, {**full, name: other})
        for name in full:
            if name not in missing:
                yield _row(width, {k: v for k, v in full.items() if k != name})
    yield _row(width, {})


def _row(width: list[Any], options: dict[str, Any]) -> list[Any]:
    return [*width, *([options] if options else [])]


def _near(value: Any, channels: int) -> list[int]:
    """Other values of an option: divisors of the channels, the nearest first, and its neighbours; none for what is no number."""
    if not is_number(value) or value < 1:
        return []
    found = [k for k in range(2, min(channels, 65)) if channels % k == 0]
    found = sorted(found, key=lambda k: (abs(k - value), gcd(k, value) == 1))[:3]
    return [k for k in (*found, value - 1, value + 1) if k not in (value, 0)]


def _builds(cls: type, binding: Binding, args: list[Any], channels: Any, n: int, widen: Callable[[Any], Any]) -> bool:
    import torch

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        call = binding.bind(list(args), channels, n, widen)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            cls(*call.args, **call.kwargs)
    except MemoryError:
        raise
    except Exception:  # a constructor can raise anything: this row does not fit
        return False
    finally:
        logging.disable(before)
    return True


def _written(row: list[Any]) -> str:
    """A row as a YAML file holds it, on one line."""

    def one(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, dict):
            return f"{{{', '.join(f'{k}: {one(v)}' for k, v in value.items())}}}"
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(one, value))}]"
        return value if isinstance(value, str) else shown(value)

    return one(row)
