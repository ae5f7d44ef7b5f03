"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import UsageError, shown
from ..model_yaml.reader import value_of

__all__ = ["UNPROVED", "pair", "pairs"]

UNPROVED = "run also a file that changed since it was proved, or that differs from PyTorch by its report"


def pair(text: str) -> tuple[str, Any]:
    """Return the name and the value of ``KEY=VALUE``.

    Raises:
        UsageError: It is not of this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--args takes KEY=VALUE, got {text!r}")
    return key.strip(), value_of(value, f"--args {shown(text)[1:-1]}", UsageError)


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Return the mapping of several ``KEY=VALUE``.

    Raises:
        UsageError: One is not of this form.
    """
    return dict(map(pair, texts))
