"""How far the choice of images matters: COCO's matching for each image, and the interval of AP over images.

The images are drawn again with replacement, as multinomial weights that reach the accumulated precision and recall:
an image that is drawn twice counts twice. (Resampling that drops what is drawn twice, as a fast public evaluator does,
covers 86 to 88 percent where 95 are claimed.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.boxes import iou_matrix

__all__ = ["IOUS", "MAX_DET", "ClassMatches", "Matches", "ap", "interval", "match"]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DET = 100  # COCO's, of one class in one image
_AT_ONCE = 4_000_000  # numbers held in one array


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class, the surest first, and how many objects there are.

    Args:
        image: (D,) number of the image of each detection.
        hit: (10, D) whether it is right, at each IoU of :data:`IOUS`.
        objects: (I,) objects in each image.
    """

    image: Any
    hit: Any
    objects: Any


@dataclass(frozen=True)
class Matches:
    """What a detector found on a set of images.

    Args:
        images: How many images.
        classes: One entry a class.
    """

    images: int
    classes: Sequence[ClassMatches]


def match(truth: Sequence[Any], found: Sequence[Any], classes: int) -> Matches:
    """Match detections to objects by COCO's rules, for all sizes of objects.

    Args:
        truth: For each image (N, 5): x1 y1 x2 y2 in pixels, class.
        found: For each image (M, 6): x1 y1 x2 y2 in pixels, confidence, class.
        classes: How many there are.
    """
    out = []
    for c in range(classes):
        image, hit, scores, objects = [], [], [], np.zeros(len(truth))
        for i, (t, d) in enumerate(zip(truth, found)):
            boxes = np.asarray(t, dtype=float).reshape(-1, 5)
            boxes = boxes[boxes[:, 4] == c, :4]
            own = np.asarray(d, dtype=float).reshape(-1, 6)
            own = own[own[:, 5] == c]
            own = own[np.argsort(-own[:, 4], kind="stable")][:MAX_DET]
            objects[i] = len(boxes)
            image.append(np.full(len(own), i))
            scores.append(own[:, 4])
            hit.append(_hits(own[:, :4], boxes))
        order = np.argsort(-np.concatenate(scores), kind="stable") if scores else np.zeros(0, int)
        joined = np.concatenate(image)[order] if image else np.zeros(0, int)
        out.append(ClassMatches(joined, np.concatenate(hit, 1)[:, order] if hit else np.zeros((10, 0), bool), objects))
    return Matches(len(truth), out)


def _hits(found: Any, truth: Any) -> Any:
    """Give each detection, the surest first, the free object that it overlaps most, at each IoU; (10, D)."""
    hit = np.zeros((len(IOUS), len(found)), bool)
    if not len(found) or not len(truth):
        return hit
    overlap = iou_matrix(found, truth)
    free = np.ones((len(IOUS), len(truth)), bool)
    rows = np.arange(len(IOUS))
    for k in np.flatnonzero(overlap.max(1) >= IOUS[0]):
        candidates = np.where(free, overlap[k], -1.0)
        best = len(truth) - 1 - candidates[:, ::-1].argmax(1)  # of equal ones the last, as COCO's code has it
        good = candidates[rows, best] >= IOUS
        hit[:, k] = good
        free[rows[good], best[good]] = False
    return hit


def ap(matches: Matches, weights: Any) -> Any:
    """Return the average precision over 101 recalls, for sets of images.

    Args:
        matches: What was found.
        weights: (B, I) how often each image is in each set.

    Returns:
        (B, 10, classes), for each IoU and class; NaN where a set has no object of the class.
    """
    weights = np.asarray(weights, dtype=float)
    out = np.full((len(weights), len(IOUS), len(matches.classes)), np.nan)
    for k, c in enumerate(matches.classes):
        if not c.objects.any():
            continue
        step = max(_AT_ONCE // max(len(c.image), 1), 1)
        for b in range(0, len(weights), step):
            out[b : b + step, :, k] = _class_ap(c, weights[b : b + step])
    return out


def _class_ap(c: ClassMatches, weights: Any) -> Any:
    objects = weights @ c.objects  # (B,)
    each = weights[:, c.image]  # (B, D)
    ranked = each.cumsum(1)
    out = np.zeros((len(weights), len(IOUS)))
    with np.errstate(divide="ignore", invalid="ignore"):
        for t, hits in enumerate(c.hit):
            places = np.flatnonzero(hits)  # recall grows at these alone, and precision is highest there
            if len(places):
                true = each[:, places].cumsum(1)
                precision = np.nan_to_num(true / ranked[:, places])
                precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
                reached = np.searchsorted(RECALLS, true / objects[:, None], side="right")  # how many of the 101, by then
                out[:, t] = (precision * np.diff(reached, prepend=0)).sum(1) / len(RECALLS)
    out[objects == 0] = np.nan
    return out


def _mean(values: Any) -> Any:
    """mAP50-95 of each set: the mean over classes and IoUs, of classes that it has objects of."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum((1, 2)) / there.sum((1, 2))


def interval(
    matches: Matches, other: Matches | None = None, *, sets: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval over images of mAP50-95, or of its difference to another detector's.

    AP of few images is too high, as precision is raised to the best that lies beyond; images drawn again are fewer
    still. What the drawing adds is seen, and taken off twice: once for it, once for the images at hand. In a
    difference it cancels.

    Percentiles of what is drawn from few images are too near to one another: the spread is that of the images at hand,
    n - 1 of n of it, and it is estimated. They are taken further out, by as much as Student's t is wider than the normal
    distribution (Hesterberg, What Teachers Should Know About the Bootstrap, 2015: the expanded percentile interval), where
    n counts the images that hold an object, as recall moves with these alone.

    Args:
        matches: Of the detector.
        other: Of the one that is taken off, on the same images.
        sets: How often the images are drawn again; fewer where detections are very many.
        seed: Of the drawing.

    Returns:
        Its ends; None with fewer than ten images.
    """
    n = matches.images
    if n < 10:
        return None
    many = sum(len(c.image) for c in matches.classes)
    sets = min(sets, max(200, int(4e8 / max(many, 1))))
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), sets)
    weights = np.concatenate([np.ones((1, n), drawn.dtype), drawn])
    values = _mean(ap(matches, weights))
    if other is not None:
        values = values - _mean(ap(other, weights))
    seen, values = values[0], values[1:]
    low, high = np.nanpercentile(values, _ends(matches), method="weibull")  # of B values the k-th at k / (B + 1)
    if other is None:
        low, high = np.array([low, high]) - 2 * (np.nanmean(values) - seen)
    return float(low), float(high)


def _ends(matches: Matches) -> tuple[float, float]:
    """The percentiles to take, in percent: 2.5 and 97.5 for very many images."""
    from scipy import stats

    n = max(int(np.sum(np.any([c.objects > 0 for c in matches.classes], axis=0))), 2)
    tail = float(stats.norm.sf(stats.t.isf(0.025, n - 1) * (n / (n - 1)) ** 0.5))
    return 100 * tail, 100 * (1 - tail)
