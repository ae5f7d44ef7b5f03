"""Carry a plan out: every run once, several at a time, shared with whoever works on the same study, and killable.

A run is a folder; it has happened once its `run.yaml` is there, which is written in one step. What a killed process
left without one is cleared away and trained from its beginning: a training that goes on in the middle would not be the
same training. A run that failed is tried again by the next command.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import read_source
from ..log import announce
from ..system import locks
from ..system.drafts import lock_name, sweep
from . import jobs as working
from . import record, worker
from .plan import Plan, Run

__all__ = ["arguments", "carry_out", "release", "take"]


class _Study:
    """A plan under way in this process: what is taken, what runs, how far it is."""

    def __init__(self, folder: Path, plan: Plan, data: str, places: Sequence[working.Place]) -> None:
        self.folder, self.plan, self.data = folder, plan, data
        self.crew = working.Crew(places)
        self.guard = threading.Lock()
        self.done = {r for r, d in record.read_all(folder, plan).items() if d["status"] == "finished"}
        self.tried: set[Run] = set()
        self.running: set[Run] = set()
        self.git = _git()

    # -- which run is next

    def take(self) -> Run | None:
        """Take the next run that nobody works on, lock it, and return it; None where there is none (any more)."""
        while self.crew.stop is None:
            elsewhere = False
            for run in self.plan.runs:
                with self.guard:
                    if run in self.done or run in self.tried:
                        continue
                    try:
                        take(self.folder, run)
                    except locks.Busy:
                        elsewhere = True
                        continue
                    self.tried.add(run)
                there = record.read(self.folder, run)  # another process may have finished it meanwhile
                if there is not None and there["status"] == "finished":
                    with self.guard:
                        self.done.add(run)
                    release(self.folder, run)
                    continue
                return run
            if not elsewhere:
                return None
            time.sleep(1)  # another process trains what is left; it may be killed, and then it is ours
        return None

    # -- one run

    def work(self, place: working.Place) -> None:
        """Do runs until none is left."""
        while (run := self.take()) is not None:
            try:
                with self.guard:
                    self.running.add(run)
                self._do(run, place)
            finally:
                with self.guard:
                    self.running.discard(run)
                release(self.folder, run)

    def _do(self, run: Run, place: working.Place) -> None:
        record.clear(self.folder, run)
        began = time.monotonic()
        task = {
            "folder": str(record.folder_of(self.folder, run)), "argv": arguments(self.folder, self.plan, run, self.data),
            "data": self.data, "imgsz": self.plan.arguments["imgsz"], **about(self.folder, self.plan, run),
        }  # fmt: skip
        outcome = working.attempt(place, self.folder, record.folder_of(self.folder, run), task)
        if outcome.result is None and self.crew.stop is not None:
            return  # it was ended, and did not fail
        row: dict[str, Any] = {
            "status": "failed", "device": place.name, "epochs": self.plan.epochs, "git": self.git,
            "data_sha256": self.plan.data_sha256, "config_sha256": self.plan.configs[run.config]["sha256"],
            "weights_sha256": self.plan.weights_sha256, "finished": _now(),
        }  # fmt: skip
        if outcome.result is not None:
            row.update(outcome.result, status="finished")
        else:
            row.update(reason=outcome.reason, seconds=round(time.monotonic() - began, 1))
        record.write(self.folder, self.plan, run, row)
        if outcome.result is not None:
            with self.guard:
                self.done.add(run)
        else:
            announce("%s failed: %s", run.name, outcome.reason)

    # -- how far

    def epochs_done(self) -> int:
        """Epochs that are behind, of all runs."""
        with self.guard:
            settled, running = self.done | (self.tried - self.running), list(self.running)
        done = len(settled & set(self.plan.runs)) * self.plan.epochs
        return done + sum(min(rows_of(record.folder_of(self.folder, r)), self.plan.epochs) for r in running)

    def told(self) -> str:
        """What has finished, in words."""
        return f"{len(self.done)} of {len(self.plan.runs)} runs finished"


def take(study: Path, run: Run) -> None:
    """Lock a run for this process.

    Raises:
        Busy: Another process has it, or the worker of one that was killed has not ended yet.
    """
    lock, still = _lock_of(study, run), worker.lock_of(record.folder_of(study, run))
    locks.take(lock)
    try:
        locks.take(still)
        locks.release(still)
    except BaseException:
        locks.release(lock)
        raise


def release(study: Path, run: Run) -> None:
    """Release a run that :func:`take` has locked."""
    locks.release(_lock_of(study, run))


def _lock_of(study: Path, run: Run) -> Path:
    return study / "runs" / lock_name(run.name)


def arguments(study: Path, plan: Plan, run: Run, data: str) -> list[str]:
    """Return the flags of `train_detect.py` for a run, the device left out."""
    config = plan.configs[run.config]
    cfg = config["source"] or str(study / "configs" / f"{run.config}.yaml")
    argv = ["--host", plan.host, "--cfg", cfg, "--epochs", str(plan.epochs)]
    argv += ["--data", data] if plan.data else []  # else the embedded one, with the options that suit it
    argv += ["--seed", str(run.seed), "--project", str(study / "runs"), "--name", run.name, "--exist-ok"]
    argv += ["--noplots", "--no-export"]
    if plan.weights:
        argv += ["--weights", plan.weights, *(["--start", config["start"]] if config["start"] else [])]
    for file in plan.plugins:
        argv += ["--plugin", file]
    more = dict(plan.arguments)
    for flag in ("imgsz", "batch", "workers", "optimizer", "patience"):
        if flag in more:
            argv += [f"--{flag}", str(more.pop(flag))]
    return [*argv, *(f"{k}={v}" for k, v in more.items())]


def about(study: Path, plan: Plan, run: Run) -> dict[str, Any]:
    """Return what a task says of its run: for trackers, and for a machine that has to have the same files."""
    return {
        "about": {"study": study.name, "config": run.config, "seed": run.seed},
        "embedded": not plan.data, "data_sha256": plan.data_sha256,
        "weights": plan.weights, "weights_sha256": plan.weights_sha256,
    }  # fmt: skip


def carry_out(
    folder: Path,
    plan: Plan,
    *,
    data: str,
    device: str = "",
    jobs: int | None = None,
    places: Sequence[working.Place] | None = None,
    progress: bool = True,
) -> None:
    """Do every run of a plan that is not finished.

    Args:
        folder: Of the study, which holds the plan.
        plan: The plan.
        data: The data set's YAML.
        device: As the hosts take it; several, ``0,1``, are shared out among the jobs, ``0+1`` are for one run at once.
        jobs: Trainings at a time; one on each device when absent.
        places: Where to train, instead of `device` and `jobs`.
        progress: Show how far it is.

    Raises:
        FileError: The disk refuses, or is full; finished runs are kept.
        UsageError: Fewer jobs than devices.
    """
    where = working.places(device, jobs) if places is None else places
    (folder / "runs").mkdir(exist_ok=True)
    sweep(folder / "runs")  # a process that was killed once it had recorded a run leaves a lock that nobody takes again
    study = _Study(folder, plan, data, where)
    if study.done:
        announce("%s: %d of %d runs are finished; going on", folder, len(study.done), len(plan.runs))
    shown = working.progress(study.epochs_done, lambda: len(plan.runs) * plan.epochs, study.told)
    with shown if progress else contextlib.nullcontext():
        study.crew.carry(study.work)
    record.write_table(folder, plan)


def rows_of(folder: Path) -> int:
    """Return how many epochs a run has logged."""
    try:
        return max(sum(1 for _ in csv.reader(read_source(folder / "results.csv").splitlines())) - 1, 0)
    except (OSError, csv.Error):
        return 0


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
