"""Is a config better than the baseline? Paired differences over seeds, their spread, and what can be said from them.

Every seed is a block: all configs train with the same order of images, augmentation and budget, and are compared
within the seed. The spread is estimated from all configs together, the residual of a randomised block design, where
their spreads are near enough; a config whose spread is out of line is judged by the paired t test on its own.
`benchmarks/study_statistics.py` measures what these rules hold: errors, coverage and power.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "ALPHA",
    "BETTER",
    "SAME",
    "UNTOLD",
    "WORSE",
    "Comparison",
    "compare",
    "family",
    "holm",
    "seeds_to_tell",
    "spread_test",
]

ALPHA = 0.05  # family-wise, over all configs beside the baseline
POWER = 0.8
MOST_SEEDS = 1000  # beyond it, "more than 1000" is told

BETTER, WORSE, SAME, UNTOLD = "better", "worse", "not distinguishable", "cannot tell"
POOLED, PAIRED = "pooled residual", "paired t"

# How far out of line a config's spread must be, as the p of `spread_test`. Chosen by simulation (five configs, three
# seeds, 20,000 null studies; family-wise error in percent with equal spreads / a candidate of twice the spread / a
# baseline of twice the spread, then the power at a difference of 1.5 standard deviations of a paired difference):
# never pooled 4.7 / 4.7 / 4.6, 0.32; always pooled 3.5 / 5.1 / 8.7, 0.57; these 4.5 / 5.3 / 5.2, 0.40. The baseline is
# in every difference, which is why least is needed to distrust it. Three seeds cannot both show that spreads are
# equal and gain much from it; with five seeds the power is 0.74 against 0.71.
NOT_IN_POOL, ON_ITS_OWN, BASELINE = 0.03, 0.1, 0.5


@dataclass(frozen=True)
class Comparison:
    """One config beside the baseline.

    Args:
        name: The config.
        seeds: Seeds that both have.
        mean: Mean of the config over its seeds.
        deviation: Standard deviation over its seeds; NaN with fewer than two.
        difference: Mean paired difference, config less baseline.
        low: Lower end of the 95 % interval of the difference over seeds, for this config alone; NaN where there is none.
        high: Upper end.
        p: Two-sided, of this config alone; NaN where there is none.
        holm: The same after Holm's correction over all configs of `values`, those without a p among them.
        method: ``pooled residual`` or ``paired t``.
        verdict: ``better``, ``worse``, ``not distinguishable`` or ``cannot tell``.
        seeds_to_tell: How many seeds would tell this difference with power 0.8; None where no number would or it
            cannot be known.
        why: Why it cannot be told, or why this method.
    """

    name: str
    seeds: int
    mean: float
    deviation: float
    difference: float
    low: float
    high: float
    p: float
    holm: float
    method: str
    verdict: str
    seeds_to_tell: int | None = None
    why: str = ""


def compare(values: Mapping[str, Mapping[int, float]], baseline: str) -> list[Comparison]:
    """Compare every config with the baseline.

    Args:
        values: For each config the figure of each finished seed; higher is better.
        baseline: A key of `values`.

    Returns:
        One comparison for each other config, in the order of `values`.
    """
    base = _finite(values[baseline])
    names = [n for n in values if n != baseline]
    whole = [n for n in names if set(base) <= set(_finite(values[n]))]  # a config that lacks a seed cannot be in a block
    seeds = sorted(base)
    table = np.array([[values[n][s] for s in seeds] for n in [baseline, *whole]]).reshape(len(whole) + 1, -1)
    found = dict(zip(whole, family(table))) if len(seeds) > 1 else {}
    for n in names:
        common = sorted(set(base) & set(_finite(values[n])))
        if n not in found and len(common) > 1:
            found[n] = family(np.array([[base[s] for s in common], [values[n][s] for s in common]]))[0]
    # A config that has not finished was planned all the same: were it left out, the others' p would grow once it has.
    p = holm([found[n].p if n in found else math.nan for n in names], tests=len(names))
    return [_judged(n, base, _finite(values[n]), found.get(n), p[k], len(names)) for k, n in enumerate(names)]


def _finite(given: Mapping[int, float]) -> dict[int, float]:
    return {s: float(v) for s, v in given.items() if math.isfinite(v)}


@dataclass(frozen=True)
class Tested:
    """The t test of one difference: its standard error, degrees of freedom, p, and of what the error was estimated.

    Args:
        difference: Mean paired difference.
        error: Its standard error.
        df: Degrees of freedom of the error.
        p: Two-sided.
        method: ``pooled residual`` or ``paired t``.
        size: How many times the seeds less one the degrees of freedom are.
    """

    difference: float
    error: float
    df: int
    p: float
    method: str
    size: int


def family(table: Any) -> list[Tested]:
    """Test every row of a table against its first one.

    Args:
        table: (configs, seeds), the baseline first, at least two seeds and no gap.
    """
    from scipy import stats

    table = np.asarray(table, dtype=float)
    configs, seeds = table.shape
    paired = table[1:] - table[0]
    own = paired.std(1, ddof=1) / math.sqrt(seeds)
    pool, alone = _pool(table)
    size = len(pool) - 1
    residual = table[pool] - table[pool].mean(1, keepdims=True)
    residual -= residual.mean(0)
    error = math.sqrt(2 * float((residual**2).sum()) / (size * (seeds - 1)) / seeds) if size > 1 else math.nan
    tests = []
    for k in range(1, configs):
        shared = size > 1 and k not in alone
        se, df = (error, size * (seeds - 1)) if shared else (float(own[k - 1]), seeds - 1)
        difference = float(paired[k - 1].mean())
        if difference == 0:  # two names of one config, whose trainings are equal to the last bit
            p = 1.0
        else:
            p = math.nan if se <= 1e-12 * abs(difference) else float(2 * stats.t.sf(abs(difference) / se, df))
        tests.append(Tested(difference, se, df, p, POOLED if shared else PAIRED, size if shared else 1))
    return tests


def _pool(table: Any) -> tuple[list[int], set[int]]:
    """The rows whose residuals are pooled, the baseline first, and those that are judged on their own."""
    alone: set[int] = set()
    different: list[int] = []
    for k in range(len(table)):  # equal rows would count one residual twice, and understate the spread
        if not any((table[k] == table[j]).all() for j in different):
            different.append(k)
    if len(different) < 3:
        return [0], alone
    p = dict(zip(different, spread_test(table[different])))
    if p[0] < BASELINE:
        return [0], alone
    alone = {k for k in different[1:] if p[k] < ON_ITS_OWN}
    pool = [k for k in different if k == 0 or p[k] >= NOT_IN_POOL]
    return (pool, alone) if len(pool) > 2 else ([0], set())


def spread_test(table: Any) -> Any:
    """Ask for each config whether its spread over seeds is larger than that of the others.

    What a config deviates by from the mean of the others, and how the others deviate from one another, are
    independent, and with equal spreads their ratio is F with (seeds - 1) and (configs - 2) (seeds - 1) degrees of
    freedom: exact for normal figures.

    Args:
        table: (configs, seeds), at least three configs and two seeds.

    Returns:
        The one-sided p of each config.
    """
    from scipy import stats

    configs, seeds = table.shape
    residual = table - table.mean(1, keepdims=True)
    residual = residual - residual.mean(0)
    squares = (residual**2).sum(1)
    own = squares * configs / (configs - 1)
    rest = np.maximum(squares.sum() - own, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = own * (configs - 2) / rest
    ratio = np.where(own > 0, np.where(rest > 0, ratio, np.inf), 0)
    return stats.f.sf(ratio, seeds - 1, (configs - 2) * (seeds - 1))


def holm(p: Sequence[float], tests: int | None = None) -> list[float]:
    """Correct p values for being several, by Holm's steps; what is NaN stays so.

    Args:
        p: The p values.
        tests: How many tests there are in all; as many as have a number when absent. A test whose p is not known yet
            counts as the largest: no corrected p can become greater than it is then.
    """
    order = sorted((v, k) for k, v in enumerate(p) if not math.isnan(v))
    out, least = [math.nan] * len(p), 0.0
    for step, (value, k) in enumerate(order):
        least = max(least, min(1.0, value * ((tests or len(order)) - step)))
        out[k] = least
    return out


def seeds_to_tell(difference: float, deviation: float, *, tests: int = 1, size: int = 1) -> int | None:
    """Return how many seeds would tell a difference with power 0.8, if it and its spread are as seen.

    Args:
        difference: Mean paired difference.
        deviation: Standard deviation of one paired difference.
        tests: Configs beside the baseline; the level is 0.05 by their number, Holm's first and hardest step.
        size: How many times the seeds less one the degrees of freedom are.

    Returns:
        The number, at least 2; None where none up to 1000 would.
    """
    from scipy import stats

    if difference == 0 or not math.isfinite(deviation):
        return None

    def enough(n: int) -> bool:
        df = size * (n - 1)
        critical = stats.t.isf(ALPHA / tests / 2, df)
        shift = min(abs(difference) / deviation * math.sqrt(n), 37.0) if deviation > 0 else 37.0
        # Beyond 37 deviations there is no doubt left, and SciPy's noncentral t has no numbers.
        return shift >= 37 or float(stats.nct.sf(critical, df, shift)) >= POWER

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # does not tell, does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _judged(
    name: str, base: dict[int, float], own: dict[int, float], test: Tested | None, corrected: float, tests: int
) -> Comparison:
    common = sorted(set(base) & set(own))
    steps = [own[s] - base[s] for s in common]
    mean = float(np.mean(list(own.values()))) if own else math.nan
    deviation = float(np.std(list(own.values()), ddof=1)) if len(own) > 1 else math.nan
    difference = float(np.mean(steps)) if steps else math.nan
    empty = bool(common) and not any(base[s] or own[s] for s in common)
    if test is None or math.isnan(test.p) or empty:
        if empty:
            why = "neither has learned to detect anything; train for more epochs"
        elif not common:
            why = "no seed of it and of the baseline has finished"
        elif len(common) == 1:
            why = "one seed has no spread; two are the least, three the least that is of use"
        else:
            why = "the difference is the same for every seed: do seeds reach this training?"
        return Comparison(
            name, len(common), mean, deviation, difference, math.nan, math.nan, math.nan, math.nan, "", UNTOLD, None, why
        )
    from scipy import stats

    half = float(stats.t.isf(ALPHA / 2, test.df)) * test.error
    verdict = SAME
    if corrected < ALPHA:
        verdict = BETTER if difference > 0 else WORSE
    needed = seeds_to_tell(difference, test.error * math.sqrt(len(common)), tests=tests, size=test.size)
    if needed is not None and verdict == SAME:
        needed = max(needed, len(common) + 1)
    return Comparison(
        name, len(common), mean, deviation, difference, difference - half, difference + half, test.p, corrected,
        test.method, verdict, needed,
    )  # fmt: skip
