"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import FileError

__all__ = ["is_mine", "replacing"]


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a draft beside `target`, which takes its place once it is written, and is gone if it is not.

    Raises:
        FileError: The disk refuses; what stood at `target` still stands there.
    """
    draft = target.with_name(f".{target.name}.part")
    try:
        yield draft
        os.replace(draft, target)
    except OSError as exc:
        raise FileError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        draft.unlink(missing_ok=True)


def is_mine(about: os.stat_result) -> bool:
    """Whether nobody but this user can have written there. Windows keeps its users' folders apart by itself."""
    return os.name == "nt" or (about.st_uid == os.getuid() and not about.st_mode & 0o022)
