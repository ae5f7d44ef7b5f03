"""Translate between the two dialects of model YAMLs: ultralytics' with ``scales``, and YOLOv5's with anchors.

| ``scales`` dialect | classic dialect |
|---|---|
| ``scales: {s: [0.33, 0.50, 1024]}`` and a letter | ``depth_multiple: 0.33``, ``width_multiple: 0.50`` |
| max_channels, the third number | wider rows are written with it, since the classic parser has no such rule |
| ``Detect, [nc]`` | ``Detect, [nc, anchors]`` and ``anchors`` |

The anchors are YOLOv5's own for heads on P3-P5 and P3-P6. For other levels none are published: ``anchors: 3`` asks the
host for three of each, which its AutoAnchor fits to the data when the training begins.
"""

from __future__ import annotations

import copy
import math
from types import ModuleType
from typing import Any

from ..errors import ConfigError, shown
from ..hook import elsewhere
from ..log import announce
from ..registry import allowed
from .graph import stride_factor

__all__ = ["ANCHORS", "check_expressions", "detection_levels", "is_classic", "to_classic", "to_ultralytics"]

# Width and height in pixels at 640 (P3-P5) and 1280 (P3-P6), three for each level, fitted to COCO by YOLOv5.
ANCHORS: dict[tuple[int, ...], list[list[int]]] = {
    (3, 4, 5): [
        [10, 13, 16, 30, 33, 23],
        [30, 61, 62, 45, 59, 119],
        [116, 90, 156, 198, 373, 326],
    ],
    (3, 4, 5, 6): [
        [19, 27, 44, 40, 38, 94],
        [96, 68, 86, 152, 180, 137],
        [140, 301, 303, 264, 238, 542],
        [436, 615, 739, 380, 925, 792],
    ],
}
HEADS = ("Detect", "Segment")
STRIDED = ("Conv", "DWConv", "GhostConv", "Focus", "CrossConv")


def is_classic(d: dict[str, Any]) -> bool:
    """Whether a model dictionary is in the classic dialect, which has anchors."""
    return "anchors" in d or any("anchors" in row[3] for row in d.get("head") or () if len(row) == 4 and row[3])


def to_ultralytics(d: dict[str, Any], file: str) -> dict[str, Any]:
    """Translate a model dictionary for the anchor-free host: drop the anchors, keep everything else.

    Args:
        d: The model dictionary, in either dialect; not changed.
        file: Name of the file, for messages.
    """
    if not is_classic(d):
        return d
    announce("%s: anchors dropped, the ultralytics host is anchor-free", file)
    d = {k: v for k, v in d.items() if k != "anchors"}
    d["head"] = [[f, n, m, [a for a in args if a != "anchors"]] for f, n, m, args in d["head"]]
    return d


def to_classic(d: dict[str, Any], scale: str, file: str = "model YAML", *, anchors: bool = True) -> dict[str, Any]:
    """Translate a model dictionary for the classic host; one that has anchors is returned as it is.

    Args:
        d: The model dictionary, in either dialect; not changed.
        scale: Scale letter; if empty, the first of ``scales``, as in the ultralytics host.
        file: Name of the file, for messages.
        anchors: False for the dialect of the first ultralytics 8.0 releases, without anchors.

    Raises:
        ConfigError: There is no such scale, or the last row is not a detection head.
    """
    if anchors and is_classic(d):
        return d
    d = copy.deepcopy(d)
    depth, width, most = _multiples(d, scale, file)
    levels = detection_levels(d, file) if anchors else ()
    for key in ("scales", "scale"):
        d.pop(key, None)
    d.update(depth_multiple=depth, width_multiple=width)
    if not anchors:
        d = to_ultralytics(d, file)
    elif levels in ANCHORS:
        d["anchors"] = ANCHORS[levels]
    else:
        d["anchors"] = 3
        announce("%s: heads on P%s have no published anchors; AutoAnchor fits them", file, ", P".join(map(str, levels)))
    for part in ("backbone", "head"):
        for row in d[part]:
            if anchors and row[2] in HEADS:
                row[3] = [*row[3][:1], "anchors", *row[3][1:]]
            elif row[3] and type(row[3][0]) is int and row[3][0] > most:
                row[3] = [most, *row[3][1:]]
    return d


def _multiples(d: dict[str, Any], scale: str, file: str) -> tuple[float, float, float]:
    scales = d.get("scales") or {}
    if not scales:
        most = d.get("max_channels") or float("inf")
        return float(d.get("depth_multiple", 1.0)), float(d.get("width_multiple", 1.0)), most
    if scale and scale not in scales:
        raise ConfigError(f"{file}: the name asks for scale '{scale}', but the file has {', '.join(map(str, scales))}.")
    letter = scale or next(iter(scales))
    if not scale:
        announce("%s: the name has no scale letter; using '%s'", file, letter)
    numbers = scales[letter]
    if not isinstance(numbers, (list, tuple)) or not 2 <= len(numbers) <= 4:
        raise ConfigError(f"{file}: scale '{letter}' must be [depth, width, max_channels], got {shown(numbers)}.")
    return float(numbers[0]), float(numbers[1]), numbers[2] if len(numbers) > 2 else float("inf")


def check_expressions(d: dict[str, Any], file: str, home: ModuleType | None = None) -> dict[str, Any]:
    """Return a plain copy of a dictionary that is safe for the classic parser, which evaluates the strings of rows.

    For dictionaries, which may come from an untrusted checkpoint. A file that the user names is trusted.

    Args:
        d: The model dictionary; not changed.
        file: Name of the model, for messages.
        home: The parser's module, in whose globals names are looked up; see :mod:`~yolo_attn.registry.allowed`.

    Raises:
        ConfigError: A string is neither a name nor a literal; the message names the row.
        RowError: A row names a class that is not allowed.
    """
    return allowed.checked(d, file, home)


def detection_levels(d: dict[str, Any], file: str = "model YAML") -> tuple[int, ...]:
    """Return the pyramid levels that the head reads, log2 of their strides in pixels, such as ``(3, 4, 5)``.

    Strides follow from the rows: strided convolutions halve the map, upsampling and transposed convolutions double it.

    Args:
        d: A validated model dictionary.
        file: Name of the file, for messages.

    Raises:
        ConfigError: The last row is not a detection head.
    """
    rows = [*d["backbone"], *d["head"]]
    if not rows or rows[-1][2] not in HEADS:
        last = rows[-1][2] if rows else "nothing"
        known = last in elsewhere.ULTRALYTICS or not rows
        told = " Use the ultralytics host for this one." if known else elsewhere.whose(last)
        raise ConfigError(
            f"{file}: the last row is {last}; classic YOLOv5 trains models that end in {' or '.join(HEADS)}."
            f"{told or ' No host is known to have it.'}"
        )
    levels: list[int] = []
    for i, (f, n, m, args) in enumerate(rows):
        sources = f if isinstance(f, list) else [f]
        if i == len(rows) - 1:
            return tuple(levels[x] for x in sources)
        level = 0 if i == 0 else levels[sources[0]]
        stride = 2 if m == "Focus" else args[2] if m in STRIDED and len(args) > 2 else 1
        if isinstance(stride, int) and stride > 1:
            level += (stride.bit_length() - 1) * (n if m != "Focus" else 1)
        if m.endswith(("Upsample", "ConvTranspose2d")):
            level -= 1
        elif m not in STRIDED and m != "Focus":
            level += round(math.log2(stride_factor(m.rpartition(".")[2], args)))
        levels.append(level)
    raise AssertionError("unreachable")
