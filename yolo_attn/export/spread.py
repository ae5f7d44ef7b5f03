"""How often values occur over all calibration pictures, and where to cut them off in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import ExportError

__all__ = ["MOST", "Sides", "Spread", "sides_of"]

BINS = 4096
MOST = 127
LEVELS = 255  # steps between the least and the greatest of 8 bits
SAMPLED = 1 << 16  # values of a map that are counted of one picture; of all the least and the greatest


class Spread:
    """How often an input's magnitudes occur, over all pictures; the range doubles when a larger one comes."""

    def __init__(self) -> None:
        self.range = 0.0
        self.greatest = 0.0
        self.counts = np.zeros(BINS)

    def add(self, values: np.ndarray, name: str = "") -> None:
        """Count the values of one picture.

        Raises:
            ExportError: They are not finite.
        """
        sizes = np.abs(values).ravel()
        top = float(sizes.max(initial=0.0))
        if not np.isfinite(top):
            raise ExportError(f"the blob {name} is not finite on a picture: no int8 can be made of it")
        if not top:
            return
        self.greatest = max(self.greatest, top)
        self.range = self.range or top
        while top > self.range:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.range *= 2
        bins = np.minimum((sizes / self.range * BINS).astype(np.int32), BINS - 1)  # BINS / range may be none of fp32's numbers
        self.counts += np.bincount(bins, minlength=BINS)

    def middles(self) -> np.ndarray:
        """Return the magnitude that each count is of."""
        return (np.arange(BINS) + 0.5) * self.range / BINS

    def limit(self) -> float:
        """Return the magnitude to cut off at: rounding and cutting off together lose least, in the mean of squares.

        On trained detectors this, NCNN's divergence of distributions and a percentile come to the same mAP within noise;
        of the boxes that fp32 finds this one keeps most in their place.
        """
        if not self.greatest:
            return 1.0
        middles = self.middles()
        limits = self.greatest * np.linspace(0.1, 1.0, 91)
        lost = []
        for step in limits / MOST:
            rounded = step * np.minimum(np.rint(middles / step), MOST)
            lost.append(float(self.counts @ np.square(middles - rounded)))
        return float(limits[int(np.argmin(lost))])


class Sides:
    """How often the values of a map occur, over all pictures, those above zero and those below it."""

    def __init__(self) -> None:
        self.above, self.below = Spread(), Spread()

    def add(self, values: np.ndarray, name: str = "") -> None:
        """Count the values of one picture.

        Raises:
            ExportError: They are not finite.
        """
        flat = values.ravel()
        some = flat[:: max(1, flat.size // SAMPLED) | 1]  # an odd step meets all columns
        ends = [flat.min(initial=0.0), flat.max(initial=0.0)]  # NaN passes through both
        self.above.add(np.maximum(np.append(some, ends[1]), 0), name)
        self.below.add(np.minimum(np.append(some, ends[0]), 0), name)

    def limits(self) -> tuple[float, float]:
        """Return the least and the greatest value to tell apart: rounding and cutting off together lose least.

        One end after the other is chosen, twice, since both make the step.
        """
        low, high = -self.below.greatest, self.above.greatest
        if low == high:
            return 0.0, 1.0
        (up, ups), (down, downs) = _counted(self.above), _counted(self.below)

        def lost(low: float, high: float) -> float:
            step = (high - low) / LEVELS
            return _lost(up, ups, step, high) + _lost(down, downs, step, -low)

        shares = np.linspace(0.1, 1.0, 91)
        for _ in range(2):
            if self.above.greatest:
                high = min((float(self.above.greatest * s) for s in shares), key=lambda v: lost(low, v))
            if self.below.greatest:
                low = min((float(-self.below.greatest * s) for s in shares), key=lambda v: lost(v, high))
        return low, high


def sides_of(file: Path, names: Sequence[str], pictures: Iterable[np.ndarray]) -> dict[str, Sides]:
    """Return of maps of an ONNX file how often their values occur, by name.

    Args:
        file: The file.
        names: The maps.
        pictures: Inputs, (1, 3, H, W) each.

    Raises:
        ExportError: There are no pictures, or a map is not finite on one.
    """
    sides = {name: Sides() for name in names}
    for values in _computed(file, list(sides), pictures):
        for (name, side), value in zip(sides.items(), values):
            side.add(value, name)
    return sides


def _computed(file: Path, names: list[str], pictures: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield the maps of each picture."""
    import onnx
    import onnxruntime

    model = onnx.load(str(file))
    outputs = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    empty = True
    for x in pictures:
        empty = False
        yield list(session.run(names, {given.name: x}))
    if empty:
        raise ExportError("int8 needs pictures to calibrate on")


def _counted(side: Spread) -> tuple[np.ndarray, np.ndarray]:
    """Return the magnitudes that occur, and how often each does."""
    there = side.counts > 0
    return side.middles()[there], side.counts[there]


def _lost(values: np.ndarray, counts: np.ndarray, step: float, limit: float) -> float:
    return float(counts @ np.square(values - np.minimum(step * np.rint(values / step), limit)))
