"""Where runs train, and who keeps each place busy: processes on this machine, one device each, or tasks of a cluster."""

from __future__ import annotations

import contextlib
import contextvars
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import FileError, UsageError
from ..files import read_source, read_text, write_text
from ..log import announce
from ..system import launch, locks, processes
from ..words import option
from . import worker

__all__ = ["Crew", "Here", "Outcome", "Place", "attempt", "devices", "launched", "places", "progress"]

COMMAND = tuple(launch.command(worker.__name__)[1:])  # what does one run, behind the name of Python; the file of its task follows
LEAST_FREE = 1 << 20  # bytes; with fewer a disk counts as full


class Place(Protocol):
    """Where one run at a time trains."""

    @property
    def name(self) -> str:
        """What is recorded of a run: a device, a node."""

    def train(self, folder: Path, task: Mapping[str, Any]) -> int:
        """Do a task, leave what it found in its folder, and return the exit code of :mod:`.worker`."""

    def end(self) -> None:
        """End what runs here, from another thread, and begin nothing more."""


class Here:
    """A place on this machine: a process for each run.

    Args:
        device: As the hosts take it; empty for what they choose.
    """

    def __init__(self, device: str = "") -> None:
        self.device = device
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False

    @property
    def name(self) -> str:
        """The device."""
        return self.device or "default"

    def train(self, folder: Path, task: Mapping[str, Any]) -> int:
        """Run the worker; it ends with this process, whatever ends that."""
        file = folder / "task.json"
        write_text(file, json.dumps({**task, "argv": with_device(task["argv"], self.device)}), durable=False)
        with self._guard:
            if self._ended:
                return worker.FAILED
        with launched([*COMMAND, str(file)], folder / "log.txt") as child:
            with self._guard:
                self._child = child
                ended = self._ended
            if ended:
                stop(child)
            try:
                return child.wait()
            finally:
                with self._guard:
                    self._child = None
                locks.clear(worker.lock_of(folder))  # of one that was killed

    def end(self) -> None:
        """End the worker and what it launched."""
        with self._guard:
            self._ended = True
            child = self._child
        if child is not None:
            stop(child)


def with_device(argv: Sequence[str], device: str) -> list[str]:
    """Return the arguments of a training with the device that it is given, in front of any ``key=value``."""
    return [*(["--device", device] if device else []), *argv]


@contextlib.contextmanager
def launched(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker with what it prints in a log; standard input is a pipe that closes with this process."""
    with log.open("ab") as stream:
        child = subprocess.Popen(
            [sys.executable, *argv, processes.owner()], stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT,
            env=launch.environment(), start_new_session=True,
        )  # fmt: skip
        try:
            yield child
        finally:
            if child.stdin is not None:
                with contextlib.suppress(OSError):
                    child.stdin.close()


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a worker and what it launched."""
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()  # which is what it watches
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()


# -- which places there are


def devices(text: str) -> list[str]:
    """Return the devices that runs are shared out among: ``0,1`` is two, ``0+1`` is both at once for each run (DDP)."""
    return [",".join(p.strip() for p in part.split("+") if p.strip()) for part in text.split(",") if part.strip()]


def places(device: str = "", jobs: int | None = None) -> list[Place]:
    """Return the places on this machine.

    Args:
        device: One or several devices, see :func:`devices`.
        jobs: Runs at a time; one for each device when absent. More than devices: they take turns.

    Raises:
        UsageError: Fewer jobs than devices, or none.
    """
    named = devices(device)
    jobs = max(1, len(named)) if jobs is None else jobs
    if jobs < 1:
        raise UsageError(f"{option('jobs')} must be at least 1, got {jobs}")
    if jobs < len(named):
        raise UsageError(
            f"{option('jobs', jobs)} leaves devices of {option('device', device)} without a run. Omit {option('jobs')} for a "
            f"run on each device; '{device.replace(',', '+')}' is one run on all of them (DDP)"
        )
    return [Here(named[k % len(named)] if named else "") for k in range(jobs)]


# -- one run


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        result: What the worker found; None where it failed.
        reason: Why it failed.
    """

    result: dict[str, Any] | None
    reason: str = ""


def attempt(place: Place, study: Path, folder: Path, task: Mapping[str, Any]) -> Outcome:
    """Do a task at a place, in a folder that is ready for it.

    Raises:
        FileError: The disk is full.
    """
    code = place.train(folder, task)
    if code == 0:
        outcome = Outcome(json.loads(read_text(folder / worker.RESULT, FileError)))
    else:
        outcome = Outcome(None, _reason(folder, code))
        if code == worker.FULL or shutil.disk_usage(folder).free < LEAST_FREE:
            raise FileError(f"{study}: the disk is full. Finished runs are kept: free some space, and the same command goes on")
    for name in ("task.json", worker.RESULT, worker.TROUBLE):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    return outcome


def _reason(folder: Path, code: int) -> str:
    trouble = folder / worker.TROUBLE
    if trouble.is_file():
        return str(json.loads(read_text(trouble, FileError))["reason"])
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
    log = folder / "log.txt"
    lines = [line.strip() for line in read_source(log).splitlines() if line.strip()] if log.is_file() else []
    return f"exit code {code}: {lines[-1][:300]}" if lines else f"exit code {code}"


# -- all places at once


class Crew:
    """A thread for each place.

    Args:
        places: The places.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = list(places)
        self.stop: BaseException | None = None

    def carry(self, work: Callable[[Place], None]) -> None:
        """Let `work` do runs at each place until it returns; what one raises ends all, and is raised here."""

        def guarded(place: Place) -> None:
            try:
                work(place)
            except BaseException as exc:  # raised again by the thread that waits
                self.stop = self.stop or exc

        # How options are spelled in messages is this thread's context.
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(guarded, p), daemon=True) for p in self.places
        ]
        try:
            for t in threads:
                t.start()
            while any(t.is_alive() for t in threads) and self.stop is None:
                time.sleep(0.05)
        except BaseException as exc:
            self.stop = self.stop or exc
        if self.stop is not None:
            for place in self.places:
                place.end()
            for t in threads:
                t.join(timeout=30)
            raise self.stop


@contextlib.contextmanager
def progress(done: Callable[[], float], total: Callable[[], float], told: Callable[[], str]) -> Iterator[None]:
    """Show how far a plan is and the time left: a bar on a terminal, elsewhere a line whenever `told` has changed.

    Args:
        done: Epochs that are behind.
        total: Epochs of all; may change.
        told: What has finished, in words.
    """
    from tqdm import tqdm

    over = threading.Event()
    bar = tqdm(total=round(total()), initial=round(done()), unit="epoch", desc="all runs", disable=None, leave=False)

    def follow() -> None:
        began, at_first, before = time.monotonic(), done(), told()
        last = False
        while not last:
            last = over.wait(1)  # once more when it is over
            now, words = done(), told()
            bar.total, bar.n = round(total()), round(now)
            bar.refresh()
            if bar.disable and words != before:
                before = words
                pace = (time.monotonic() - began) / max(now - at_first, 1)
                announce("%s, about %s left", words, span(pace * max(total() - now, 0)))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
        bar.close()


def span(seconds: float) -> str:
    """Return a time as people say it."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"
