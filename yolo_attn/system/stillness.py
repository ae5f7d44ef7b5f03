"""While a model that somebody else described is built: no file is opened, no address asked, no process or thread begun.

The rows of such a model name layers, and a layer computes. Python tells of everything else that its code does by
audit events (PEP 578), whatever way it takes there; here they are refused, in the thread that builds. Python's own
imports pass: they read code that is installed. Files that C code opens by itself, such as torch's own writer, are not
seen, and a thread only where Python tells of it (3.12 and later).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import RowError, shown

__all__ = ["lifted", "stillness"]

_REFUSED = frozenset(
    """
    socket.connect socket.bind socket.getaddrinfo socket.gethostbyname socket.sendto urllib.Request ftplib.connect
    http.client.connect subprocess.Popen os.system os.exec os.posix_spawn os.spawn os.fork os.forkpty os.startfile
    os.remove os.rename os.mkdir os.rmdir os.link os.symlink os.chmod os.chown os.truncate os.utime os.putenv
    os.unsetenv os.kill shutil.copyfile shutil.move shutil.rmtree shutil.unpack_archive shutil.make_archive
    tempfile.mkstemp tempfile.mkdtemp pickle.find_class ctypes.dlopen mmap.__new__ sqlite3.connect
    webbrowser.open _thread.start_new_thread
    """.split()
)
_thread = threading.local()
_installed = False


@contextlib.contextmanager
def stillness(file: str) -> Iterator[None]:
    """Refuse, in this thread, whatever is more than computing.

    Args:
        file: Named in messages.

    Raises:
        RowError: It was tried; also if what tried it caught the refusal.
    """
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hear)  # for the life of the process; outside this context it does nothing
    before = getattr(_thread, "now", None)
    tried: list[RowError] = []
    _thread.now = (file, tried)
    try:
        yield
    except Exception as exc:
        if tried and exc is not tried[0]:  # what came of a refusal that was caught
            raise tried[0] from exc
        raise
    finally:
        _thread.now = before
    if tried:
        raise tried[0]


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Refuse nothing meanwhile, for the constructor of a module that the user trusts by name."""
    before, _thread.now = getattr(_thread, "now", None), None
    try:
        yield
    finally:
        _thread.now = before


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" and event not in _REFUSED:
        return
    now = getattr(_thread, "now", None)
    if now is None or (event == "open" and _is_harmless(*args[:2])) or _imports():
        return
    file, tried = now
    what = f"opens {shown(args[0])}" if event == "open" else f"asks for {event}({shown(args[0]) if args else ''})"
    refusal = RowError(
        f"{file}: a layer {what} while it is built. Layers compute and do nothing else. "
        f"If a module of your own has to, name it in YOLO_ATTN_TRUST, or give the model as a YAML."
    )
    tried.append(refusal)
    raise refusal


def _is_harmless(path: Any, mode: Any) -> bool:
    """What is open already, source text that a warning quotes, and what the system tells of itself."""
    if isinstance(path, int):
        return True
    text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    if isinstance(mode, str) and not set(mode) & set("wax+") and text.endswith((".py", ".pyc")):
        return True
    real = os.path.realpath(text)
    return real == os.devnull or real.startswith(("/proc/", "/sys/"))


def _imports() -> bool:
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
