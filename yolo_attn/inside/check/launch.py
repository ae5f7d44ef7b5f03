"""Launch the checks in a child, follow it, and go on where a module crashed or hung it."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any

from ... import errors
from ...errors import PluginError, YoloAttnError
from ...system import launch
from . import child as _child
from .blame import Places
from .order import BASIS, FIRST, NAMES, skipped
from .verdict import FAILURE, SKIPPED, Finding

__all__ = ["check"]

_LAUNCH = 120.0  # seconds to import torch and the user's file
_PATIENCE = 3  # crashes and hangs after which the rest is not tried


def check(
    name: str, options: Mapping[str, Any] | None = None, *, checks: tuple[str, ...] = NAMES, channels: int = 64,
    device: str = "cpu", limit: float = 60.0, plugins: tuple[str, ...] = (),
) -> Iterator[Finding]:  # fmt: skip
    """Check a module in a process of its own; the findings come as they are made.

    Args:
        name: A registered name, an alias or ``FILE.py:Class``.
        options: Options of the row, by name.
        checks: Which of :data:`NAMES`, in order.
        channels: Channels of the checks that need no other number.
        device: Where they run.
        limit: Seconds for each check.
        plugins: Files that are loaded first.

    Raises:
        YoloAttnError: No module has that name, or its file cannot be loaded, crashes or hangs.
    """
    left, ended = list(checks), 0
    failed: list[str] = []
    task = {"name": name, "options": dict(options or {}), "channels": channels, "device": device, "limit": limit, "plugins": list(plugins)}
    while left and ended < _PATIENCE:
        with _Child({**task, "checks": left, "failed": failed}) as child:
            for found in child.findings(left[-1], limit):
                left.remove(found.check)
                if found.status == FAILURE and found.check in (*FIRST, *BASIS):
                    failed.append(found.check)
                yield found
        ended += 1
        while left and skipped(left[0], failed):  # a crash among the first ends the rest
            yield skipped(left.pop(0), failed)  # type: ignore[misc]  # just asked
    yield from (Finding(n, SKIPPED, f"not made: the process was ended {ended} times") for n in left)


class _Child:
    """One process that makes checks."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        env = launch.environment({"PYTHONFAULTHANDLER": "1", "YOLO_OFFLINE": "true", "PYTHONIOENCODING": "utf-8"})
        env.setdefault("OMP_NUM_THREADS", "1")
        env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms on a GPU ask for it
        self.process = subprocess.Popen(
            launch.command(_child.__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.errors: list[bytes] = []
        self.file = ""
        assert self.process.stdout is not None and self.process.stderr is not None and self.process.stdin is not None
        self.readers = [
            threading.Thread(target=_read, args=(self.process.stdout, self.lines.put, True), daemon=True),
            threading.Thread(target=_read, args=(self.process.stderr, self.errors.append, False), daemon=True),
        ]
        for reader in self.readers:
            reader.start()
        with contextlib.suppress(OSError):  # it has ended already, which is told by its exit code
            self.process.stdin.write(f"{json.dumps(task)}\n".encode())
            self.process.stdin.flush()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def findings(self, last: str, limit: float) -> Iterator[Finding]:
        """The findings as they come; the last one names a crash or a hang."""
        running = ""
        while True:
            try:
                line = self.lines.get(timeout=limit + 1 if running else max(_LAUNCH, limit))
            except queue.Empty:
                yield self._hung(running, limit)
                return
            if line is None:
                yield self._crashed(running)
                return
            told = json.loads(line)
            if "error" in told:
                kind = getattr(errors, told["kind"], YoloAttnError)
                raise kind(told["error"])
            self.file = told.get("file", self.file)
            running = told.get("begin", running)
            if "finding" in told:
                running = ""
                found = Finding.from_json(told["finding"])
                yield found
                if found.check == last:
                    return

    def _hung(self, running: str, limit: float) -> Finding:
        self.process.kill()
        self.process.wait()
        self.readers[1].join(5)
        if not running:
            raise PluginError(f"{self.task['name']}: its file is still running after {max(_LAUNCH, limit):.0f} s on import")
        return Finding(
            running, FAILURE, f"still running after {limit:g} s: it was ended", self._line(),
            "bound every loop; a heavy module may need --timeout SECONDS",
        )  # fmt: skip

    def _crashed(self, running: str) -> Finding:
        code = self.process.wait()
        self.readers[1].join(5)
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how += ", as when memory runs out" if how == "SIGKILL" else ""
        if not running:
            last = b"".join(self.errors).decode("utf-8", "replace").strip().splitlines()
            raise PluginError(f"{self.task['name']}: its file ended the process on import ({how}){': ' + last[-1][:200] if last and not code < 0 else ''}")
        return Finding(
            running, FAILURE, f"the process was ended: {how}", self._line(),
            "no os._exit() and no memory that is not yours; a compiled extension must check its arguments",
        )  # fmt: skip

    def _line(self) -> Any:
        """The innermost line of the module's file in the last traceback that the process left."""
        text = b"".join(self.errors).decode("utf-8", "replace")
        dump = text[max(text.rfind("(most recent call first)"), 0) :]
        return Places(self.file).first_in(dump) if self.file else None


def _read(stream: IO[bytes], put: Any, end: bool) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        for line in stream:
            put(line)
    if end:
        put(None)
