"""Intervals and tests of what was measured on images: each image is one observation, however many objects it has."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["ALPHA", "BEYOND", "LESS", "MORE", "SAME", "UNTOLD", "WITHIN", "Chance", "Difference", "beyond_chance", "compared", "per_image", "told"]

ALPHA = 0.05
LEAST = 1e-4  # what counts as zero on a logarithmic scale
FEWEST = 5  # images, below which no difference is told: two or three agree too easily
BEYOND, WITHIN = "beyond chance", "within chance"
MORE, LESS, SAME, UNTOLD = "more", "less", "not distinguishable", "cannot tell"


@dataclass(frozen=True)
class Difference:
    """Paired differences over images, and what can be said of them.

    Args:
        images: How many.
        mean: Mean difference.
        low: Lower end of its 95 % interval over images; NaN where there is none.
        high: Upper end.
        p: Two-sided, of the paired t test, times the number of tests (Bonferroni), at most 1; NaN where there is none.
        verdict: ``more``, ``less``, ``not distinguishable``, or ``cannot tell`` with fewer than five images.
    """

    images: int
    mean: float
    low: float
    high: float
    p: float
    verdict: str


@dataclass(frozen=True)
class Chance:
    """What a detector's maps score beside those of shuffled weights.

    Args:
        images: How many.
        mean: Mean over images.
        low: Lower end of its 95 % interval over images; NaN with fewer than three.
        high: Upper end.
        chance: Geometric mean of the shuffled ones.
        chance_low: Lower end of the 95 % interval in which one more shuffled detector would lie.
        chance_high: Upper end.
        verdict: ``beyond chance`` or ``within chance``.
    """

    images: int
    mean: float
    low: float
    high: float
    chance: float
    chance_low: float
    chance_high: float
    verdict: str


def told(result: Difference | Chance) -> dict[str, Any]:
    """Return a result for JSON, None in place of NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(result).items()}


def per_image(values: Any, images: Any) -> Any:
    """Average over the detections of each image.

    Args:
        values: (D, ...) one entry a detection.
        images: (D,) number of the image of each.

    Returns:
        (I, ...), of the images that have any, in order.
    """
    values, images = np.asarray(values, dtype=float), np.asarray(images)
    return np.stack([values[images == i].mean(0) for i in np.unique(images)])


def beyond_chance(own: Any, drawn: Any, *, more: bool) -> Chance:
    """Compare a detector's score with the scores of shuffled ones on the same images.

    A shuffled detector would itself be one more of `drawn`, and lies within their prediction interval in 95 of 100
    cases, of logarithms, as scores are shares. Beyond chance is what lies outside it, on the right side, and with five
    images or more does so over images too.

    Args:
        own: (I,) one score an image.
        drawn: (I, K) the same of K shuffled detectors, K at least 2.
        more: Whether more is better.
    """
    from scipy import stats

    own, drawn = np.asarray(own, dtype=float), np.asarray(drawn, dtype=float)
    k = drawn.shape[1]
    each = np.log(np.maximum(drawn.mean(0), LEAST))
    half = float(stats.t.isf(ALPHA / 2, k - 1) * each.std(ddof=1) * math.sqrt(1 + 1 / k))
    mean, chance = float(own.mean()), float(np.exp(each.mean()))
    least, most = chance * math.exp(-half), chance * math.exp(half)
    low, high = _interval(own)
    low = low if math.isnan(low) else max(low, 0.0)  # no score is negative
    difference = own - drawn.mean(1)
    near, _ = _interval(difference if more else -difference)
    outside = mean > most if more else max(mean, LEAST) < least
    good = outside and (len(own) < FEWEST or near > 0)
    return Chance(len(own), mean, low, high, chance, least, most, BEYOND if good else WITHIN)


def compared(ours: Any, theirs: Any, *, tests: int = 1) -> Difference:
    """Compare two detectors on the same images, ours less theirs.

    Args:
        ours: (I,) one score an image; images where either is NaN do not count.
        theirs: The same.
        tests: How many are made together.
    """
    from scipy import stats

    d = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    d = d[~np.isnan(d)]
    nan = math.nan
    if not len(d):
        return Difference(0, nan, nan, nan, nan, UNTOLD)
    mean = float(d.mean())
    low, high = _interval(d)
    if len(d) < 2:
        return Difference(len(d), mean, nan, nan, nan, UNTOLD)
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    if error <= 1e-12 * max(abs(mean), 1e-12):
        p = 1.0 if abs(mean) < 1e-12 else 0.0
    else:
        p = min(1.0, tests * float(2 * stats.t.sf(abs(mean) / error, len(d) - 1)))
    verdict = UNTOLD if len(d) < FEWEST else SAME if p >= ALPHA else MORE if mean > 0 else LESS
    return Difference(len(d), mean, low, high, p, verdict)


def _interval(values: Any) -> tuple[float, float]:
    """The 95 % interval of a mean over images."""
    from scipy import stats

    n = len(values)
    if n < 3:  # two have one difference, and no spread to speak of
        return math.nan, math.nan
    half = float(stats.t.isf(ALPHA / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean - half, mean + half
