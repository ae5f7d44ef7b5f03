"""Load a model YAML as a host wants it: read, checked, its plug-ins loaded, in the host's dialect."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..files import cache_folder, is_mine, read_source, write_text
from ..log import announce
from ..registry import plugins
from .check import validate
from .dialect import is_classic, to_classic, to_ultralytics
from .find import split_scale
from .misread import misread
from .reader import read_mapping
from .start import check_start, with_start

__all__ = [
    "START",
    "WANTED",
    "as_asked",
    "ask_start",
    "classic_file",
    "load_classic",
    "load_ultralytics",
    "read",
    "settled",
]

WANTED = "A model YAML has 'nc', 'backbone' and 'head'."
START = "YOLO_ATTN_START"  # how attention begins in every model file read, where a command line asks for it


def read(path: Path) -> dict[str, Any]:
    """Read a model YAML.

    Raises:
        ConfigError: Not readable, not YAML, a key twice, empty, or no mapping.
    """
    return read_mapping(path, ConfigError, WANTED)


def ask_start(start: str) -> None:
    """Have attention begin so in every model file that this process and its children build from.

    Raises:
        UsageError: Neither ``identity`` nor ``paper``.
    """
    check_start(start)
    os.environ[START] = start


def as_asked(d: dict[str, Any]) -> dict[str, Any]:
    """Return a model dictionary whose attention begins as :func:`ask_start` asked; without that, `d` itself."""
    start = os.environ.get(START)
    if not start:
        return d
    started, without = with_start(d, start)
    if without:
        announce("%s: %s: no 'start' to set, begins as built", d.get("yaml_file"), ", ".join(sorted(set(without))))
    return started


def settled(d: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a validated model dictionary as the hosts read it, and tell what in it is hardly meant.

    Several forks write a fourth number into `scales`, which no host reads; a head that reads a Concat is what remains
    where a row was inserted by hand.
    """
    for line in misread(d):
        announce("%s: %s", file, line)
    scales = d.get("scales")
    if not isinstance(scales, dict) or all(len(numbers) < 4 for numbers in scales.values()):
        return d
    announce("%s: the fourth number in 'scales' is ignored: [depth, width, max_channels] is what the hosts read", file)
    return {**d, "scales": {letter: list(numbers[:3]) for letter, numbers in scales.items()}}


def load_ultralytics(name: str | os.PathLike[str], path: Path) -> dict[str, Any]:
    """Return the model dictionary of a file as the ultralytics host wants it.

    Args:
        name: As the user gave it; the scale letter is read from it, and the host keeps it as ``yaml_file``.
        path: The file that it means.

    Raises:
        ConfigError: The file is no valid model.
        PluginError: What it names under ``register:`` cannot be loaded.
    """
    d = read(path)
    d["scale"] = split_scale(Path(str(name)).stem)[1] or d.get("scale") or ""
    d["yaml_file"] = str(name)
    validate(d, str(name))
    plugins.load_register(d, path.parent, str(name))
    return as_asked(to_ultralytics(settled(d, str(name)), str(name)))


def load_classic(name: str | os.PathLike[str], path: Path, *, anchors: bool = True) -> dict[str, Any]:
    """Return the model dictionary of a file as the classic host wants it, its plug-ins loaded.

    Args:
        name: As the user gave it; the scale letter is read from it.
        path: The file that it means.

    Raises:
        ConfigError: The file is no valid model.
        PluginError: What it names under ``register:`` cannot be loaded.
    """
    d = read(path)
    scale = split_scale(Path(str(name)).stem)[1] or str(d.get("scale") or "")
    validate({**d, "scale": scale}, str(name))
    plugins.load_register(d, path.parent, str(name))
    return as_asked(to_classic(settled(d, str(name)), scale, str(name), anchors=anchors))


def classic_file(name: str | os.PathLike[str], path: Path, *, anchors: bool = True) -> Path:
    """Return a file that holds the model in the classic dialect: `path` itself, or a translation in the cache.

    The translation is called as the user called the model, in a folder named by its content: the same model is
    the same file, and two processes that write it at once write the same bytes.
    """
    source = read(path)
    d = load_classic(name, path, anchors=anchors)  # also for its errors and its plug-ins
    if (is_classic(source) if anchors else "scales" not in source) and not os.environ.get(START):
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
