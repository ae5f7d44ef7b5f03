"""Load a model YAML for a host: read it, check it, load its plug-ins, translate it to the host's dialect."""

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
START = "YOLO_ATTN_START"  # the start of attention in every model file, set by a command line


def read(path: Path) -> dict[str, Any]:
    """Read a model YAML.

    Raises:
        ConfigError: The file cannot be read, is not YAML, has a key twice, is empty, or is not a mapping.
    """
    return read_mapping(path, ConfigError, WANTED)


def ask_start(start: str) -> None:
    """Set how attention begins in every model file that this process and its children load.

    Args:
        start: ``identity`` or ``paper``.

    Raises:
        UsageError: `start` is neither.
    """
    check_start(start)
    os.environ[START] = start


def as_asked(d: dict[str, Any]) -> dict[str, Any]:
    """Return a model dictionary with the start that :func:`ask_start` has set, or `d` itself if none is set."""
    start = os.environ.get(START)
    if not start:
        return d
    started, without = with_start(d, start)
    if without:
        announce(
            "%s: %s has no option 'start' and begins as built", d.get("yaml_file"), ", ".join(sorted(set(without)))
        )
    return started


def settled(d: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a validated model dictionary as the hosts read it, and announce what is probably a mistake.

    Several forks write a fourth number into `scales`, which no host reads. A head that reads a Concat is the usual
    result of inserting a row by hand.

    Args:
        d: The model dictionary.
        file: Name of the file, for messages.
    """
    for line in misread(d):
        announce("%s: %s", file, line)
    scales = d.get("scales")
    if not isinstance(scales, dict) or all(len(numbers) < 4 for numbers in scales.values()):
        return d
    announce("%s: the fourth number in 'scales' is ignored: the hosts read [depth, width, max_channels]", file)
    return {**d, "scales": {letter: list(numbers[:3]) for letter, numbers in scales.items()}}


def load_ultralytics(name: str | os.PathLike[str], path: Path) -> dict[str, Any]:
    """Return the model dictionary of a file for the ultralytics host, its plug-ins loaded.

    Args:
        name: The name as the user gave it. It gives the scale letter, and the host keeps it as ``yaml_file``.
        path: The file that it means.

    Raises:
        ConfigError: The file is not a valid model.
        PluginError: A plug-in under ``register:`` cannot be loaded.
    """
    d = read(path)
    d["scale"] = split_scale(Path(str(name)).stem)[1] or d.get("scale") or ""
    d["yaml_file"] = str(name)
    validate(d, str(name))
    plugins.load_register(d, path.parent, str(name))
    return as_asked(to_ultralytics(settled(d, str(name)), str(name)))


def load_classic(name: str | os.PathLike[str], path: Path, *, anchors: bool = True) -> dict[str, Any]:
    """Return the model dictionary of a file for the classic host, its plug-ins loaded.

    Args:
        name: The name as the user gave it; it gives the scale letter.
        path: The file that it means.
        anchors: False for the dialect of the first ultralytics 8.0 releases, without anchors.

    Raises:
        ConfigError: The file is not a valid model.
        PluginError: A plug-in under ``register:`` cannot be loaded.
    """
    d = read(path)
    scale = split_scale(Path(str(name)).stem)[1] or str(d.get("scale") or "")
    validate({**d, "scale": scale}, str(name))
    plugins.load_register(d, path.parent, str(name))
    return as_asked(to_classic(settled(d, str(name)), scale, str(name), anchors=anchors))


def classic_file(name: str | os.PathLike[str], path: Path, *, anchors: bool = True) -> Path:
    """Return a file with the model in the classic dialect: `path` itself, or a translation in the cache.

    The translation has the name that the user gave, in a folder named by its content. So the same model is always the
    same file, and two processes that write it at the same time write the same bytes.

    Args:
        name: As for :func:`load_classic`; so are the others.
        path: See there.
        anchors: See there.

    Raises:
        ConfigError: The file is not a valid model, or no cache folder can be written.
        PluginError: A plug-in under ``register:`` cannot be loaded.
    """
    source = read(path)
    d = load_classic(name, path, anchors=anchors)  # also checks it and loads its plug-ins
    if (is_classic(source) if anchors else "scales" not in source) and not os.environ.get(START):
        return path
    d = {"yaml_file": str(name), **d}  # the host keeps only the file's name; messages use this one
    # The classic host reads model files as ASCII and drops other characters.
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
        except OSError:  # a read-only home: try the next folder
            continue
        return target
    raise ConfigError(f"{name}: no folder to write its classic form to. Set YOLO_ATTN_CACHE to a writable one.")


def _cache_folders() -> Iterator[Path]:
    yield cache_folder() / "classic"
    shared = Path(tempfile.gettempdir()) / f"yolo_attn-{getattr(os, 'getuid', lambda: 'user')()}"
    if _private(shared):
        yield shared / "classic"


def _private(folder: Path) -> bool:
    """Whether a folder below a shared one is private to this user: the host evaluates strings of the files in it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and is_mine(about)
