"""Run a detector on images: letterbox, network, NMS, boxes in image pixels; with the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .boxes import CONF, IOU, MAX_DET
from .image import Letterbox, blob, letterbox
from .session import Detector
from .tasks import Seen, class_input, find

__all__ = ["STAGES", "Clock", "look", "predict"]

STAGES = ("read", "letterbox", "network", "nms", "write")


@dataclass
class Clock:
    """Seconds spent in each stage, one entry per image."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in STAGES})

    def add(self, stage: str, began: float, pictures: int = 1) -> float:
        """Record the time since `began`, divided among `pictures` images; return the current time."""
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
    """Detect objects; results are equal to those of ultralytics' `predict` on the same file.

    Args:
        detector: The opened file.
        images: BGR images, (H, W, 3) uint8, of any size.
        size: Height and width of the network's input, in pixels; the file's own when absent.
        conf: Confidence threshold.
        iou: IoU threshold of NMS.
        max_det: Maximum number of boxes per image.
        classes: Keep only these class numbers.
        agnostic: Let boxes of different classes suppress each other.
        clock: Records the time of each stage.

    Returns:
        One (N, 6) float32 array per image: x1 y1 x2 y2 in pixels of the image, confidence, class; best first.
    """
    found = look(
        detector, images, size=size, conf=conf, iou=iou, max_det=max_det, classes=classes, agnostic=agnostic, clock=clock
    )
    return [seen.boxes for seen in found]


def look(
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
) -> list[Seen]:
    """Run a model for any task; arguments as for :func:`predict`, to the results of which masks, key points, oriented
    boxes and the classes of pictures are added.
    """
    clock = clock or Clock()
    target = detector.size or size or detector.default_size
    began = time.perf_counter()
    fits: list[Letterbox | None]
    if detector.task == "classify":
        fitted, fits = [class_input(im, target) for im in images], [None] * len(images)
    else:
        pairs = [
            letterbox(im, target, stride=detector.stride, rectangular=detector.size is None and len(images) == 1)
            for im in images
        ]
        fitted, fits = [im for im, _ in pairs], [fit for _, fit in pairs]
    x = blob(fitted)
    began = clock.add("letterbox", began, len(images))
    step, needed = detector.batch or len(images), 2 if detector.task == "segment" else 1
    outputs: list[list[np.ndarray]] = []
    for start in range(0, len(images), step):
        part = x[start : start + step]
        short = step - len(part)
        if short:  # the file has a fixed batch: pad it, and drop the outputs of the padding
            part = np.concatenate((part, np.zeros((short, *part.shape[1:]), part.dtype)))
        outputs.extend(list(of_one) for of_one in list(zip(*detector.outputs(part)[:needed]))[: step - short])
    began = clock.add("network", began, len(images))
    found = []
    for of_one, fit in zip(outputs, fits):
        if fit is None:
            found.append(Seen(np.zeros((0, 6), np.float32), scores=of_one[0]))
            continue
        found.append(
            find(
                detector.task, of_one, detector.layout or "", fit, (x.shape[2], x.shape[3]), extra=detector.extra,
                points=detector.points, conf=conf, iou=iou, max_det=max_det, classes=classes, agnostic=agnostic,
            )
        )  # fmt: skip
    clock.add("nms", began, len(images))
    return found
