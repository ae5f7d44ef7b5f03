"""Reading and writing files: atomically, as UTF-8, and without leftovers of killed processes.

A file is written to a draft beside its target, then replaces it in one step. The names of drafts and scratch folders
identify the process that created them, so that the next command can remove those of killed processes, and only those.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import multiprocessing.util
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import FileError, YoloAttnError
from .system import locks
from .system.processes import OWNED, alive, owner
from .system.signals import undisturbed

__all__ = [
    "LOCK",
    "REFUSED",
    "expand",
    "forget",
    "home_folder",
    "is_mine",
    "note",
    "publish",
    "publish_folder",
    "read_source",
    "read_text",
    "replacing",
    "scratch",
    "sweep",
    "write_bytes",
    "write_text",
]

WAITS = (0.0, 0.05, 0.2, 0.5)  # seconds: a process that is being ended may still write into what is removed
LOCK = ".yolo_attn.lock"  # of a folder that one process at a time writes into; of one file in it: .yolo_attn-NAME.lock

# Errors of the disk or its permissions, which the user can fix, as opposed to bugs.
REFUSED = frozenset(
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EIO EACCES EPERM EROFS EISDIR ENOTDIR ENAMETOOLONG".split()
    if hasattr(errno, name)  # Windows has no quota
)


@contextlib.contextmanager
def replacing(
    target: str | os.PathLike[str],
    *,
    error: type[Exception] | None = FileError,
    durable: bool = True,
    private: bool = False,
) -> Iterator[Path]:
    """Yield an empty draft beside `target` that replaces it on success and is removed on an error.

    Links are followed, the permissions of an existing file are kept, and a device or pipe is written directly.

    Args:
        target: The file to write.
        error: What to raise when the file cannot be written; None lets the `OSError` pass.
        durable: Sync the draft to disk before it replaces the target. Without it a power failure may lose the file;
            meant for many small files that can be created again.
        private: Only this user may read or write the file.

    Raises:
        FileError: Or `error`: the file cannot be written; `target` is unchanged.
    """
    path = Path(os.path.realpath(target))
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            yield Path(target)
            return
        note(path.parent)
        draft = path.parent / f".{_own_name()}{path.suffix}"
        try:
            try:
                # the umask applies
                os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666))
                yield draft
                publish(draft, path, durable=durable, keep=not private)
            finally:
                _remove(draft)
        finally:  # Ctrl-C at the very moment in which the removal began
            _remove(draft, WAITS[:1])
    except OSError as exc:
        if error is None:
            raise
        raise error(f"{target}: cannot be written: {exc.strerror or exc}") from exc


def write_bytes(
    target: str | os.PathLike[str],
    data: bytes | memoryview,
    *,
    error: type[Exception] | None = FileError,
    durable: bool = True,
    private: bool = False,
) -> None:
    """Write a file atomically; arguments and errors as for :func:`replacing`."""
    with replacing(target, error=error, durable=durable, private=private) as draft, draft.open("wb") as stream:
        stream.write(data)


def write_text(
    target: str | os.PathLike[str],
    text: str,
    *,
    error: type[Exception] | None = FileError,
    durable: bool = True,
    private: bool = False,
) -> None:
    """Write text as UTF-8 with its line ends unchanged; arguments and errors as for :func:`replacing`."""
    write_bytes(target, text.encode("utf-8", "surrogateescape"), error=error, durable=durable, private=private)


def publish(draft: Path, target: Path, *, durable: bool = True, keep: bool = True) -> None:
    """Move a finished file to its place in one step.

    Args:
        draft: The file, on the same file system as `target`.
        target: The file that it replaces.
        durable: As for :func:`replacing`.
        keep: Keep the permissions of an existing `target`.

    Raises:
        OSError: `target` cannot be written; it is unchanged.
    """
    if target.exists():
        if not os.access(target, os.W_OK):  # os.replace asks for the folder's permission alone
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        if keep:
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
    if durable:
        with draft.open("rb+") as stream:
            try:
                os.fsync(stream.fileno())
            except OSError as exc:
                if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync
                    raise
    os.replace(draft, target)


def publish_folder(draft: Path, target: Path, parts: Sequence[str], error: type[YoloAttnError] = FileError) -> None:
    """Move a finished folder to its place; the folder of the same kind that it replaces is removed.

    Args:
        draft: The folder, on the same file system as `target`.
        target: Its place.
        parts: Patterns of the names that a folder of this kind holds; one that holds others is not replaced.
        error: What to raise then.

    Raises:
        YoloAttnError: Of class `error`: `target` is a file, or a folder that holds something else.
        OSError: `target` cannot be written; it is unchanged.
    """
    before = None
    if os.path.lexists(target):
        foreign = target.is_symlink() or not target.is_dir()
        others = [] if foreign else [p.name for p in target.iterdir() if not any(p.match(part) for part in parts)]
        if foreign or others:
            what = f"holds {', '.join(sorted(others)[:3])}" if others else "is no folder"
            raise error(f"{target}: is in the way: it {what}. Move it away, or choose another place.")
        before = draft.with_name(f"{draft.name}.before")
    with undisturbed():  # between the two, there is neither
        if before is not None:
            os.rename(target, before)
        try:
            os.rename(draft, target)
        except OSError:
            if before is not None:
                os.rename(before, target)
            raise
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)


def _own_name() -> str:
    """Return a name for a draft or a scratch folder, which nothing else has; see :data:`.system.processes.OWNED`."""
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
    made = Path(tempfile.gettempdir()) / _own_name() if folder is None else folder / f".{_own_name()}"
    try:
        try:
            made.mkdir(mode=0o700)
            yield made
        finally:
            _remove(made)
    finally:  # Ctrl-C at the very moment in which the removal began
        _remove(made, WAITS[:1])


def _remove(path: Path, waits: Sequence[float] = WAITS) -> None:
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
            file = Path(tempfile.gettempdir()) / f"{_own_name()}.folders"
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


def read_text(path: str | os.PathLike[str], error: type[YoloAttnError], *, name: str = "", mark: bool = False) -> str:
    """Read a UTF-8 text file with its line ends unchanged.

    Args:
        path: The file.
        error: The class of error to raise.
        name: Its name in messages; the path when empty.
        mark: Keep a byte-order mark, which Windows editors write; for text that is written back.

    Raises:
        YoloAttnError: Of class `error`: the file is missing, unreadable or not UTF-8.
    """
    name = name or str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise error(f"{name}: cannot be read: {exc.strerror or exc}") from exc
    try:
        return data.decode("utf-8" if mark else "utf-8-sig")
    except UnicodeDecodeError as exc:
        sixteen = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        line = data[: exc.start].count(b"\n") + 1
        found = "UTF-16 text" if sixteen else f"not UTF-8 text (line {line}, byte {exc.start})"
        raise error(f"{name}: is {found}. Save it as UTF-8.") from exc


def read_source(path: str | os.PathLike[str]) -> str:
    """Read a text file of others, such as a host's code or a label file; bytes that are not UTF-8 are replaced.

    Raises:
        OSError: It cannot be read.
    """
    return Path(path).read_bytes().decode("utf-8-sig", errors="replace")


def home_folder() -> Path:
    """Return the user's home folder; where there is none, as in some containers, one in the temporary folder."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"yolo_attn-{getattr(os, 'getuid', lambda: 'user')()}"


def cache_folder() -> Path:
    """Return the folder for what can be created again; ``YOLO_ATTN_CACHE`` moves it."""
    own = os.environ.get("YOLO_ATTN_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or home_folder() / ".cache") / "yolo_attn"


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading `~` replaced by the home folder; unchanged where there is none."""
    return Path(os.path.expanduser(path))


def is_mine(about: os.stat_result) -> bool:
    """Whether only this user can have written there. Windows protects users' folders itself."""
    return os.name == "nt" or (about.st_uid == os.getuid() and not about.st_mode & 0o022)
