"""Drafts and scratch folders: their names identify the process that makes them, so that the next command can remove those
of killed processes, and only those.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import locks
from .processes import OWNED, alive, owner
from .signals import undisturbed

__all__ = ["AT_ONCE", "LOCK", "draft_name", "forget", "lock_name", "note", "remove", "scratch", "sweep"]

WAITS = (0.0, 0.05, 0.2, 0.5)  # seconds: a process that is being ended may still write into what is removed
LOCK = ".yolo_attn.lock"  # of a folder that one process at a time writes into
AT_ONCE = WAITS[:1]


def lock_name(of: str) -> str:
    """Return the name of the lock of one thing in a folder: ``.yolo_attn-OF.lock``."""
    return LOCK.replace(".lock", f"-{of}.lock")


def draft_name() -> str:
    """Return a name for a draft or a scratch folder, which nothing else has; see :data:`.processes.OWNED`."""
    return f"yolo_attn-{owner()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def scratch(folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder, private to this user and removed on exit.

    Args:
        folder: Where to create it, so that files can be moved on the same file system; the system's temporary folder
            when absent.

    Raises:
        OSError: It cannot be created.
    """
    if folder is not None:
        note(folder)
    made = Path(tempfile.gettempdir()) / draft_name() if folder is None else folder / f".{draft_name()}"
    try:
        try:
            made.mkdir(mode=0o700)
            yield made
        finally:
            remove(made)
    finally:  # Ctrl-C at the very moment in which the removal began
        remove(made, AT_ONCE)


def remove(path: Path, waits: Sequence[float] = WAITS) -> None:
    """Remove a draft or a scratch folder, if it is there; a signal that arrives meanwhile is handled afterwards."""
    with undisturbed():
        for wait in waits:
            if not os.path.lexists(path):
                return
            time.sleep(wait)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


# The folders where this process created drafts. They are also listed in a file while it runs: if it is killed, the
# next command reads there where to clean up.
_noted: dict[int, tuple[Path | None, set[str]]] = {}


def note(folder: Path) -> None:
    """Record that this process writes into a folder, after removing what killed processes left there."""
    known = os.path.abspath(folder)
    file, folders = _noted.get(os.getpid(), (None, set()))
    if known in folders:
        return
    with contextlib.suppress(OSError):
        sweep(Path(known))
    if file is None:
        _noted.clear()  # a forked child has a list of its own
        with contextlib.suppress(OSError):
            file = Path(tempfile.gettempdir()) / f"{draft_name()}.folders"
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            atexit.register(forget, os.getpid())
            if multiprocessing.parent_process() is not None:  # its workers end without what is done at exit
                multiprocessing.util.Finalize(None, forget, args=(os.getpid(),), exitpriority=0)
    folders.add(known)
    _noted[os.getpid()] = file, folders
    if file is not None:
        with contextlib.suppress(OSError), file.open("ab") as stream:
            stream.write(os.fsencode(known) + b"\0")


def forget(pid: int | None = None) -> None:
    """Remove the list of the folders that this process wrote into; for a fork, which ends without what is done at exit."""
    pid = os.getpid() if pid is None else pid
    file, _ = _noted.pop(pid, (None, set()))
    if file is not None and pid == os.getpid():
        with contextlib.suppress(OSError):
            file.unlink()


def sweep(*folders: Path) -> list[Path]:
    """Remove what killed processes left in these folders and in those that they had listed.

    Only files and folders of this user are removed whose names have the kit's prefix and identify a process of this
    machine that no longer runs.

    Args:
        folders: Where to look; the system's temporary folder when none is given.

    Returns:
        What was removed.
    """
    removed: list[Path] = []
    try:
        todo = list(folders or [Path(tempfile.gettempdir())])
    except OSError:  # no usable temporary folder at all
        return removed
    seen: set[Path] = set()
    while todo:
        folder = todo.pop()
        if folder in seen:
            continue
        seen.add(folder)
        removed += [lock for lock in folder.glob(LOCK.replace(".lock", "*.lock")) if locks.clear(lock)]
        for entry in _orphans(folder):
            path = Path(entry.path)
            with contextlib.suppress(OSError):
                if path.suffix == ".folders":
                    todo += [Path(os.fsdecode(f)) for f in path.read_bytes().split(b"\0") if f]
                    path.unlink()
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
                removed.append(path)
    return removed


def _orphans(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder that a process of this user and machine created that no longer runs."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = OWNED.fullmatch(entry.name)
            if match is None or alive(match.group(1)) is not False:
                continue
            about = entry.stat(follow_symlinks=False)
            if os.name == "nt" or about.st_uid == os.getuid():
                found.append(entry)
    return found
