"""Run a file in a process of its own: some runtimes end the process on a network that they compute wrongly.

The process runs the module ``yolo_attn.runtime.child``; :class:`Apart` is its other end. Over the pipes go
frames: a line of JSON, then the arrays that it lists.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ..errors import ExportError, FileError, YoloAttnError, first_line
from ..system import launch

__all__ = ["Apart", "Died", "Killed", "ended", "from_outside", "get", "put"]

OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU")  # no crash, and nothing that a file is judged by
PATIENCE = 600.0  # seconds for one answer; a runtime that hangs would otherwise hang the export


class Died(YoloAttnError):
    """The process that ran a file ended, or answered no more."""


class Killed(ExportError):
    """The process was ended from outside, such as for want of memory: nothing is known of the file."""


class Apart:
    """A file opened in another process; a context manager, called with a batch.

    Args:
        path: The file or folder.
        runtime: A key of :data:`.engines.table.RUNTIMES`.
        threads: Number of threads; 0 leaves the choice to the runtime.

    Attributes:
        metadata: What the file says of itself.
        version: Version of the runtime.

    Raises:
        Died: The process ended without an answer; the message names the signal.
        Killed: It was ended from outside.
        FileError: The runtime cannot open or run the file.
        YoloAttnError: The runtime is not installed.
    """

    def __init__(self, path: Path, runtime: str, threads: int = 0) -> None:
        env = launch.environment({"YOLO_ATTN_HOOK": "0"})
        self.path, self.runtime = path, runtime
        try:
            self._told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close(); what the runtime prints
            self._process = subprocess.Popen(
                launch.command(__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._told, env=env
            )
        except OSError as exc:  # too many processes, too little memory, no temporary folder
            raise Killed(f"no process that runs {runtime} can be launched: {exc.strerror or exc}") from exc
        try:
            about, _ = self._ask({"path": str(path), "runtime": runtime, "threads": threads}, [])
        except BaseException:
            self.close()
            raise
        self.metadata: dict[str, str] = about["metadata"]
        self.version: str = about["version"]

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """Run on (B, 3, H, W) float32 between 0 and 1; return the outputs, the main one first."""
        return self._ask({}, [x])[1]

    def _ask(self, head: dict[str, Any], arrays: Sequence[np.ndarray]) -> tuple[dict[str, Any], list[np.ndarray]]:
        pipe = self._process
        assert pipe.stdin is not None and pipe.stdout is not None
        late = threading.Timer(PATIENCE, pipe.kill)
        late.start()
        try:
            put(pipe.stdin, head, arrays)
            answer, found = get(pipe.stdout)
        except (OSError, EOFError) as exc:
            hung = not late.is_alive()
            try:
                code = pipe.wait(timeout=5)
            except subprocess.TimeoutExpired:
                code = None
            why = f"gave no answer within {PATIENCE:.0f} s" if hung else ended(code)
            if not hung and from_outside(code):
                raise Killed(f"{self.runtime} {why} on this file, of which nothing is known. Try again") from exc
            raise Died(f"{self.runtime} {why} on this file{self._said()}") from exc
        finally:
            late.cancel()
        if "error" in answer:
            raise (FileError if answer["kind"] == "file" else YoloAttnError)(answer["error"])
        return answer, found

    def _said(self) -> str:
        """Return the last line that the runtime printed, if any."""
        self._told.seek(0)
        lines = self._told.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
        return f". It printed last: {lines[-1].strip()[:200]}" if lines else ""

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what is left in it can reach nobody
                    pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._told.close()

    def __enter__(self) -> Apart:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        if kind is not None:
            self._process.kill()
        self.close()


def from_outside(code: int | None) -> bool:
    """Return whether a process was ended from outside, by its return code."""
    return code in [-getattr(signal, name) for name in OUTSIDE if hasattr(signal, name)]


def ended(code: int | None) -> str:
    """Return how a process ended, by its return code, such as ``crashed (signal 11, SIGSEGV)``."""
    if code is None:
        return "stopped answering"
    if from_outside(code):
        name = signal.Signals(-code).name
        return f"was ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
    if code >= 0:
        return f"ended the process with code {code}"
    try:
        name = f", {signal.Signals(-code).name}"
    except ValueError:
        name = ""
    return f"crashed (signal {-code}{name})"


def put(pipe: IO[bytes], head: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
    """Write a frame: a line of JSON, and arrays."""
    arrays = [np.ascontiguousarray(a) for a in arrays]
    about = {**head, "arrays": [[a.dtype.str, list(a.shape)] for a in arrays]}
    pipe.write(json.dumps(about).encode() + b"\n")
    for a in arrays:
        pipe.write(a.data.cast("B") if a.size else b"")
    pipe.flush()


def get(pipe: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read a frame.

    Raises:
        EOFError: The other end is closed.
    """
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    found = []
    for kind, shape in head.pop("arrays"):
        dtype = np.dtype(kind)
        data = pipe.read(dtype.itemsize * math.prod(shape))
        if len(data) != dtype.itemsize * math.prod(shape):
            raise EOFError
        found.append(np.frombuffer(data, dtype).reshape(shape).copy())
    return head, found


def _serve() -> None:
    """Open the file that the first frame names, then answer batches until the pipe closes."""
    from .engines.network import Options
    from .engines.table import open_network

    taken, given = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a runtime prints is no answer
    network = None
    while True:
        try:
            head, arrays = get(taken)
        except EOFError:
            return
        answer: dict[str, Any] = {}
        outputs: list[np.ndarray] = []
        try:
            if network is None:
                network = open_network(Path(head["path"]), head["runtime"], Options(head["threads"]))
                answer = {"metadata": network.metadata, "version": network.version}
            else:
                outputs = network.run(arrays[0].astype(network.dtype, copy=False))
        except YoloAttnError as exc:
            answer = {"error": str(exc), "kind": "file" if isinstance(exc, FileError) else "kit"}
        except Exception as exc:  # what a runtime raises beside what its own file foresaw
            answer = {"error": f"{type(exc).__name__}: {first_line(exc)[:300]}", "kind": "file"}
        put(given, answer, outputs)


if __name__ == "__main__":
    _serve()
