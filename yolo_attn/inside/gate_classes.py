"""Do the gates of an image depend on the classes of its objects? Means by class, and what may be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ByClass", "by_class", "presence"]

LEAST = 20  # images, to ask at all
PERMUTATIONS = 999


@dataclass(frozen=True)
class ByClass:
    """The gates of images that hold an object of each class.

    Args:
        means: (K, C) mean gate of each channel, or cell, over the images with an object of the class; NaN where none has.
        share: Share of the variance over images that the classes explain, 0 to 1; None where it was not asked.
        p: How often images whose classes are exchanged explain as much.
    """

    means: Any
    share: float | None = None
    p: float | None = None


def presence(truth: Sequence[Any], classes: int) -> Any:
    """Return which image holds an object of which class, (N, K) bool."""
    out = np.zeros((len(truth), classes), bool)
    for i, rows in enumerate(truth):
        held = np.asarray(rows, float).reshape(-1, 5)[:, 4].astype(int)
        out[i, held[(held >= 0) & (held < classes)]] = True
    return out


def by_class(gates: Any, holds: Any, *, seed: int = 0) -> ByClass:
    """Compare the gates of images by the classes that they hold.

    The share is that of a linear regression on the classes, over all channels; its p is of a permutation test, which
    asks nothing of how gates are distributed. With fewer than 20 images, or no class that some images hold and others
    do not, nothing is asked.

    Args:
        gates: (N, C), NaN where a gate could not be told.
        holds: (N, K) bool.
        seed: Of the permutations.
    """
    gates = np.asarray(gates, float)
    holds = np.asarray(holds, bool)[: len(gates)]
    with np.errstate(invalid="ignore"):
        known = np.nan_to_num(gates)
        told = (~np.isnan(gates)).astype(float)
        counts = holds.T.astype(float) @ told
        means = np.where(counts > 0, (holds.T.astype(float) @ known) / np.maximum(counts, 1), np.nan)
    some = holds[:, holds.any(0) & ~holds.all(0)]
    good = ~np.isnan(gates).any(0)
    if len(gates) < LEAST or not some.shape[1] or not good.any():
        return ByClass(means)
    y = gates[:, good] - gates[:, good].mean(0)
    total = float((y**2).sum())
    design = some - some.mean(0)
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    basis = u[:, s > 1e-9 * s.max()]
    if total <= 1e-12 * y.size or basis.shape[1] >= len(y) - 1:
        return ByClass(means)
    seen = float(((basis.T @ y) ** 2).sum()) / total
    rng = np.random.default_rng(seed)
    as_much = sum(
        float(((basis[rng.permutation(len(y))].T @ y) ** 2).sum()) / total >= seen - 1e-12 for _ in range(PERMUTATIONS)
    )
    return ByClass(means, seen, (1 + as_much) / (1 + PERMUTATIONS))
