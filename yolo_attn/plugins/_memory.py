"""Which plug-in files the user of this machine has named before: path and content hash, in a small JSON file.

This is what lets `yolo predict model=best.pt` find `my_attn.py` from another folder. A file that has changed
since it was named is not run; the user names it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["digest", "file", "recall", "remember", "story"]


def file() -> Path:
    """Where the memory is kept; ``YOLO_ATTN_CONFIG_DIR`` moves it."""
    own = os.environ.get("YOLO_ATTN_CONFIG_DIR")
    if own:
        return Path(own) / "plugins.json"
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return Path(base or Path.home() / ".config") / "yolo_attn" / "plugins.json"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, or an empty string."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def remember(stem: str, path: Path) -> None:
    """Note that the user named this file. A read-only home is no reason to fail."""
    records = _read()
    mine = [r for r in records.get(stem, []) if r["path"] != str(path)]
    records[stem] = [*mine, {"path": str(path), "sha256": digest(path)}][-8:]
    target = file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        draft.write_text(json.dumps(records, indent=1), encoding="utf-8")
        os.replace(draft, target)
    except OSError:
        pass


def recall(stem: str) -> Path | None:
    """Return the one remembered file of this stem that is unchanged; None if there is none or they differ."""
    good = {r["sha256"]: Path(r["path"]) for r in _read().get(stem, []) if r["sha256"] == digest(Path(r["path"])) != ""}
    return next(iter(good.values())) if len(good) == 1 else None


def story(stem: str) -> str:
    """Say what is remembered of this stem, for an error message."""
    told = []
    for r in _read().get(stem, []):
        now = digest(Path(r["path"]))
        state = "is gone" if not now else "has changed since" if now != r["sha256"] else "is one of several"
        told.append(f"{r['path']} was used before and {state}. ")
    return "".join(told)


def _read() -> dict[str, list[dict[str, Any]]]:
    try:
        records = json.loads(file().read_text(encoding="utf-8"))
        return {
            k: [
                r
                for r in v
                if isinstance(r, dict) and isinstance(r.get("path"), str) and isinstance(r.get("sha256"), str)
            ]
            for k, v in records.items()
            if isinstance(v, list)
        }
    except (OSError, ValueError, AttributeError):
        return {}
