"""Which process made a file: written into its name, and asked for later."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from pathlib import Path

__all__ = ["OWNED", "alive", "owner"]

# The kit's drafts, scratch folders and notes: machine, process and when it began, and something random.
OWNED = re.compile(r"\.?yolo_attn-([0-9a-f]{8}-\d+-[0-9a-f]+)-[0-9a-f]{8}(?:\..*)?", re.DOTALL)


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:8]


def owner() -> str:
    """Return this process: machine, number and start, as they stand in a name."""
    pid = os.getpid()
    return f"{_machine()}-{pid}-{_began(pid)[0]:x}"


def alive(process: str) -> bool | None:
    """Whether a process that :func:`owner` named still runs; None where this machine cannot know."""
    machine, number, began = process.split("-")
    if machine != _machine():
        return None
    pid = int(number)
    since, state = _began(pid)
    if state == "Z" or (since and since != int(began, 16)):  # ended but not yet waited for, or another by that number
        return False
    return _exists(pid)


def _began(pid: int) -> tuple[int, str]:
    """When a process began, in the system's ticks since it was started, and its state; 0 where that is not told."""
    try:
        # The name of the program, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]), fields[0].decode("ascii", "replace")
    except (OSError, ValueError, IndexError):
        return 0, ""


def _exists(pid: int) -> bool:
    if os.name == "nt":  # where os.kill(pid, 0) would not ask, but interrupt
        return _exists_on_windows(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _exists_on_windows(pid: int) -> bool:
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore] # on Windows alone
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return bool(kernel.GetLastError() == 5)  # ERROR_ACCESS_DENIED: somebody else's
    try:
        code = ctypes.c_ulong()
        return not kernel.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value == 259  # STILL_ACTIVE
    finally:
        kernel.CloseHandle(handle)
