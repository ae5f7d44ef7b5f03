"""Which plug-in files the user of this machine has named before: path and content hash, one small record each.

This is what lets `yolo predict model=best.pt` find `my_attn.py` from another folder. A file that has changed
since it was named is not run; the user names it again. A record that somebody else could have written counts for
nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import PluginError
from ..files import home_folder, is_mine, read_text, write_bytes

__all__ = ["Record", "digest", "folder", "recall", "remember", "story"]

MOST = 8  # records kept of one stem


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
    """Return the SHA-256 of a file's content, of a package's Python files all together, or an empty string."""
    try:
        if path.name != "__init__.py":
            return hashlib.sha256(path.read_bytes()).hexdigest()
        total = hashlib.sha256()
        for file in sorted(path.parent.rglob("*.py")):
            total.update(f"{file.relative_to(path.parent).as_posix()}\n{digest_of(file.read_bytes())}\n".encode())
        return total.hexdigest()
    except (OSError, ValueError):
        return ""


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
