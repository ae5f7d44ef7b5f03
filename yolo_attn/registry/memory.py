"""The plug-in files that this user has named before, one small record each: path and content hash.

This lets `yolo predict model=best.pt` find `my_attn.py` from another folder. A file that has changed since it was
named is not run until the user names it again. A record that another user could have written is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import PluginError
from ..files import home_folder, is_mine, read_text, write_bytes

__all__ = ["Record", "digest", "folder", "history", "recall", "remember"]

MOST = 8  # records kept per stem
IMPORTABLE = (".py", ".pyc", *importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class Record:
    """A plug-in file that the user has named, and the SHA-256 of its content at that time."""

    path: Path
    sha256: str

    @property
    def unchanged(self) -> bool:
        """Whether the file still has the same content."""
        return digest(self.path) == self.sha256 != ""


def folder() -> Path:
    """Return the folder of the records; ``YOLO_ATTN_CONFIG_DIR`` overrides it."""
    own = os.environ.get("YOLO_ATTN_CONFIG_DIR")
    if own:
        return Path(own) / "plugins"
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return Path(base or home_folder() / ".config") / "yolo_attn" / "plugins"


def digest(path: Path) -> str:
    """Return the SHA-256 of a plug-in, over all importable files for a package; empty if it cannot be read."""
    try:
        if path.name != "__init__.py":
            return digest_of(path.read_bytes())
        return digest_of_files(importable(path.parent))
    except (OSError, ValueError):
        return ""


def importable(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every importable file of a package, by relative path.

    Importable are sources, extension modules and bytecode files, links followed. ``__pycache__`` is left out, since
    the kit runs the source and never its cache (:mod:`.finder`).

    Raises:
        OSError: A file cannot be read.
        ValueError: A link leads back to a folder that it is in.
    """
    found: dict[str, str] = {}

    def walk(inner: Path, inside: tuple[str, ...]) -> None:
        real = os.path.realpath(inner)
        if real in inside:
            raise ValueError(f"{inner} leads back to {real}")
        for entry in sorted(inner.iterdir()):
            if entry.is_dir():
                if entry.name.isidentifier() and entry.name != "__pycache__":
                    walk(entry, (*inside, real))
            elif entry.name.endswith(IMPORTABLE):
                found[entry.relative_to(folder).as_posix()] = digest_of(entry.read_bytes())

    walk(folder, ())
    return found


def digest_of_files(files: dict[str, str]) -> str:
    """Return one SHA-256 for the result of :func:`importable`."""
    return digest_of("".join(f"{name}\n{sha256}\n" for name, sha256 in sorted(files.items())).encode())


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def remember(stem: str, path: Path, sha256: str) -> None:
    """Record that the user named this file. Does nothing where the folder cannot be written.

    Args:
        stem: The plug-in's name.
        path: Its file.
        sha256: Hash of its content.
    """
    target = folder() / f"{stem}.{digest_of(str(path).encode())[:16]}.json"
    content = json.dumps({"path": str(path), "sha256": sha256}).encode()
    try:
        if target.is_file() and target.read_bytes() == content and is_mine(target.stat()):
            return
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes(target, content, error=None, private=True)
        for old in _files(stem)[MOST:]:
            old.unlink()
    except (OSError, ValueError):
        pass


def recall(stem: str) -> Record | None:
    """Return the unchanged file recorded for a stem; None if there is none, or several of different content."""
    good = {r.sha256: r for r in _records(stem) if r.unchanged}
    return next(iter(good.values())) if len(good) == 1 else None


def history(stem: str) -> str:
    """Return what is recorded for a stem, as sentences for an error message."""
    told = []
    for r in _records(stem):
        state = "is one of several" if r.unchanged else "has changed since" if digest(r.path) else "is gone"
        told.append(f"{r.path} was used before and {state}. ")
    return "".join(told)


def _files(stem: str) -> list[Path]:
    """The records of a stem, newest first."""
    found = []
    for file in folder().glob(f"{stem}.*.json"):
        with contextlib.suppress(OSError):
            found.append((file.stat().st_mtime_ns, file.name, file))
    return [file for *_, file in sorted(found, reverse=True)]


def _records(stem: str) -> list[Record]:
    found = []
    for file in _files(stem):
        try:
            told = json.loads(read_text(file, PluginError))
            path, sha256 = told["path"], told["sha256"]
        except (PluginError, OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(path, str) and isinstance(sha256, str) and is_mine(file.stat()):
            found.append(Record(Path(path), sha256))
    return found
