"""Identify a process: in the names of the files that it creates, and to those that it launches, which end with it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
import threading
import time
from pathlib import Path

__all__ = ["OWNED", "alive", "end_with", "owner"]

# Names of drafts, scratch folders and notes: machine, process id and its start time, random suffix.
OWNED = re.compile(r"\.?yolo_attn-([0-9a-f]{8}-\d+-[0-9a-f]+)-[0-9a-f]{8}(?:\..*)?", re.DOTALL)


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:8]


def owner() -> str:
    """Return an identifier of this process for file names: machine, process id, time of launch."""
    pid = os.getpid()
    return f"{_machine()}-{pid}-{_began(pid)[0]:x}"


def alive(process: str) -> bool | None:
    """Whether a process identified by :func:`owner` still runs; None if it belongs to another machine."""
    machine, number, began = process.split("-")
    if machine != _machine():
        return None
    pid = int(number)
    since, state = _began(pid)
    if state == "Z" or (since and since != int(began, 16)):  # a zombie, or another process with the same id
        return False
    return _exists(pid)


def end_with(launcher: str, every: float = 0.5) -> None:
    """End this process, at once and without what is done at exit, when another ends or has ended.

    Processes between the two count as well: where the parent of this one ends, it does.

    Args:
        launcher: The other process, as :func:`owner` identifies it there.
        every: Seconds between two looks.
    """
    parent = os.getppid()

    def watch() -> None:
        while alive(launcher) is not False and os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    if alive(launcher) is False:
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def _began(pid: int) -> tuple[int, str]:
    """Return when a process was launched, in clock ticks since boot, and its state; 0 where that is unknown."""
    try:
        # The name of the program, in parentheses, may contain spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]), fields[0].decode("ascii", "replace")
    except (OSError, ValueError, IndexError):
        return 0, ""


def _exists(pid: int) -> bool:
    if os.name == "nt":  # where os.kill(pid, 0) would terminate the process
        return _exists_on_windows(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _exists_on_windows(pid: int) -> bool:
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore] # on Windows alone
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return bool(kernel.GetLastError() == 5)  # ERROR_ACCESS_DENIED: another user's
    try:
        code = ctypes.c_ulong()
        return not kernel.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value == 259  # STILL_ACTIVE
    finally:
        kernel.CloseHandle(handle)
