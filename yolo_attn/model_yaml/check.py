"""Check the structure of a model dictionary; every error names the file and the row."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConfigError, shown
from ..registry.plain import check_size
from .schedule import Schedule

__all__ = ["validate"]

LARGEST = 1_000  # of a depth or width multiple


def validate(d: dict[str, Any], file: str) -> None:
    """Check a model dictionary: its keys, its rows, and the rows that each `from` names.

    Args:
        d: The model dictionary.
        file: Name of the file, for messages.

    Raises:
        ConfigError: Something is wrong; the message names the file and the row.
    """
    for part in ("backbone", "head"):
        if not isinstance(d.get(part), list):
            raise ConfigError(
                f"{file}: '{part}' is missing or not a list. A model YAML has 'nc', 'backbone' and 'head'."
            )
    if not d["backbone"]:
        raise ConfigError(f"{file}: 'backbone' has no rows.")
    nc = d.get("nc")
    if type(nc) is not int or nc < 1:
        found = f"got {shown(nc)}" if "nc" in d else "but there is none"
        raise ConfigError(f"{file}: 'nc' must be the number of classes, {found}.")
    Schedule.of(d)
    scales, scale = d.get("scales"), d.get("scale")
    if scales and not isinstance(scales, dict):
        raise ConfigError(f"{file}: 'scales' must map letters to [depth, width, max_channels].")
    for letter, numbers in (scales or {}).items():
        right = isinstance(numbers, (list, tuple)) and 2 <= len(numbers) <= 4 and all(map(_positive, numbers[:2]))
        right = right and all(_positive(most, math.inf) for most in numbers[2:3])
        if not right:
            raise ConfigError(f"{file}: scale {shown(letter)} must be [depth, width, max_channels], got {shown(numbers)}.")
    if scales and scale and scale not in scales:
        letters = ", ".join(s[:40] if isinstance(s, str) else shown(s, 40) for s in [*scales][:8])
        raise ConfigError(f"{file}: the name asks for scale {shown(scale)}, but the file has {letters}.")
    for key in ("depth_multiple", "width_multiple", "max_channels"):
        if d.get(key) is not None and not _positive(d[key], math.inf if key == "max_channels" else LARGEST):
            raise ConfigError(f"{file}: '{key}' must be a positive number, got {shown(d[key])}.")
    for i, row in enumerate(d["backbone"] + d["head"]):
        part = "backbone" if i < len(d["backbone"]) else "head"
        location = f"{file}, row {i} ({part})"
        if not isinstance(row, list) or len(row) != 4:
            raise ConfigError(f"{location}: a row is [from, number, module, args], got {shown(row)}.")
        f, n, m, args = row
        if not isinstance(m, str):
            raise ConfigError(f"{location}: the third column is the module's name, got {shown(m)}.")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"{location} {shown(row[:3])}: the number of repeats must be a positive integer, got {shown(n)}.")
        if not isinstance(args, list):
            raise ConfigError(f"{location} {shown(row[:3])}: the arguments must be a list, got {shown(args)}. Write [] for none.")
        if f == []:
            raise ConfigError(f"{location} {shown(row[:3])}: 'from' names no row; -1 is the row before this one.")
        for x in f if isinstance(f, list) else [f]:
            if isinstance(x, bool) or not isinstance(x, int):
                raise ConfigError(f"{location} {shown(row[:3])}: 'from' must be row numbers, got {shown(f)}.")
            if x >= i and not (i == 0 and x == 0):
                last = f"only rows 0 to {i - 1} exist before it" if i else "no row exists before it"
                raise ConfigError(f"{location} {shown(row[:3])}: 'from' is {x}, but {last}. Did an inserted row shift it?")
            if x < 0 and i + x < 0 and not (i == 0 and x == -1):
                raise ConfigError(f"{location} {shown(row[:3])}: 'from' is {x}, which is before the first row.")
    check_size(d, file)


def _positive(number: Any, most: float = LARGEST) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number <= most
