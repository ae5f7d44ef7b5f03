"""mAP of whatever runs a batch: PyTorch's network, a file in its runtime. One measure for all of them, on NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import DataError, UsageError
from ..log import Progress
from ..runtime.boxes import FAR, decode, nms
from ..runtime.image import blob, letterbox, unletterbox
from ..runtime.session import Detector
from . import dataset
from .figures import CONF, IOU, MAX_CANDIDATES, MAX_DET, Split, figures, split_of

__all__ = ["Run", "detections", "figures_of", "file_figures", "labelled", "maps", "of_classes"]


class Run(Protocol):
    """What is measured: an opened file, with the layout of its output, a key of :data:`yolo_attn.runtime.boxes.LAYOUTS`."""

    layout: str | None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Run on (B, 3, H, W) float32 between 0 and 1; return the output."""


def labelled(data: str, name: str) -> Split:
    """Return a split of a data set, to measure on.

    Args:
        data: The data set's YAML.
        name: The split.

    Raises:
        DataError: The data set cannot be used, or has no labels there.
    """
    dataset.check(data)
    split = split_of(data, name=name)
    if not split.has_labels():
        raise DataError(f"{data}: '{name}:' has no labels, and mAP is measured with them")
    return split


def of_classes(split: Split, names: Sequence[str], data: str, detector: Any) -> Split:
    """Return a split with a detector's classes; a detector of one class counts all as one.

    Args:
        split: Images of the data set.
        names: The detector's classes.
        data: The data set, for messages.
        detector: The detector's path, for messages.

    Raises:
        DataError: It has another number of classes.
    """
    if len(names) == len(split.names):
        return split
    if len(names) == 1:
        return Split(split.name, split.files, names, single_cls=True)
    raise DataError(
        f"{data}: has {len(split.names)} classes, and {detector} detects {len(names)}. Give the data set that it was trained on"
    )


def file_figures(
    detectors: Sequence[Detector], sizes: Sequence[tuple[int, int]], data: str, name: str
) -> tuple[int, list[dict[str, Any]]]:
    """Return the figures of opened files on a data set.

    Args:
        detectors: The files.
        sizes: Height and width of the input of each, in pixels.
        data: The data set's YAML.
        name: The split.

    Returns:
        The number of images, and for each file what :func:`.figures.figures` returns.

    Raises:
        UsageError: A file is no detector, or takes several images at once.
        DataError: The data set cannot be used, has no labels there, or is of other classes.
    """
    for d in detectors:
        if d.task != "detect":
            raise UsageError(f"{d.path}: is a model for {d.task}, and mAP is measured of detectors alone")
        if d.batch not in (None, 1):
            raise UsageError(f"{d.path}: accepts a batch of {d.batch} only. Export it with a batch of 1, or with --dynamic")
    split = labelled(data, name)
    splits = [of_classes(split, list(d.names.values()) or split.names, data, d.path) for d in detectors]
    out: list[dict[str, Any]] = [{} for _ in detectors]
    images = 0
    keys = [(size, s.single_cls) for size, s in zip(sizes, splits)]
    for key in dict.fromkeys(keys):
        places = [k for k, own in enumerate(keys) if own == key]
        runs = {f"{detectors[k].path} ({k + 1})": detectors[k] for k in places}
        truth, found = detections(runs, splits[places[0]], key[0])
        images = len(truth)
        for k, rows in zip(places, found.values()):
            out[k] = figures(truth, rows, splits[k].names)
    return images, out


def maps(runs: Mapping[str, Run], split: Split, size: tuple[int, int]) -> dict[str, dict[str, float | None]]:
    """Return mAP50 and mAP50-95 of each run on labelled images.

    Args:
        runs: What is measured, by name.
        split: The images.
        size: Height and width of the input, in pixels.
    """
    truth, found = detections(runs, split, size)
    return {name: figures_of(truth, rows, split) for name, rows in found.items()}


def figures_of(truth: Sequence[Any], rows: Sequence[Any], split: Split) -> dict[str, float | None]:
    """Return mAP50 and mAP50-95 of what :func:`detections` returned."""
    return {k: v for k, v in figures(truth, rows, split.names).items() if k in ("mAP50", "mAP50-95")}


def detections(
    runs: Mapping[str, Run], split: Split, size: tuple[int, int], tell: Callable[[str], None] | None = None
) -> tuple[list[Any], dict[str, list[Any]]]:
    """Run each over a split, an image at a time, each image read once.

    Args:
        runs: What is measured, by name.
        split: The images.
        size: Height and width of the input, in pixels.
        tell: Called with lines of progress; they are announced, not too often, when absent.

    Returns:
        For each image its objects, (N, 5) x1 y1 x2 y2 and class, and by name of the run the detections, (M, 6) x1 y1 x2
        y2, confidence and class, in the image's pixels.
    """
    tell = tell or Progress()
    truth: list[Any] = []
    found: dict[str, list[Any]] = {name: [] for name in runs}
    for image, objects in split.images():
        fitted, fit = letterbox(image, size)
        x = blob([fitted])
        truth.append(objects)
        for run, rows in zip(runs.values(), found.values()):
            boxes = _detected(run(x)[0], run.layout or "")
            boxes[:, :4] = unletterbox(boxes[:, :4], fit)
            rows.append(boxes)
        tell(f"{', '.join(runs)}: {len(truth)} of {len(split.files)} images of '{split.name}'")
    return truth, found


def _detected(output: np.ndarray, layout: str) -> np.ndarray:
    """Return one image's detections, as the hosts validate: a candidate for each class above the least confidence."""
    if layout == "final":
        return output[output[:, 4] > CONF][:MAX_DET].astype(float)
    boxes, scores = decode(np.asarray(output, np.float32), layout)
    places, labels = (scores > CONF).nonzero()
    boxes, values = boxes[places], scores[places, labels]
    if len(values) > MAX_CANDIDATES:
        best = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
        boxes, values, labels = boxes[best], values[best], labels[best]
    kept = nms(boxes + (labels[:, None] * FAR).astype(np.float32), values, IOU, MAX_DET)
    return np.concatenate((boxes[kept], values[kept, None], labels[kept, None]), 1).astype(float)
