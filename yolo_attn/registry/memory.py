"""Which plug-in files the user of this machine has named before: path and content hash, one small record each.

This is what lets `yolo predict model=best.pt` find `my_attn.py` from another folder. A file that has changed
since it was named is not run; the user names it again. A record that somebody else could have written counts for
nothing.
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

__all__ = ["Record", "digest", "folder", "recall", "remember", "story"]

MOST = 8  # records kept of one stem
IMPORTABLE = (".py", ".pyc", *importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class Record:
    """A file that was named, and the hash of its content then."""

    path: Path
    sha256: str

    @property
    def unchanged(self) -> bool:
        """Whether the file still has that content."""
        return digest(self.path) == self.sha256 != ""


def folder() -> Path:
    """Where the records are kept; ``YOLO_ATTN_CONFIG_DIR`` moves it."""
    own = os.environ.get("YOLO_ATTN_CONFIG_DIR")
    if own:
        return Path(own) / "plugins"
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return Path(base or home_folder() / ".config") / "yolo_attn" / "plugins"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, of all that a package could import together, or an empty string."""
    try:
        if path.name != "__init__.py":
            return digest_of(path.read_bytes())
        return digest_of_files(importable(path.parent))
    except (OSError, ValueError):
        return ""


def importable(folder: Path) -> dict[str, str]:
    """Return every file below a package that Python could import from, with its SHA-256, by relative path.

    Sources, extension modules and bytecode without a source, links followed. Not the bytecode in ``__pycache__``:
    it stands for its source, and the kit runs the source (:mod:`.finder`).

    Raises:
        OSError: A file cannot be read.
        ValueError: A link leads back to a folder that it is in.
    """
    found: dict[str, str] = {}

    def walk(where: Path, inside: tuple[str, ...]) -> None:
        real = os.path.realpath(where)
        if real in inside:
            raise ValueError(f"{where} leads back to {real}")
        for entry in sorted(where.iterdir()):
            if entry.is_dir():
                if entry.name.isidentifier() and entry.name != "__pycache__":
                    walk(entry, (*inside, real))
            elif entry.name.endswith(IMPORTABLE):
                found[entry.relative_to(folder).as_posix()] = digest_of(entry.read_bytes())

    walk(folder, ())
    return found


def digest_of_files(files: dict[str, str]) -> str:
    """Return one SHA-256 for what :func:`importable` tells."""
    return digest_of("".join(f"{name}\n{sha256}\n" for name, sha256 in sorted(files.items())).encode())


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def remember(stem: str, path: Path, sha256: str) -> None:
    """Note that the user named this file. A read-only home is no reason to fail."""
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
    """Return the one remembered file of this stem that is unchanged; None if there is none or they differ."""
    good = {r.sha256: r for r in _records(stem) if r.unchanged}
    return next(iter(good.values())) if len(good) == 1 else None


def story(stem: str) -> str:
    """Say what is remembered of this stem, for an error message."""
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
