"""Options spelled as the user typed them: ``where='neck'`` in Python, ``--where neck`` on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

__all__ = ["command_line", "option"]

_typed: ContextVar[bool] = ContextVar("typed", default=False)


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """Spell options as command-line flags within this context."""
    token = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(token)


def option(name: str, value: Any = None) -> str:
    """Return an option as a flag or as a keyword argument, with its value if one is given.

    Args:
        name: The keyword argument, such as ``where``.
        value: Its value; a list for several values, a mapping for options by name, True for a switch.
    """
    if _typed.get():
        flag = "--" + name.replace("_", "-")
        if value is None or value is True:
            return flag
        if isinstance(value, Mapping):
            value = [f"{k}={v}" for k, v in value.items()]
        values = value if isinstance(value, (list, tuple)) else [value]
        return " ".join([flag, *map(str, values)])
    return f"{name}=" if value is None else f"{name}={dict(value) if isinstance(value, Mapping) else value!r}"
