"""Progress of what takes longer than ten seconds: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from typing import Any

from ..log import announce

__all__ = ["Progress"]

EVERY = 15.0  # seconds between lines


class Progress:
    """A context that counts steps.

    Args:
        total: How many there will be.
        unit: What is counted.
        what: What is being done.
    """

    def __init__(self, total: int, unit: str, what: str = "explain") -> None:
        from tqdm import tqdm

        self.total, self.unit, self.n = total, unit, 0
        self._bar: Any = tqdm(total=total, unit=unit, desc=what, disable=None, leave=False)
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def step(self, count: int = 1) -> None:
        """Count one, or several."""
        self.n += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now - self._told > EVERY and self.n < self.total:
            self._told = now
            left = (now - self._began) / self.n * (self.total - self.n)
            announce("%d of %d %s, about %d s left", self.n, self.total, self.unit, round(left))

    def __exit__(self, *exc: object) -> None:
        self._bar.close()
