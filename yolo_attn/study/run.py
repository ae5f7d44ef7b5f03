"""Carry a plan out: every run once, several at a time, shared with whoever works on the same study, and killable.

A run is a folder; it has happened once its `run.yaml` is there, which is written in one step. What a killed process
left without one is cleared away and trained from its beginning: a training that goes on in the middle would not be the
same training. A run that failed is tried again by the next command.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import FileError, UsageError
from ..files import LOCK, read_source, read_text, write_text
from ..log import announce
from ..system import locks
from ..words import option
from . import record, worker
from .plan import Plan, Run

__all__ = ["carry_out"]

COMMAND = (sys.executable, "-m", worker.__name__)  # what does one run; the file of its task follows
LEAST_FREE = 1 << 20  # bytes; with fewer a disk counts as full


class _Study:
    """A plan under way in this process: what is taken, what runs, how far it is."""

    def __init__(self, folder: Path, plan: Plan, data: str, device: str, jobs: int) -> None:
        self.folder, self.plan, self.data = folder, plan, data
        devices = [d for d in device.split(",") if d]
        self.devices = [devices[k % len(devices)] if devices else "" for k in range(jobs)]  # shared out
        self.guard = threading.Lock()
        self.done = set(record.read_all(folder, plan))
        self.done = {r for r in self.done if (record.read(folder, r) or {}).get("status") == "finished"}
        self.tried: set[Run] = set()
        self.running: dict[Run, subprocess.Popen[bytes]] = {}
        self.stop: BaseException | None = None
        self.git = _git()

    # -- which run is next

    def take(self) -> Run | None:
        """Take the next run that nobody works on, lock it, and return it; None where there is none (any more)."""
        while self.stop is None:
            elsewhere = False
            for run in self.plan.runs:
                with self.guard:
                    if run in self.done or run in self.tried or run in self.running:
                        continue
                    try:
                        locks.take(self._lock(run))
                    except locks.Busy:
                        elsewhere = True
                        continue
                    self.tried.add(run)
                there = record.read(self.folder, run)  # another process may have finished it meanwhile
                if there is not None and there["status"] == "finished":
                    with self.guard:
                        self.done.add(run)
                    locks.release(self._lock(run))
                    continue
                return run
            if not elsewhere:
                return None
            time.sleep(1)  # another process trains what is left; it may be killed, and then it is ours
        return None

    def _lock(self, run: Run) -> Path:
        return self.folder / "runs" / LOCK.replace(".lock", f"-{run.name}.lock")

    # -- one run

    def work(self, device: str) -> None:
        """Do runs until none is left."""
        while (run := self.take()) is not None:
            try:
                self._do(run, device)
            except BaseException as exc:
                self.stop = self.stop or exc
                return
            finally:
                locks.release(self._lock(run))

    def _do(self, run: Run, device: str) -> None:
        record.clear(self.folder, run)
        folder = record.folder_of(self.folder, run)
        task = {
            "folder": str(folder), "argv": self._argv(run, device), "data": self.data,
            "imgsz": self.plan.arguments["imgsz"],
        }  # fmt: skip
        file = folder / "task.json"
        write_text(file, json.dumps(task), durable=False)
        began = time.monotonic()
        code = self._launched(run, file, folder / "log.txt")
        if self.stop is not None:
            return
        about = {
            "status": "failed", "device": device or "default", "epochs": self.plan.epochs, "git": self.git,
            "data_sha256": self.plan.data_sha256, "config_sha256": self.plan.configs[run.config]["sha256"],
            "weights_sha256": self.plan.weights_sha256,
        }  # fmt: skip
        if code == 0:
            result = json.loads(read_text(folder / worker.RESULT, FileError))
            about.update(result, status="finished", finished=_now())
        else:
            reason = self._reason(folder, code)
            if code == worker.FULL or shutil.disk_usage(folder).free < LEAST_FREE:
                raise FileError(
                    f"{self.folder}: the disk is full. Finished runs are kept: free some space, and the same command goes on"
                )
            about.update(reason=reason, seconds=round(time.monotonic() - began, 1), finished=_now())
        for name in ("task.json", worker.RESULT, worker.TROUBLE):
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
        record.write(self.folder, self.plan, run, about)
        if code == 0:
            with self.guard:
                self.done.add(run)
        else:
            announce("%s failed: %s", run.name, about["reason"])

    def _argv(self, run: Run, device: str) -> list[str]:
        plan, config = self.plan, self.plan.configs[run.config]
        cfg = config["source"] or str(self.folder / "configs" / f"{run.config}.yaml")
        argv = ["--host", plan.host, "--cfg", cfg, "--epochs", str(plan.epochs)]
        argv += ["--data", self.data] if plan.data else []  # else the embedded one, with the options that suit it
        argv += ["--seed", str(run.seed), "--project", str(self.folder / "runs"), "--name", run.name, "--exist-ok"]
        argv += ["--noplots", "--no-export"]
        if plan.weights:
            argv += ["--weights", plan.weights, *(["--start", config["start"]] if config["start"] else [])]
        if device:
            argv += ["--device", device]
        for file in plan.plugins:
            argv += ["--plugin", file]
        more = dict(plan.arguments)
        for flag in ("imgsz", "batch", "workers", "optimizer", "patience"):
            if flag in more:
                argv += [f"--{flag}", str(more.pop(flag))]
        return [*argv, *(f"{k}={v}" for k, v in more.items())]

    def _launched(self, run: Run, task: Path, log: Path) -> int:
        """Run the worker and return its exit code; it ends with this process, whatever ends that."""
        home = str(Path(__file__).resolve().parents[2])  # a bare checkout of the kit is on nobody's path
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))}
        with log.open("wb") as stream:
            child = subprocess.Popen(
                [*COMMAND, str(task)], stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT, env=env,
                start_new_session=True,
            )  # fmt: skip
            with self.guard:
                self.running[run] = child
                stopped = self.stop is not None
            if stopped:
                _end(child)
            try:
                return child.wait()
            finally:
                with self.guard:
                    del self.running[run]
                if child.stdin is not None:
                    child.stdin.close()

    def _reason(self, folder: Path, code: int) -> str:
        trouble = folder / worker.TROUBLE
        if trouble.is_file():
            return str(json.loads(read_text(trouble, FileError))["reason"])
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"was ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
        lines = [line.strip() for line in read_source(folder / "log.txt").splitlines() if line.strip()]
        return f"exit code {code}: {lines[-1][:300]}" if lines else f"exit code {code}"

    def end(self, why: BaseException) -> None:
        """Begin nothing more, and end what runs."""
        with self.guard:
            self.stop = self.stop or why
            running = list(self.running.values())
        for child in running:
            _end(child)

    # -- how far

    def epochs_done(self) -> int:
        """Epochs that are behind, of all runs."""
        with self.guard:
            settled, running = self.done | (self.tried - set(self.running)), list(self.running)
        done = len(settled & set(self.plan.runs)) * self.plan.epochs
        return done + sum(min(_rows(record.folder_of(self.folder, r) / "results.csv"), self.plan.epochs) for r in running)


def carry_out(folder: Path, plan: Plan, *, data: str, device: str = "", jobs: int = 1) -> None:
    """Do every run of a plan that is not finished.

    Args:
        folder: Of the study, which holds the plan.
        plan: The plan.
        data: The data set's YAML.
        device: As the hosts take it; several are shared out among the jobs.
        jobs: Trainings at a time.

    Raises:
        FileError: The disk refuses, or is full; finished runs are kept.
        UsageError: One training at a time on several devices, whose workers would not be given the seed.
    """
    devices = [d for d in device.split(",") if d]
    if len(devices) > 1 and jobs == 1:
        raise UsageError(
            f"{option('device', device)}: the seed does not reach the workers of one training on several GPUs; "
            f"{option('jobs', len(devices))} trains as many runs side by side, each on one of them"
        )
    (folder / "runs").mkdir(exist_ok=True)
    study = _Study(folder, plan, data, device, jobs)
    total = len(plan.runs)
    if study.done:
        announce("%s: %d of %d runs are finished; going on", folder, len(study.done), total)
    threads = [threading.Thread(target=study.work, args=(d,), daemon=True) for d in study.devices]
    try:
        with _progress(study):
            for t in threads:
                t.start()
            while any(t.is_alive() for t in threads):
                time.sleep(0.1)
    except BaseException as exc:
        study.end(exc)
        for t in threads:
            t.join(timeout=30)
        raise
    if study.stop is not None:
        study.end(study.stop)
        for t in threads:
            t.join(timeout=30)
        raise study.stop
    record.write_table(folder, plan)


@contextlib.contextmanager
def _progress(study: _Study) -> Iterator[None]:
    """Show epochs of the whole plan and the time left: a bar on a terminal, elsewhere a line for each run."""
    from tqdm import tqdm

    total = len(study.plan.runs) * study.plan.epochs
    over = threading.Event()
    bar = tqdm(total=total, initial=study.epochs_done(), unit="epoch", desc="all runs", disable=None, leave=False)

    def follow() -> None:
        began, at_first, told = time.monotonic(), study.epochs_done(), len(study.done)
        last = False
        while not last:
            last = over.wait(1)  # once more when it is over
            now = study.epochs_done()
            bar.n = now
            bar.refresh()
            if bar.disable and len(study.done) != told:
                told = len(study.done)
                pace = (time.monotonic() - began) / max(now - at_first, 1)
                announce("%d of %d runs finished, about %s left", told, len(study.plan.runs), _span(pace * (total - now)))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
        bar.close()


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _rows(log: Path) -> int:
    try:
        return max(sum(1 for _ in csv.reader(read_source(log).splitlines())) - 1, 0)
    except (OSError, csv.Error):
        return 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a worker and what it launched."""
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()  # which is what it watches
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _git() -> str:
    """The commit of the working folder, where it is one's repository, and whether files differ from it."""
    try:
        said = [
            subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=20).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0] + (" (changed)" if said[1] else "")
