"""Every file that the kit reads or writes: whole or not at all, UTF-8, and nothing left by a killed process.

A file is written as a draft beside its target, which it replaces in one step. Drafts and scratch folders carry the
process that made them in their name, so that the next command removes what a killed one left, and only that.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import FileError, YoloAttnError
from .system import locks
from .system.processes import OWNED, alive, owner

__all__ = [
    "LOCK",
    "REFUSED",
    "expand",
    "home_folder",
    "is_mine",
    "note",
    "publish",
    "read_source",
    "read_text",
    "replacing",
    "scratch",
    "sweep",
    "write_bytes",
    "write_text",
]

LOCK = ".yolo_attn.lock"  # of a folder that one process at a time may write into; of one thing in it: .yolo_attn-NAME.lock

# What a disk says to a user, and no mistake of the code.
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
    """Give an empty draft beside `target`, which takes its place once it is written, and is gone if it is not.

    Links are followed, the permissions of an existing file are kept, and a device or pipe is written as it is.

    Args:
        target: The file to write.
        error: What to raise where the disk refuses; None lets the `OSError` pass.
        durable: Wait until the draft is on the disk before it replaces anything. Without it a power cut may cost the
            file: for what can be made again, in numbers.
        private: Nobody but this user may read or write it.

    Raises:
        FileError: Or `error`: the disk refuses; what stood at `target` still stands there.
    """
    path = Path(os.path.realpath(target))
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            yield Path(target)
            return
        draft = _draft(path, 0o600 if private else 0o666)
        try:
            yield draft
            publish(draft, path, durable=durable, keep=not private)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
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
    """Write a file whole or not at all; arguments and errors as for :func:`replacing`."""
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
    """Write text as UTF-8 with the line ends that it has; arguments and errors as for :func:`replacing`."""
    write_bytes(target, text.encode("utf-8", "surrogateescape"), error=error, durable=durable, private=private)


def publish(draft: Path, target: Path, *, durable: bool = True, keep: bool = True) -> None:
    """Move a finished file to its place in one step, if wanted with the permissions of the file that it replaces.

    Raises:
        OSError: The disk refuses, or `target` may not be written; it is as it was.
    """
    if target.exists():
        if not os.access(target, os.W_OK):  # a folder's permission alone would do for a replacement
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        if keep:
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
    if durable:
        with draft.open("rb+") as stream:
            try:
                os.fsync(stream.fileno())
            except OSError as exc:
                if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have nothing to wait for
                    raise
    os.replace(draft, target)


def _draft(target: Path, mode: int) -> Path:
    """Create an empty file beside the target, with a name that no other writer has."""
    note(target.parent)
    while True:
        draft = target.parent / f".yolo_attn-{owner()}-{secrets.token_hex(4)}{target.suffix}"
        try:
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))  # less what the user's umask takes
        except FileExistsError:
            continue
        return draft


@contextlib.contextmanager
def scratch(folder: Path | None = None) -> Iterator[Path]:
    """Give a folder that is gone afterwards, private to this user.

    Args:
        folder: Where to make it, on whose disk files can be moved at once; the system's place for temporary files when
            absent.

    Raises:
        OSError: The disk refuses.
    """
    if folder is not None:
        note(folder)
    dot = "" if folder is None else "."
    while True:
        made = Path(folder or tempfile.gettempdir()) / f"{dot}yolo_attn-{owner()}-{secrets.token_hex(4)}"
        try:
            made.mkdir(mode=0o700)
        except FileExistsError:
            continue
        break
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


# The folders where this process made drafts, kept in a file of its own while it runs: if it is killed, the next
# command finds there where to look.
_noted: dict[int, tuple[Path | None, set[str]]] = {}


def note(folder: Path) -> None:
    """Remember that this process writes into a folder, after removing what killed ones left there."""
    known = os.path.abspath(folder)
    file, folders = _noted.get(os.getpid(), (None, set()))
    if known in folders:
        return
    with contextlib.suppress(OSError):
        sweep(Path(known))
    if file is None:
        _noted.clear()  # a forked child's own list starts empty
        with contextlib.suppress(OSError):
            file = Path(tempfile.gettempdir()) / f"yolo_attn-{owner()}-{secrets.token_hex(4)}.folders"
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            atexit.register(_forget, os.getpid())
    folders.add(known)
    _noted[os.getpid()] = file, folders
    if file is not None:
        with contextlib.suppress(OSError), file.open("ab") as stream:
            stream.write(os.fsencode(known) + b"\0")


def _forget(pid: int) -> None:
    file, _ = _noted.pop(pid, (None, set()))
    if file is not None and pid == os.getpid():
        with contextlib.suppress(OSError):
            file.unlink()


def sweep(*folders: Path) -> list[Path]:
    """Remove what killed processes left, here and where they had written; return what was removed.

    Only files and folders of this user that carry the kit's prefix and a process of this machine that is no more.

    Args:
        folders: Where to look; the system's place for temporary files when there are none.
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
    """Entries of a folder that a process of this user and machine made which is no more."""
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
    """Read a UTF-8 text file, line ends as they are.

    Args:
        path: The file.
        error: What to raise.
        name: What messages call it; its path when empty.
        mark: Keep a byte-order mark, which Windows editors write; for text that is written back.

    Raises:
        YoloAttnError: As `error`: not there, not readable, not UTF-8.
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
    """Read what others wrote for a program, such as a host's code or a label file; bytes that are no text count as such.

    Raises:
        OSError: It cannot be read.
    """
    return Path(path).read_bytes().decode("utf-8-sig", errors="replace")


def home_folder() -> Path:
    """Return the user's home; where there is none, as in some containers, a folder among the temporary files."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"yolo_attn-{getattr(os, 'getuid', lambda: 'user')()}"


def cache_folder() -> Path:
    """Where the kit keeps what it can make again; ``YOLO_ATTN_CACHE`` moves it."""
    own = os.environ.get("YOLO_ATTN_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or home_folder() / ".cache") / "yolo_attn"


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading `~` replaced by the home; as it is where there is none."""
    return Path(os.path.expanduser(path))


def is_mine(about: os.stat_result) -> bool:
    """Whether nobody but this user can have written there. Windows keeps its users' folders apart by itself."""
    return os.name == "nt" or (about.st_uid == os.getuid() and not about.st_mode & 0o022)
