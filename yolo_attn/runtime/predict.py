"""Detections of pictures: letterbox, network, NMS, back to the picture's pixels; with the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .boxes import CONF, IOU, MAX_DET, suppress
from .image import blob, letterbox, unletterbox
from .session import Detector

__all__ = ["STAGES", "Clock", "predict"]

STAGES = ("read", "letterbox", "network", "nms", "write")


@dataclass
class Clock:
    """Seconds of each stage, one entry a picture."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in STAGES})

    def add(self, stage: str, began: float, pictures: int = 1) -> float:
        """Note the time since `began`, shared among `pictures`; return the time now."""
        now = time.perf_counter()
        self.seconds[stage] += [(now - began) / pictures] * pictures
        return now

    def medians(self) -> dict[str, float]:
        """Return the median of each stage in milliseconds."""
        return {s: float(np.median(v)) * 1e3 for s, v in self.seconds.items() if v}


def predict(
    detector: Detector,
    images: Sequence[np.ndarray],
    *,
    size: tuple[int, int] | None = None,
    conf: float = CONF,
    iou: float = IOU,
    max_det: int = MAX_DET,
    classes: list[int] | None = None,
    agnostic: bool = False,
    clock: Clock | None = None,
) -> list[np.ndarray]:
    """Detect, equal to the ultralytics host's `predict` on the same file.

    Args:
        detector: The opened file.
        images: BGR pictures, (H, W, 3) uint8, of any sizes. A file with dynamic shapes takes them together if their
            letterboxed sizes agree.
        size: Height and width of the network's input, in pixels; the file's own when absent.
        conf: Least confidence.
        iou: Overlap above which the weaker of two boxes of a class is dropped.
        max_det: At most so many boxes a picture.
        classes: Only these class numbers.
        agnostic: Let classes suppress each other.
        clock: Is given the time of each stage.

    Returns:
        For each picture (N, 6) float32: x1 y1 x2 y2 in the picture's pixels, confidence, class; best first.
    """
    clock = clock or Clock()
    target = detector.size or size or detector.default_size
    began = time.perf_counter()
    fitted = [
        letterbox(im, target, stride=detector.stride, rectangular=detector.size is None and len(images) == 1)
        for im in images
    ]
    x = blob([im for im, _ in fitted])
    began = clock.add("letterbox", began, len(images))
    step = detector.batch or len(images)
    outputs: list[np.ndarray] = []
    for start in range(0, len(images), step):
        part = x[start : start + step]
        short = step - len(part)
        if short:  # a file with a fixed batch: fill it up and drop the rest
            part = np.concatenate((part, np.zeros((short, *part.shape[1:]), part.dtype)))
        outputs.extend(detector(part)[: step - short])
    began = clock.add("network", began, len(images))
    layout = detector.layout or ""
    found = []
    for output, (_, fit) in zip(outputs, fitted):
        d = suppress(output, layout, conf=conf, iou=iou, max_det=max_det, classes=classes, agnostic=agnostic)
        d[:, :4] = unletterbox(d[:, :4], fit)
        found.append(d)
    clock.add("nms", began, len(images))
    return found
