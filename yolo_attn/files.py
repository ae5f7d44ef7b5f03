"""Reading and writing files, as UTF-8 and atomically: a draft beside the target replaces it in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import FileError, YoloAttnError
from .system.drafts import AT_ONCE, draft_name, note, remove
from .system.signals import undisturbed

__all__ = [
    "REFUSED",
    "expand",
    "home_folder",
    "is_mine",
    "publish",
    "publish_folder",
    "read_source",
    "read_text",
    "replacing",
    "write_bytes",
    "write_text",
]

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
        draft = path.parent / f".{draft_name()}{path.suffix}"
        try:
            try:
                # the umask applies
                os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666))
                yield draft
                publish(draft, path, durable=durable, keep=not private)
            finally:
                remove(draft)
        finally:  # Ctrl-C at the very moment in which the removal began
            remove(draft, AT_ONCE)
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
