"""Latency of several detectors side by side: taking turns, so that what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .session import Detector

__all__ = ["Timing", "measure"]


@dataclass(frozen=True)
class Timing:
    """Seconds of each run of one detector, and their ratio to the first detector's run of the same round."""

    seconds: np.ndarray
    ratios: np.ndarray

    @property
    def median(self) -> float:
        """Median latency in milliseconds."""
        return float(np.median(self.seconds)) * 1e3

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, in milliseconds."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(high - low) / 2 * 1e3

    @property
    def ratio(self) -> float:
        """Median over the rounds of this detector's time by the first one's."""
        return float(np.median(self.ratios))


def measure(
    detectors: Sequence[Detector], inputs: Sequence[np.ndarray], *, rounds: int = 50, warmup: int = 5
) -> list[Timing]:
    """Time the network alone, without letterbox and NMS.

    Args:
        detectors: Opened files; with ``spin=False``, or the idle threads of one take the cores of the next.
        inputs: For each the blob to run, (B, 3, H, W).
        rounds: In each round every detector runs once; who begins rotates.
        warmup: Rounds before that are not counted.
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
    return [Timing(seconds[:, i], seconds[:, i] / seconds[:, 0]) for i in range(n)]
