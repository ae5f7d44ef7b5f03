"""Carry a search out: whatever its course needs next, at every place, in as many processes as share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import YoloAttnError
from ..log import announce
from ..system import locks
from ..system.drafts import sweep
from . import jobs as working
from .plan import Run
from .run import release, take
from .search_course import Course, Step
from .search_ledger import Trial
from .statistics import BETTER, SAME, UNTOLD, WORSE

__all__ = ["Doer", "Trained", "carry_out", "result"]

BESIDE = {
    WORSE: "worse than the baseline",
    SAME: "not distinguishable from the baseline",
    UNTOLD: "not confirmed: nothing can be told of it",
}
POLL = 1.0  # seconds between looks at what other processes and places do


@dataclass(frozen=True)
class Trained:
    """What came of one step.

    Args:
        value: The figure, higher is better; None where it failed.
        seconds: Of training.
        reason: Why it failed.
    """

    value: float | None
    seconds: float
    reason: str = ""


class Doer(Protocol):
    """Who trains: the hosts, or a simulation."""

    def train(self, place: Any, run: Run, begin: int, until: int) -> Trained:
        """Train a config and seed from one epoch to another, of a schedule that is that of the full training."""

    def confirm(self, configs: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Train configs, the baseline first, with each of the seeds, and return the rows of :func:`.verdict.rows`."""


class _Search:
    def __init__(self, folder: Path, course: Course, doer: Doer, places: Sequence[Any]) -> None:
        self.folder, self.course, self.doer = folder, course, doer
        self.crew = working.Crew(places)
        self.guard = threading.Lock()
        self.mine: set[Run] = set()

    def take(self) -> tuple[Step, Trial] | None:
        """Take a step that nobody works on, lock it, and return it with its trial; None once all rungs are decided."""
        while self.crew.stop is None:
            with self.guard:
                steps = self.course.steps()
                if steps is None:
                    return None
                for step in steps:
                    if step.run in self.mine:
                        continue
                    if not step.run.config:
                        found = self._chosen(step)
                        if found is None:
                            break  # what another process has just chosen is in the next list
                        step = Step(found.run, step.until, found)
                    if not self._locked(step.run):
                        continue
                    trial = self._current(step)
                    if trial is None:
                        release(self.folder, step.run)
                        continue
                    self.mine.add(step.run)
                    return Step(step.run, step.until, trial), trial
            time.sleep(POLL)
        return None

    def _locked(self, run: Run) -> bool:
        try:
            take(self.folder, run)
        except locks.Busy:
            return False
        return True

    def _current(self, step: Step) -> Trial | None:
        """The trial of a step that is locked, made where there is none; None where somebody has done it meanwhile."""
        with self.course.ledger.alone():
            now = next((s for s in self.course.steps() or [] if s.run == step.run and s.until == step.until), None)
            if now is None:
                return None
            if now.trial is not None:
                return now.trial
            choice = self.course.space.choices.get(step.run.config) if step.run.seed == 0 else None
            return self.course.ledger.add(step.run, choice, self.course.space.options)

    def _chosen(self, step: Step) -> Trial | None:
        space, ledger = self.course.space, self.course.ledger

        def run_of(choice: Any) -> Run | None:
            name = space.name(choice)
            return None if name is None or name in there else Run(name, step.run.seed)

        with ledger.alone():
            if not any(not s.run.config for s in self.course.steps() or []):
                return None
            there = {t.run.config for t in ledger.trials()}
            found = ledger.suggest(space.options, run_of)
            if found is None:  # the sampler insists on what there is: the next in order
                name = next(n for n in space.choices if n not in there)
                found = ledger.add(Run(name, step.run.seed), space.choices[name], space.options)
            return found

    def work(self, place: Any) -> None:
        """Do steps until all rungs are decided."""
        while (taken := self.take()) is not None:
            step, trial = taken
            try:
                done = self.doer.train(place, step.run, step.begin, step.until)
                if done.value is not None:
                    self.course.ledger.report(trial, step.until, done.value, done.seconds)
                elif self.crew.stop is None:
                    announce("%s failed: %s", step.run.name, done.reason)
                    self.course.ledger.close(trial, done.reason or "failed")
            finally:
                release(self.folder, step.run)
                with self.guard:
                    self.mine.discard(step.run)


def carry_out(folder: Path, course: Course, doer: Doer, places: Sequence[Any]) -> dict[str, Any]:
    """Search, confirm, and return what :func:`result` says.

    Args:
        folder: Of the search.
        course: What comes next.
        doer: Who trains.
        places: Where, a thread for each.

    Raises:
        YoloAttnError: The disk is full, the budget too small, the baseline fails, nothing learns.
    """
    (folder / "runs").mkdir(exist_ok=True)
    sweep(folder / "runs")  # as a study does
    search = _Search(folder, course, doer, places)
    search.crew.carry(search.work)
    if course.steps() is not None:
        raise YoloAttnError(f"{folder}: the search ended before its last rung; the same command goes on with it")
    chosen = course.confirmation()
    rows = doer.confirm([course.space.base, *chosen["configs"]], chosen["seeds"]) if chosen["configs"] else []
    return result(course, rows)


def result(course: Course, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of a search, and how it came to it.

    Args:
        course: After its last rung.
        rows: Of the confirmation.

    Returns:
        ``answer`` is the candidate that is better than the baseline, the best of them, or None; with its ``choice``,
        ``why``, the ``rungs``, the rows of the ``confirmation``, the ``budget`` and what was ``spent`` of it, in full
        trainings.
    """
    design, chosen = course.ledger.decision("design"), course.confirmation()
    better = [r for r in rows[1:] if r["verdict"] == BETTER]
    best = max(better, key=lambda r: r["difference"], default=None)
    rungs = [{**r, **(course.ledger.decision(f"rung {k}") or {})} for k, r in enumerate(design["rungs"], 1)]
    trials = course.ledger.trials()
    return {
        "answer": best["config"] if best else None,
        "choice": dict(course.space.choices[best["config"]]) if best else None,
        "why": chosen["why"] or ("" if best else "; ".join(f"{r['config']} is {BESIDE[r['verdict']]}" for r in rows[1:])),
        "base": course.space.base,
        "candidates": len(course.space.choices),
        "tried": design["candidates"],
        "budget": design["budget"],
        "spent": design["budget"] - course.left(trials, design) + len(rows) * len(chosen["seeds"]),
        "rungs": rungs,
        "confirmation": list(rows),
        "failed": [f"{t.run.name}: {t.failed}" for t in trials if t.failed],
    }
