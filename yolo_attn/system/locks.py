"""Locks between processes: the system's own, which end with the process that holds them, killed or not."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import socket
import sys
import threading
import time
from pathlib import Path

from .processes import alive, owner

__all__ = ["Busy", "clear", "release", "take"]

_FAR = 1 << 30  # Windows keeps others from reading a locked byte: one that nobody reads
_UNSUPPORTED = tuple(
    getattr(errno, n) for n in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL") if hasattr(errno, n)
)


class Busy(Exception):
    """Another process holds the lock; the message says which."""


_held: dict[str, tuple[int, int]] = {}  # path: descriptor, how often it was taken
_guard = threading.Lock()


def take(path: Path, *, wait: bool = False) -> str:
    """Take a lock; once more by the same process is counted.

    Args:
        path: The lock's file, which is made, and removed by :func:`release`.
        wait: Wait for it instead of raising; on a file system without locks, go on without one.

    Returns:
        The process that was killed while it held the lock, as ``process 123 on HOST``; usually nothing.

    Raises:
        Busy: Another process holds it.
        OSError: The file cannot be made.
    """
    key = os.path.realpath(path)
    with _guard:
        if key in _held:
            number, count = _held[key]
            _held[key] = number, count + 1
            return ""
        number, before = _open(key, wait)
        _held[key] = number, 1
        return before


def release(path: Path) -> None:
    """Give a lock back; the last time removes its file."""
    key = os.path.realpath(path)
    with _guard:
        number, count = _held.pop(key, (-1, 0))
        if count > 1:
            _held[key] = number, count - 1
        elif count:
            _drop(key, number)


def clear(path: Path) -> bool:
    """Remove the file of a lock that nobody holds any more; whether there was one."""
    key = os.path.realpath(path)
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
        number = os.open(key, os.O_RDWR | (os.O_CREAT if make else 0), 0o666)
        try:
            locked = _lock(number, wait)
            text = os.read(number, 400).decode("utf-8", "replace").split("\n")
            process, name = text[0], text[1] if len(text) > 1 else ""
            try:
                running = alive(process) if process else False
            except ValueError:  # somebody else's file
                running = False
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


def _drop(key: str, number: int) -> None:
    windows = os.name == "nt"
    if windows:  # which removes no open file
        os.close(number)
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
    """Whether the lock is this process's now; None where the file system has none."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(number, _FAR, os.SEEK_SET)
            try:
                while True:
                    try:
                        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
                        break
                    except OSError:  # its own waiting gives up after ten seconds
                        if not wait:
                            raise
                        time.sleep(0.1)
            finally:
                os.lseek(number, 0, os.SEEK_SET)
        else:
            import fcntl

            # Not flock: its locks would live on in workers that were forked.
            fcntl.lockf(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as exc:
        return None if exc.errno in _UNSUPPORTED else False
    return True


@atexit.register
def _release_all() -> None:
    for key, (number, _) in list(_held.items()):
        if _mine(key):  # a forked child that ends holds nothing
            _drop(key, number)


def _mine(key: str) -> bool:
    try:
        return Path(key).read_bytes().decode("utf-8", "replace").startswith(owner() + "\n")
    except OSError:
        return False
