"""The classic dialect: what YOLOv5's anchor-based parser reads, made from the dialect with ``scales``.

| ``scales`` dialect | classic dialect |
|---|---|
| ``scales: {s: [0.33, 0.50, 1024]}`` and a letter | ``depth_multiple: 0.33``, ``width_multiple: 0.50`` |
| max_channels, the third number | rows above it are written with it: the classic parser has no such rule |
| ``Detect, [nc]`` | ``Detect, [nc, anchors]`` and ``anchors`` |

Anchors are YOLOv5's own for heads on P3-P5 and P3-P6. For any other set of levels there are none published;
``anchors: 3`` asks the host for three of each, which its AutoAnchor fits to the data when training starts.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from ..errors import ConfigError
from ..files import cache_folder, is_mine, read_source, write_text
from ..log import announce
from ..registry import allowed, plugins
from . import config
from .graph import stride_factor

__all__ = ["ANCHORS", "check_expressions", "classic_file", "detection_levels", "load_classic", "to_classic"]

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


def to_classic(d: dict[str, Any], scale: str, file: str = "model YAML", *, anchors: bool = True) -> dict[str, Any]:
    """Translate a model dictionary for the classic host; one that has anchors already comes back as it is.

    Args:
        d: The model, in either dialect; not changed.
        scale: The letter of ``scales`` to take; empty takes the first, as the ultralytics host does.
        file: Named in messages.
        anchors: False keeps the anchor-free head: the dialect of the first ultralytics 8.0 releases.

    Raises:
        ConfigError: No such scale, or no detection head.
    """
    if anchors and config.is_classic(d):
        return d
    d = copy.deepcopy(d)
    depth, width, most = _multiples(d, scale, file)
    levels = detection_levels(d, file) if anchors else ()
    for key in ("scales", "scale"):
        d.pop(key, None)
    d.update(depth_multiple=depth, width_multiple=width)
    if not anchors:
        d = config.to_ultralytics(d, file)
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
        announce("%s: the name has no scale letter, '%s' is taken", file, letter)
    numbers = scales[letter]
    if not isinstance(numbers, (list, tuple)) or not 2 <= len(numbers) <= 4:
        raise ConfigError(f"{file}: scale '{letter}' must be [depth, width, max_channels], got {numbers!r}.")
    return float(numbers[0]), float(numbers[1]), numbers[2] if len(numbers) > 2 else float("inf")


def check_expressions(d: dict[str, Any], file: str, home: ModuleType | None = None) -> dict[str, Any]:
    """Return a plain copy of a dictionary whose texts are names and literals only: the classic parser evaluates them.

    For dictionaries, which may come out of somebody's checkpoint; a file that the user names is the user's.

    Args:
        d: The model; not changed.
        file: Named in messages.
        home: The parser's module, in whose globals the rows' names are looked up; see :mod:`.allowed`.

    Raises:
        ConfigError: Names the row and the text.
    """
    return allowed.checked(d, file, home)


def detection_levels(d: dict[str, Any], file: str = "model YAML") -> tuple[int, ...]:
    """Return the pyramid levels that the head reads, such as (3, 4, 5): log2 of each input's stride.

    Strides are read off the rows: strided convolutions halve, upsampling and transposed convolutions double.

    Raises:
        ConfigError: The last row is no detection head.
    """
    rows = [*d["backbone"], *d["head"]]
    if not rows or rows[-1][2] not in HEADS:
        last = rows[-1][2] if rows else "nothing"
        raise ConfigError(
            f"{file}: the last row is {last}; classic YOLOv5 trains models that end in {' or '.join(HEADS)}. "
            f"Use the ultralytics host for this one."
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


def load_classic(name: str | os.PathLike[str], path: Path, *, anchors: bool = True) -> dict[str, Any]:
    """Return the model dictionary of a file as the classic host wants it, its plug-ins loaded.

    Args:
        name: As the user gave it; the scale letter is read from it.
        path: The file that it means.

    Raises:
        ConfigError: The file is no valid model.
        PluginError: What it names under ``register:`` cannot be loaded.
    """
    d = config.read(path)
    scale = config.split_scale(Path(str(name)).stem)[1] or str(d.get("scale") or "")
    config.validate({**d, "scale": scale}, str(name))
    plugins.load_register(d, path.parent, str(name))
    return config.as_asked(to_classic(config.settled(d, str(name)), scale, str(name), anchors=anchors))


def classic_file(name: str | os.PathLike[str], path: Path, *, anchors: bool = True) -> Path:
    """Return a file that holds the model in the classic dialect: `path` itself, or a translation in the cache.

    The translation is called as the user called the model, in a folder named by its content: the same model is
    the same file, and two processes that write it at once write the same bytes.
    """
    read = config.read(path)
    d = load_classic(name, path, anchors=anchors)  # also for its errors and its plug-ins
    if (config.is_classic(read) if anchors else "scales" not in read) and not os.environ.get(config.START):
        return path
    d = {"yaml_file": str(name), **d}  # the host keeps only the file's name; messages name the row's file by this
    # The classic host opens model files as ASCII and drops what is not.
    text = f"# {path.name} for classic YOLOv5, made by yolo_attn\n" + yaml.safe_dump(d, sort_keys=False, width=120)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = Path(Path(str(name)).name)
    file = file if file.suffix in (".yaml", ".yml") else file.with_name(file.name + ".yaml")
    for folder in _cache_folders():
        target = folder / digest / file
        try:
            if not target.is_file() or read_source(target) != text:
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_text(target, text, error=None, private=True)  # the host evaluates strings of it
        except OSError:  # a read-only home: the next place
            continue
        return target
    raise ConfigError(f"{name}: no folder to write its classic form to; set YOLO_ATTN_CACHE to one that is writable.")


def _cache_folders() -> Iterator[Path]:
    yield cache_folder() / "classic"
    shared = Path(tempfile.gettempdir()) / f"yolo_attn-{getattr(os, 'getuid', lambda: 'user')()}"
    if _private(shared):
        yield shared / "classic"


def _private(folder: Path) -> bool:
    """Whether a folder where all may write is this user's alone: the host evaluates strings of what lies there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and is_mine(about)
