"""Locks between processes: those of the system, which are released when their process ends, killed or not."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import re
import socket
import stat
import sys
import threading
import time
from pathlib import Path

from .processes import alive, owner

__all__ = ["Busy", "clear", "release", "take"]

_FAR = 1 << 30  # offset of the locked byte, beyond the content: on Windows a locked byte cannot be read
_UNSUPPORTED = tuple(
    getattr(errno, n) for n in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL") if hasattr(errno, n)
)


class Busy(Exception):
    """Another process holds the lock; the message says which."""


_PROCESS = re.compile(r"[0-9a-f]{8}-\d+-[0-9a-f]+")
_held: dict[str, tuple[int, int]] = {}  # path: descriptor, number of times taken
_guard = threading.Lock()


def take(path: Path, *, wait: bool = False) -> str:
    """Take a lock; the same process may take it several times.

    Args:
        path: The lock's file, which is created here and removed by :func:`release`.
        wait: Wait for it instead of raising; on a file system without locks, continue without one.

    Returns:
        The process that was killed while it held the lock, as ``process 123 on HOST``; usually empty.

    Raises:
        Busy: Another process holds it.
        OSError: The file cannot be created.
    """
    key = _key(path)
    with _guard:
        if key in _held:
            number, count = _held[key]
            _held[key] = number, count + 1
            return ""
        number, before = _open(key, wait)
        _held[key] = number, 1
        return before


def release(path: Path) -> None:
    """Release a lock once; the last release removes its file."""
    key = _key(path)
    with _guard:
        number, count = _held.pop(key, (-1, 0))
        if count > 1:
            _held[key] = number, count - 1
        elif count:
            _drop(key, number)


def clear(path: Path) -> bool:
    """Remove the file of a lock that no process holds; return whether there was one."""
    key = _key(path)
    with _guard:
        if key in _held or not os.path.exists(key):
            return False
        try:
            number, _ = _open(key, False, make=False)
        except (Busy, OSError):
            return False
        _drop(key, number)
        return True


def _open(key: str, wait: bool, make: bool = True) -> tuple[int, str]:
    while True:
        number = _descriptor(key, make)
        try:
            locked = _lock(number, wait)
            text = os.read(number, 400).decode("utf-8", "replace").split("\n")
            process, name = text[0], text[1] if len(text) > 1 else ""
            if process and not _PROCESS.fullmatch(process):
                raise _foreign(key)
            running = alive(process) if process else False
            if locked is False or (locked is None and running is not False and not wait):
                raise Busy(name or "another process")
            if not _still_there(number, key):  # released between the two steps, and its file removed
                os.close(number)
                continue
            os.ftruncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
            os.write(number, f"{owner()}\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(number)
            raise
        return number, name if process and process != owner() else ""


def _key(path: Path) -> str:
    """The lock's own path: links in its folder's are followed, one in its place is not."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _descriptor(key: str, make: bool) -> int:
    """Open a lock's file, and nothing else that stands there: a lock is written over, and removed in the end.

    Raises:
        PermissionError: A link, in a folder of somebody else's making, or no file.
    """
    try:
        number = os.open(key, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | (os.O_CREAT if make else 0), 0o666)
    except OSError as exc:
        if os.path.islink(key):
            raise _foreign(key) from exc
        raise
    about = os.fstat(number)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(number)
        raise _foreign(key)
    return number


def _foreign(key: str) -> PermissionError:
    return PermissionError(errno.EACCES, "is not a lock of this kit: look at it, and remove it", key)


def _drop(key: str, number: int) -> None:
    windows, ours = os.name == "nt", _still_there(number, key)
    if windows:  # an open file cannot be removed there
        os.close(number)
    if ours:  # a host may have emptied the folder, and another process locked it since
        with contextlib.suppress(OSError):
            os.unlink(key)
    if not windows:
        os.close(number)


def _still_there(number: int, key: str) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(key))
    except OSError:
        return False


def _lock(number: int, wait: bool) -> bool | None:
    """Try to lock; return whether that succeeded, or None on a file system without locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(number, _FAR, os.SEEK_SET)
            try:
                while True:
                    try:
                        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
                        break
                    except OSError:  # msvcrt's own waiting mode gives up after ten seconds
                        if not wait:
                            raise
                        time.sleep(0.1)
            finally:
                os.lseek(number, 0, os.SEEK_SET)
        else:
            import fcntl

            # Not flock, whose locks forked workers would inherit.
            fcntl.lockf(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as exc:
        return None if exc.errno in _UNSUPPORTED else False
    return True


def _in_child() -> None:
    """A forked child holds no lock of its parent's, whichever of its threads was taking one."""
    global _guard
    _guard = threading.Lock()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_in_child)


@atexit.register
def _release_all() -> None:
    for key, (number, _) in list(_held.items()):
        if _mine(key):  # a forked child holds none of them
            _drop(key, number)


def _mine(key: str) -> bool:
    try:
        return Path(key).read_bytes().decode("utf-8", "replace").startswith(owner() + "\n")
    except OSError:
        return False
