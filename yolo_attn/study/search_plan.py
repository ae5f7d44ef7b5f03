"""How a search spends its budget: rungs that thin the candidates out, and what is left to confirm who survives.

A unit of cost is one full training. The rungs are those of successive halving (Jamieson and Talwalkar, AISTATS 2016):
the first trains every candidate for a third of the epochs, of a schedule that is that of the full training; the second
goes on with the better ones to the end of it; the others add a training with another seed each. The baseline takes part
in every rung and never leaves. Nothing here judges: the leader of many always looks good, which is why it is trained
again, with seeds that the search has not seen, beside the baseline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..words import option
from .statistics import ALPHA, POWER

__all__ = ["Budget", "Design", "Rung", "confirmation", "design", "detectable", "least", "read_budget"]

# Found by simulation (the settings of `benchmarks/search.py`; 8, 24 and 48 candidates, one of which is better by 2 or
# 2.8 standard deviations of a run, budgets of 20 to 150 full trainings; every split tried): the best splits give the rungs
# 0.45 to 0.65 of the budget, keep as many candidates as that pays for, train all of them to the end where it does, and
# confirm one survivor. A second survivor pays once each has 13 seeds; more than 20 seeds tell little more.
SHARE = 0.65
KEPT = (16, 12, 8, 6, 4, 3, 2)  # candidates that are trained to the end, the most first
SECOND, MOST, FEWEST = 13, 20, 5  # seeds of the confirmation
FIRST = 3  # the first rung trains for the epochs by this


@dataclass(frozen=True)
class Rung:
    """One rung.

    Args:
        seed: Of its trainings.
        begin: Epochs that they have behind them.
        until: Epochs that they have behind them at its end.
        keep: How many candidates go on from it.
    """

    seed: int
    begin: int
    until: int
    keep: int


@dataclass(frozen=True)
class Design:
    """The rungs of a search.

    Args:
        candidates: How many are tried.
        rungs: In their order.
        cost: Of all rungs, in full trainings.
    """

    candidates: int
    rungs: tuple[Rung, ...]
    cost: float


@dataclass(frozen=True)
class Budget:
    """What a search may spend.

    Args:
        runs: Full trainings; None where it is a time.
        seconds: Of training, all runs together; None where it is a number of runs.
    """

    runs: float | None = None
    seconds: float | None = None

    def of(self, seconds_of_one: float) -> float:
        """Return it in full trainings that take so long."""
        if self.runs is not None:
            return self.runs
        return (self.seconds or 0) / max(seconds_of_one, 1e-9)


UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def read_budget(text: str) -> Budget:
    """Read ``6h``, ``90m``, ``2d`` or ``40runs``.

    Raises:
        UsageError: It is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d|runs?)\s*", str(text))
    if not found or float(found[1]) <= 0:
        raise UsageError(f"{option('budget', text)}: give a time of training, as 6h, 90m or 2d, or full trainings, as 40runs")
    number, unit = float(found[1]), found[2]
    return Budget(runs=number) if unit.startswith("run") else Budget(seconds=number * UNITS[unit])


def design(candidates: int, budget: float, epochs: int) -> Design | None:
    """Return the rungs for a budget: with all candidates, or as many as it has room for; None where it has none for two.

    Args:
        candidates: How many there are, the baseline not counted.
        budget: In full trainings.
        epochs: Of a full training.
    """
    for tried in range(candidates, 0, -1):
        for kept in KEPT:
            if tried > 2 and kept > max(2, tried // 2):
                continue
            for found in _ladders(tried, kept, epochs):
                if found.cost <= SHARE * budget and budget - found.cost >= 2 * FEWEST:
                    return found
        if tried <= 2:
            break
    return None


def least(candidates: int, epochs: int) -> float:
    """Return the smallest budget, in full trainings, that has room for two candidates, or the one that there is."""
    tried = min(candidates, 2)
    cheapest = min(d.cost for d in _ladders(tried, 2, epochs))
    return max(cheapest / SHARE, cheapest + 2 * FEWEST)


def _ladders(tried: int, kept: int, epochs: int) -> list[Design]:
    """Ladders that train `kept` candidates with a second seed, from the dearest to the cheapest."""
    first = max(1, round(epochs / FIRST))
    kept = min(kept, tried)
    starts: list[list[int]] = [[]]  # all to the end at once; else half of them, or twice those that get another seed
    if first < epochs:
        half = max(kept, tried // 2)
        starts += [[n] for n in dict.fromkeys((half, min(half, 2 * kept))) if n < tried]
    out = []
    for early in starts:
        rungs = [Rung(0, 0, first, n) for n in early]
        rungs.append(Rung(0, rungs[-1].until if rungs else 0, epochs, kept))
        seed, left = 1, kept
        while left > 2 or seed == 1:
            left = max(left // 2, 2)
            rungs.append(Rung(seed, 0, epochs, min(left, tried)))
            seed += 1
        sizes = [tried, *(r.keep for r in rungs[:-1])]
        cost = sum((n + 1) * (r.until - r.begin) / epochs for n, r in zip(sizes, rungs))
        out.append(Design(tried, tuple(rungs), cost))
    return out


def confirmation(left: float, alive: int) -> tuple[int, int]:
    """Return how many survivors are confirmed, and with how many seeds, for what is left of a budget.

    Args:
        left: In full trainings; may be less than was planned, where candidates train slower than the baseline.
        alive: Candidates that the last rung has kept.
    """
    if alive >= 2 and left / 3 >= SECOND:
        return 2, min(MOST, int(left / 3))
    return 1, max(FEWEST, min(MOST, int(left / 2)))


def detectable(seeds: int, survivors: int = 1) -> float:
    """Return the difference that a confirmation tells with power 0.8, in standard deviations of a paired difference.

    Args:
        seeds: Of the confirmation, at least two.
        survivors: Configs beside the baseline.
    """
    from scipy import stats

    critical = stats.t.isf(ALPHA / survivors / 2, seeds - 1)
    low, high = 0.0, 40.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        shift = middle * math.sqrt(seeds)
        told = shift >= 37 or float(stats.nct.sf(critical, seeds - 1, shift)) >= POWER
        low, high = (low, middle) if told else (middle, high)
    return high


@dataclass(frozen=True)
class Spread:
    """How far candidates are apart beside how far seeds of one are, from those with several seeds.

    Args:
        seeds: Standard deviation of a run over seeds.
        configs: Standard deviation of the configs' means beyond what seeds alone give; 0 where there is none.
        p: Of the F test that all configs are equal.
    """

    seeds: float
    configs: float
    p: float


def spread(table: Sequence[Sequence[float]]) -> Spread | None:
    """Return how far configs and seeds are apart, a seed being a block; None with fewer than two of either.

    Args:
        table: A row for each config, a column for each seed.
    """
    import numpy as np
    from scipy import stats

    values = np.asarray(table, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        return None
    configs, seeds = values.shape
    means = values.mean(1)
    residual = values - means[:, None]
    residual = residual - residual.mean(0)
    within = float((residual**2).sum()) / ((configs - 1) * (seeds - 1))
    between = float(means.var(ddof=1))
    if within <= 0:
        return Spread(0.0, math.sqrt(between), 0.0 if between > 0 else 1.0)
    p = float(stats.f.sf(seeds * between / within, configs - 1, (configs - 1) * (seeds - 1)))
    return Spread(math.sqrt(within), math.sqrt(max(between - within / seeds, 0.0)), p)
