"""What a layer loses where it alone is in int8: the boxes that the network then finds, beside those of the exact one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...files import write_text
from ...runtime.boxes import CONF, iou_matrix, suppress
from .base import Job
from .host import calibration

__all__ = ["COMPARED", "LEAST", "Boxes", "layers", "missed", "write_losses"]

COMPARED = 8  # pictures on which layers are compared
LEAST = 0.01  # confidence of what is compared where the detector is sure of nothing
Run = Callable[[np.ndarray], "list[np.ndarray]"]


class Boxes:
    """What the exact network finds in a job's pictures, and how far others are from that.

    Args:
        job: The conversion.
        run: The exact network, from (1, 3, H, W) to its outputs.
        layout: Layout of the main output, a key of :data:`yolo_attn.runtime.boxes.LAYOUTS`.
    """

    def __init__(self, job: Job, run: Run, layout: str) -> None:
        self.inputs = list(islice(calibration(job), COMPARED))
        self._layout = layout
        outputs = [run(x)[0] for x in self.inputs]
        sure = any(len(suppress(y[0], layout, conf=CONF)) for y in outputs)
        self._conf = CONF if sure else LEAST
        self._want = [suppress(y[0], layout, conf=self._conf) for y in outputs]

    def error(self, run: Run) -> float:
        """Return the mean of 1 - IoU over the detections of the exact network, with those of another."""
        return missed(self._want, [suppress(run(x)[0][0], self._layout, conf=self._conf) for x in self.inputs])


def missed(want: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    """Return the mean of 1 - IoU over the wanted detections, with the nearest of the same class."""
    errors = [
        1 - float((iou_matrix(row[None, :4], b[b[:, 5] == row[5], :4])).max(initial=0.0)) for a, b in zip(want, got) for row in a
    ]
    return float(np.mean(errors)) if errors else 0.0


def layers(network: Any) -> Iterator[str]:
    """Yield the layers of a detector by their place in the state dict, and in place of the head its branches."""
    rows = list(network.model)
    yield from (f"model.{i}" for i in range(len(rows) - 1))
    for name, child in rows[-1].named_children():
        yield from (f"model.{len(rows) - 1}.{name}.{k}" for k, _ in child.named_children())


def write_losses(found: list[dict[str, Any]]) -> Path:
    """Write ``losses.json``, the greatest ``error`` first, and return its path."""
    import json

    target = Path("losses.json")
    rows = sorted(found, key=lambda row: -row["error"])
    write_text(target, json.dumps([{**row, "error": round(row["error"], 5)} for row in rows]), durable=False)
    return target
