"""Latency of several detectors, measured in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .session import Detector

__all__ = ["Timing", "measure"]


@dataclass(frozen=True)
class Timing:
    """Seconds of each run of one detector, and the ratio to its reference's run of the same round."""

    seconds: np.ndarray
    ratios: np.ndarray

    @property
    def median(self) -> float:
        """Median latency in milliseconds."""
        return float(np.median(self.seconds)) * 1e3

    @property
    def spread(self) -> float:
        """Half the interquartile range, in milliseconds."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(high - low) / 2 * 1e3

    @property
    def ratio(self) -> float:
        """Median over rounds of this detector's time divided by its reference's."""
        return float(np.median(self.ratios))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the ratio, over rounds drawn again with replacement."""
        drawn = np.random.default_rng(0).choice(self.ratios, (2000, len(self.ratios)))
        low, high = np.percentile(np.median(drawn, 1), (2.5, 97.5))
        return float(low), float(high)

    @property
    def share(self) -> float:
        """Part of this detector's time that it takes more than its reference, such as the cost of its attention."""
        return 1 - 1 / self.ratio


def measure(
    detectors: Sequence[Detector],
    inputs: Sequence[np.ndarray],
    *,
    rounds: int = 50,
    warmup: int = 5,
    references: Sequence[int] | None = None,
) -> list[Timing]:
    """Time the networks alone, without letterbox and NMS.

    Args:
        detectors: Opened files, with ``spin=False``: otherwise idle threads of one occupy the cores of the next.
        inputs: The input of each, (B, 3, H, W).
        rounds: Number of rounds; each detector runs once per round, in rotating order.
        warmup: Number of rounds before timing begins.
        references: For each detector, the index of the one that its ratio is to; the first one when absent.

    Returns:
        One timing per detector.
    """
    n = len(detectors)
    seconds = np.zeros((rounds, n))
    for r in range(-warmup, rounds):
        for k in range(n):
            i = (k + r) % n
            began = time.perf_counter()
            detectors[i](inputs[i])
            if r >= 0:
                seconds[r, i] = time.perf_counter() - began
    against = [0] * n if references is None else references
    return [Timing(seconds[:, i], seconds[:, i] / seconds[:, against[i]]) for i in range(n)]
