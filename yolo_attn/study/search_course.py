"""The course of a search: which trainings come next, and what is decided at the end of each rung. It trains nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ..errors import UsageError, YoloAttnError
from ..log import announce
from ..words import option
from . import search_plan
from .plan import Run
from .search_ledger import Ledger, Trial
from .search_plan import Budget, Rung

__all__ = ["Course", "Space", "Step"]

AHEAD = 3  # candidates that may begin while the baseline shows how long a training takes
SEPARATE = 0.05


@dataclass(frozen=True)
class Space:
    """What is searched.

    Args:
        base: Name of the baseline.
        choices: For each candidate its ``module``, ``where`` and ``start``, in the order in which they are tried.
    """

    base: str
    choices: Mapping[str, Mapping[str, str]]

    @property
    def options(self) -> dict[str, list[str]]:
        """All that each choice may be."""
        keys = ("module", "where", "start")
        return {k: list(dict.fromkeys(c[k] for c in self.choices.values())) for k in keys}

    def name(self, choice: Mapping[str, str]) -> str | None:
        """Return the candidate of a choice, or None where there is none."""
        return next((n for n, c in self.choices.items() if dict(c) == dict(choice)), None)


@dataclass(frozen=True)
class Step:
    """Trainings of one rung that are to be done: one config and seed.

    Args:
        run: Config and seed; the config is empty where Optuna is to choose one.
        until: Epochs that it has behind it at the end.
        trial: Its trial; None where it has none yet, or only one that failed before.
    """

    run: Run
    until: int
    trial: Trial | None = None

    @property
    def begin(self) -> int:
        """Epochs that it has behind it."""
        return max(self.trial.values, default=0) if self.trial is not None else 0


class Course:
    """Decides what comes next by what the ledger holds; every process that shares a search comes to the same.

    Args:
        space: What is searched.
        budget: What may be spent.
        epochs: Of a full training.
        ledger: What was found and decided.
    """

    def __init__(self, space: Space, budget: Budget, epochs: int, ledger: Ledger) -> None:
        self.space, self.budget, self.epochs, self.ledger = space, budget, epochs, ledger
        self._old = {t.number for t in ledger.trials() if t.failed}  # tried again by this command

    # -- what comes next

    def steps(self) -> list[Step] | None:
        """Return what the present rung still needs, whoever works on it; None once all rungs are decided.

        Raises:
            YoloAttnError: The baseline failed, or nothing learns.
        """
        trials = self._latest()
        design = self._design(trials)
        if design is None:
            first = max(1, round(self.epochs / search_plan.FIRST))
            ahead = list(self.space.choices)[:AHEAD]
            return self._open([Run(n, 0) for n in (self.space.base, *ahead)], first, trials)
        alive: list[str] | None = None
        for number, rung in enumerate(design["rungs"], 1):
            rung = Rung(**rung)
            decided = self.ledger.decision(f"rung {number}")
            if decided is None:
                names, unchosen = self._entrants(design["candidates"], trials) if alive is None else (alive, 0)
                left = self._open([Run(n, rung.seed) for n in (self.space.base, *names)], rung.until, trials)
                left += [Step(Run("", rung.seed), rung.until)] * unchosen
                if left:
                    return left
                decided = self.ledger.decide(f"rung {number}", partial(self._decide, number, rung, names, design))
                trials = self._latest()
            alive = decided["kept"]
        return None

    def _latest(self) -> dict[Run, Trial]:
        return {t.run: t for t in self.ledger.trials()}

    def _design(self, trials: Mapping[Run, Trial]) -> Any:
        held = self.ledger.decision("design")
        base = trials.get(Run(self.space.base, 0))
        if held is not None or base is None:
            return held
        if base.failed and base.number not in self._old:
            raise YoloAttnError(f"the baseline {self.space.base} failed: {base.failed}")
        return self.ledger.decide("design", lambda: self._make_design(base)) if base.values else None

    def _make_design(self, base: Trial) -> dict[str, Any]:
        full = base.seconds * self.epochs / max(base.values)
        budget = self.budget.of(full)
        found = search_plan.design(len(self.space.choices), budget, self.epochs)
        if found is None:
            needed = search_plan.least(len(self.space.choices), self.epochs)
            of_time = f" ({math.ceil(needed * full / 60)}m)" if self.budget.runs is None else ""
            raise UsageError(
                f"{option('budget')} has room for {budget:.3g} full trainings, and the least for a search is "
                f"{math.ceil(needed)}{of_time}: raise it or lower {option('epochs')}, in another folder (one full training takes {full / 60:.1f} minutes)"
            )
        survivors, seeds = search_plan.confirmation(budget - found.cost, found.rungs[-1].keep)
        tells = search_plan.detectable(seeds, survivors)
        announce(
            "budget: %.3g full trainings. %d of %d candidates are tried in %d rungs (%.3g), then %d confirmed with %d seeds, which "
            "tells a difference of %.1f standard deviations of a paired difference four times in five", budget, found.candidates,
            len(self.space.choices), len(found.rungs), found.cost, survivors, seeds, tells,
        )  # fmt: skip
        rungs = [asdict(r) for r in found.rungs]
        return {"candidates": found.candidates, "rungs": rungs, "cost": found.cost, "budget": budget, "seconds": full}

    def _entrants(self, count: int, trials: Mapping[Run, Trial]) -> tuple[list[str], int]:
        """The candidates of the first rung, and how many Optuna has still to choose."""
        if count >= len(self.space.choices):
            return list(self.space.choices), 0
        there = [r.config for r in trials if r.seed == 0 and r.config != self.space.base]
        return there[:count], max(0, count - len(there))

    def _open(self, runs: Sequence[Run], until: int, trials: Mapping[Run, Trial]) -> list[Step]:
        """Those that have no figure at that epoch."""
        out = []
        for run in runs:
            trial = trials.get(run)
            if trial is None or trial.number in self._old:
                out.append(Step(run, until))
            elif not trial.failed and until not in trial.values:
                out.append(Step(run, until, trial))
        return out

    # -- what is decided at the end of a rung

    def _decide(self, number: int, rung: Rung, names: Sequence[str], design: Mapping[str, Any]) -> dict[str, Any]:
        trials = self._latest()
        scores = {n: self._score(n, rung, trials) for n in names}
        base = self._score(self.space.base, rung, trials)
        if base is None:
            failed = next((t.failed for t in trials.values() if t.run == Run(self.space.base, rung.seed)), "")
            raise YoloAttnError(f"the baseline {self.space.base} failed: {failed}")
        there = {n: s for n, s in scores.items() if s is not None}
        if not there:
            raise YoloAttnError("every candidate failed: " + "; ".join(t.failed for t in trials.values() if t.failed)[:500])
        if not base and not any(there.values()) and rung.until == self.epochs:
            raise YoloAttnError(
                f"neither the baseline nor a candidate has learned to detect anything in {self.epochs} epochs: there is "
                f"nothing to choose by. Give more {option('epochs')}, or {option('weights')}"
            )
        kept = sorted(there, key=lambda n: (-there[n], names.index(n)))[: rung.keep]
        for name in names:
            if name not in kept and (t := trials.get(Run(name, rung.seed))) is not None and not t.over:
                self.ledger.close(t, pruned=True)
        announce(
            "rung %d of %d, epoch %d, seed %d: %s; the baseline has %.3f", number, len(design["rungs"]), rung.until, rung.seed,
            ", ".join(f"{n} {there[n]:.3f}" for n in kept[:4]) + (f" and {len(kept) - 4} more" if len(kept) > 4 else ""), base,
        )  # fmt: skip
        told = self._separated([self.space.base, *there], rung, trials)
        return {"kept": kept, "scores": there, "base": base, "spread": told}

    def _score(self, name: str, rung: Rung, trials: Mapping[Run, Trial]) -> float | None:
        """A config's figure on a rung: that of the only seed, or the mean over all seeds that are trained to the end."""
        found = [trials.get(Run(name, s)) for s in range(rung.seed + 1)]
        values = [t.values.get(rung.until) if t is not None else None for t in found]
        there = [v for v in values if v is not None]
        return sum(there) / len(there) if len(there) == len(values) else None

    def _separated(self, names: Sequence[str], rung: Rung, trials: Mapping[Run, Trial]) -> dict[str, float] | None:
        """Say it where candidates that several seeds have seen differ no more than seeds do."""
        if rung.seed == 0:
            return None
        table = [[trials[Run(n, s)].values[rung.until] for s in range(rung.seed + 1)] for n in names if self._score(n, rung, trials) is not None]
        found = search_plan.spread(table)
        if found is None:
            return None
        if found.p > SEPARATE:
            announce(
                "candidates cannot be told apart so far: seeds differ by %.4f (standard deviation), %d configs with %d seeds "
                "by %.4f beyond that, p = %.2f. Only the confirmation judges", found.seeds, len(table), rung.seed + 1,
                found.configs, found.p,
            )  # fmt: skip
        return asdict(found)

    # -- who is confirmed

    def confirmation(self) -> dict[str, Any]:
        """Return the configs and the seeds of the confirmation, the same for every process; no configs: none leads."""
        return dict(self.ledger.decide("confirmation", self._choose))

    def _choose(self) -> dict[str, Any]:
        design = self.ledger.decision("design")
        last = self.ledger.decision(f"rung {len(design['rungs'])}")
        trials = self._latest()
        leading = [n for n in last["kept"] if last["scores"][n] > last["base"]]
        for t in trials.values():
            if not t.over:
                self.ledger.close(t)
        if not leading:
            return {"configs": [], "seeds": [], "why": "no candidate is ahead of the baseline after the last rung"}
        left = self.left(trials.values(), design)
        survivors, count = search_plan.confirmation(left, len(leading))
        over = (survivors + 1) * count - left
        if over > 0.5:
            announce("the rungs took longer than planned: the confirmation goes %.1f full trainings beyond the budget", over)
        first = design["rungs"][-1]["seed"] + 1  # seeds that the search has not seen
        sd = (last.get("spread") or {}).get("seeds")
        tells = search_plan.detectable(count, survivors)
        announce(
            "confirmation: %s beside %s with the new seeds %d to %d%s", " and ".join(leading[:survivors]), self.space.base,
            first, first + count - 1, f"; differences from about {tells * sd * 2**0.5:.4f} on can be told" if sd else "",
        )  # fmt: skip
        return {"configs": leading[:survivors], "seeds": list(range(first, first + count)), "why": ""}

    def left(self, trials: Any, design: Mapping[str, Any]) -> float:
        """Return what is left of the budget, in full trainings of the baseline."""
        if self.budget.runs is not None:
            return self.budget.runs - sum(max(t.values, default=0) / self.epochs for t in trials)
        return design["budget"] - sum(t.seconds for t in trials) / max(design["seconds"], 1e-9)
