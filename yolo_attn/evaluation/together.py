"""The intervals of several differences at once, over images: 95 % that all of them hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .images import Matches, _mean, ap

__all__ = ["LEAST_IMAGES", "Difference", "differences"]

LEAST_IMAGES = 10  # with fewer that hold an object, images drawn again say nothing


@dataclass(frozen=True)
class Difference:
    """What one way of running a detector is to another on the same images.

    Args:
        value: mAP50-95 of this way.
        change: It less mAP50-95 of the first way.
        low: Lower end of the 95 % interval over images, of all ways together; None where there are too few images.
        high: Upper end.
    """

    value: float
    change: float
    low: float | None
    high: float | None

    @property
    def tells(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def differences(first: Matches, others: Sequence[Matches], *, sets: int = 1000, seed: int = 0) -> list[Difference]:
    """Compare ways of running a detector with the first one.

    Images are drawn again with replacement, the same ones for all ways, as multinomial weights. The greatest of the
    differences' deviations, each in units of its own spread, says how far all intervals reach (the max-t of Westfall
    and Young, Resampling-Based Multiple Testing, 1993): with several rows, one of them seems to matter by chance, and
    this allows for it. They are widened as Student's t is wider than the normal distribution.

    Args:
        first: What the detector found as it is.
        others: What it found in each of the other ways, on the same images.
        sets: How often the images are drawn again; fewer where detections are very many.
        seed: Of the drawing.
    """
    n = first.images
    many = sum(len(c.image) for c in first.classes)
    sets = min(sets, max(200, int(4e8 / max(many, 1))))
    holding = int(np.any([c.objects > 0 for c in first.classes], axis=0).sum()) if first.classes else 0
    weights = np.ones((1, n))
    if holding >= LEAST_IMAGES:
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), sets)
        weights = np.concatenate([weights, drawn])
    base = _mean(ap(first, weights))
    values = [_mean(ap(m, weights)) for m in others]
    changes = np.array([v - base for v in values]).reshape(len(others), len(weights))
    if holding < LEAST_IMAGES or not others:
        return [Difference(float(v[0]), float(c[0]), None, None) for v, c in zip(values, changes)]
    from scipy import stats

    seen, moved = changes[:, 0], changes[:, 1:]
    moved = moved[:, ~np.isnan(moved).any(0)]
    spread = moved.std(1)
    real = spread > 1e-12
    reach = 0.0
    if real.any():
        greatest = (np.abs(moved[real] - seen[real, None]) / spread[real, None]).max(0)
        reach = float(np.percentile(greatest, 95, method="higher"))
    wider = float(stats.t.isf(0.025, holding - 1) / stats.norm.isf(0.025)) * (holding / (holding - 1)) ** 0.5
    half = reach * wider * np.where(real, spread, 0.0)
    return [
        Difference(float(v[0]), float(c), float(c - h), float(c + h)) for v, c, h in zip(values, seen, half)
    ]
