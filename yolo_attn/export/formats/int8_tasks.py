"""How near an int8 file comes to the exact one, by task: boxes, and what goes with them; or classes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...detectors.source import Source
from ...runtime.boxes import iou_matrix
from ...runtime.image import blob, letterbox
from ..int8 import agreement

__all__ = ["Opened", "agreement_of", "told"]

REST = {"segment": "mask coefficients", "pose": "key points", "obb": "angles"}  # behind boxes and scores
SUREST = 100  # candidates an image whose rest is compared
Run = Callable[[np.ndarray], "Sequence[np.ndarray]"]


class Opened:
    """A file as what compares detectors wants it: boxes and scores of its main output."""

    def __init__(self, run: Run, layout: str, classes: int) -> None:
        self.run = run
        self.layout: str | None = layout
        self._classes = classes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return boxes and scores, in the layout of a detector's output."""
        return self.parts(x)[0]

    def parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]]:
        """Return boxes and scores, what follows them for each candidate, (B, N, K), and the other outputs."""
        main, *others = self.run(x)
        if self.layout == "anchor-free":
            cut = 4 + self._classes
            return main[:, :cut], main[:, cut:].transpose(0, 2, 1), others
        cut = 6 if self.layout == "final" else 5 + self._classes
        return main[..., :cut], main[..., cut:], others


def agreement_of(source: Source, layout: str, full: Run, small: Run, images: Sequence[np.ndarray], size: tuple[int, int]) -> dict[str, Any]:
    """Compare an int8 file with the exact one.

    Args:
        source: The network.
        layout: Layout of both main outputs, a key of :data:`yolo_attn.runtime.boxes.LAYOUTS`.
        full: The exact file, from (1, 3, H, W) to its outputs.
        small: The int8 file, likewise.
        images: BGR images.
        size: Height and width of the input, in pixels.

    Returns:
        Of a classifier the images ``compared`` and those with the ``same_first`` class; of others what
        :func:`yolo_attn.export.int8.agreement` counts. ``outputs``, where there is more than boxes: the root mean square of the
        difference of each part, relative to that of the part; of what goes with boxes, over the surest candidates.
    """
    inputs = (blob([letterbox(im, size)[0]]) for im in images)
    if source.task == "classify":
        pairs = [(full(x)[0], small(x)[0]) for x in inputs]
        same = sum(int(a.argmax() == b.argmax()) for a, b in pairs)
        return {"compared": len(pairs), "same_first": same, "outputs": {"probabilities": _relative(pairs)}}
    first, second = (Opened(run, layout, len(source.names)) for run in (full, small))
    counts: dict[str, Any] = dict(agreement(first, second, images, size))
    if source.task not in REST:
        return counts
    rest: list[tuple[np.ndarray, np.ndarray]] = []
    others: list[tuple[np.ndarray, np.ndarray]] = []
    for x in inputs:
        (boxes, a, more), (found, b, also) = first.parts(x), second.parts(x)
        rest.append(_of_surest(boxes[0], a[0], found[0], b[0], layout))
        others += zip(more[:1], also[:1])
    counts["outputs"] = {REST[source.task]: _relative(rest), **({"mask prototypes": _relative(others)} if others else {})}
    return counts


def told(near: dict[str, Any], exact: str) -> str:
    """Return the result of :func:`agreement_of` in words."""
    rest = "".join(f"; {name} differ by {share:.1%} of their size" for name, share in near.get("outputs", {}).items())
    if "compared" in near:
        return f"Of {near['compared']} images {near['same_first']} have the same first class as in the {exact} file{rest}"
    return (
        f"Of {near['found']} detections of the {exact} file it finds {near['same_iou_0.9']} with IoU >= 0.9 and "
        f"{near['same_iou_0.5']} with IoU >= 0.5, and {near['extra']} others{rest}"
    )


def _of_surest(boxes: np.ndarray, a: np.ndarray, found: np.ndarray, b: np.ndarray, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what goes with the candidates that the exact file is surest of, in both files."""
    if layout == "final":  # in the order of their scores, which need not be the same
        order = iou_matrix(boxes[:SUREST, :4], found[:, :4]).argmax(1)
        return a[:SUREST], b[order]
    rows = boxes.T if layout == "anchor-free" else boxes
    scores = rows[:, 4:].max(1) if layout == "anchor-free" else rows[:, 4] * rows[:, 5:].max(1)
    surest = np.argsort(-scores)[:SUREST]
    return a[surest], b[surest]


def _relative(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the root mean square of the differences, relative to that of the exact values."""
    lost = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    size = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    return round(float(np.sqrt(lost / max(size, 1e-30))), 5)
