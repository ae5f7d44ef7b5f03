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
from .figures import CONF, IOU, MAX_CANDIDATES, MAX_DET, TINY, UNREADABLE, Split, figures, split_of
from .images import Matches, match
from .together import differences

__all__ = [
    "Run", "detections", "figures_of", "file_figures", "labelled", "maps", "of_classes", "remarks", "remarks_on_classes",
]  # fmt: skip

FEW = 32  # images; on fewer, a figure tells little of others
THEIRS = "Give the data set that it was trained on"
SHOWN = 3  # files, or classes, that a line names


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
    dataset.check(data, splits=[name])
    split = split_of(data, name=name)
    if not split.has_labels():  # of what a host has fetched
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
        f"{data}: has {len(split.names)} classes, and {detector} detects {len(names)}. {THEIRS}"
    )


def remarks(split: Split, data: str) -> list[str]:
    """Return what figures on a split leave out, or count otherwise than a user may expect, in lines.

    Args:
        split: The images, after :func:`detections` went through them.
        data: The data set, for messages.
    """
    notes, files, about = [], split.files, f"of '{split.name}' of {data}"
    kinds: dict[str, list[str]] = {}
    for file, why in split.left_out.items():
        kind = why if why == UNREADABLE else "are too small" if why.startswith(TINY) else "have labels that are not valid"
        kinds.setdefault(kind, []).append(str(file) if why == UNREADABLE else f"{file}: {why}")
    for kind, which in kinds.items():
        notes.append(f"{len(which)} of {len(files)} images {about} {kind}, and are left out, as a host does: {_some(which)}")
    bare = [str(f) for f in files if f not in split.left_out and not dataset.label_file(f).is_file()]
    if bare:
        notes.append(f"{len(bare)} of {len(files)} images {about} have no label file, and count as images without an object: {_some(bare)}")
    used = len(files) - len(split.left_out)
    if used < FEW:
        notes.append(f"measured on only {used} image{'s' * (used != 1)} {about}: what is counted on so few tells little of others")
    return notes


def remarks_on_classes(split: Split, names: Sequence[str], data: str, detector: Any) -> list[str]:
    """Return what to tell of a detector whose classes have other names than the data set's, in lines.

    Args:
        split: What :func:`of_classes` returned.
        names: The detector's classes; none where its file does not tell them.
        data: The data set, for messages.
        detector: The detector's path, for messages.
    """
    if split.single_cls or list(split.names) == list(names):
        return []
    if not names:
        return [f"{detector}: tells no class names: its classes are compared with those of {data} by number"]
    if list(split.names) == [f"class_{k}" for k in range(len(split.names))]:  # made up where a data set gives `nc` alone
        return [f"{data}: tells no class names: its classes are compared with those of {detector} by number"]
    pairs = [f"{k} is {a} and {b}" for k, (a, b) in enumerate(zip(split.names, names)) if a != b]
    return [f"{data} and {detector} call classes otherwise, and they are compared by number: {_some(pairs)}"]


def _some(items: Sequence[str]) -> str:
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def file_figures(
    detectors: Sequence[Detector], sizes: Sequence[tuple[int, int]], data: str, name: str
) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Return the figures of opened files on a data set.

    Args:
        detectors: The files.
        sizes: Height and width of the input of each, in pixels.
        data: The data set's YAML.
        name: The split.

    Returns:
        The number of images, for each file what :func:`.figures.figures` returns, and for each but the first the
        ``difference`` of its mAP50-95 to the first one's, with the 95 % interval over images of all differences together; and what to tell of them, in lines.

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
    seen: dict[int, Matches] = {}
    images = 0
    keys = [(size, s.single_cls) for size, s in zip(sizes, splits)]
    for key in dict.fromkeys(keys):
        places = [k for k, own in enumerate(keys) if own == key]
        runs = {f"{detectors[k].path} ({k + 1})": detectors[k] for k in places}
        truth, found = detections(runs, splits[places[0]], key[0])
        images = len(truth)
        for k, rows in zip(places, found.values()):
            out[k] = figures(truth, rows, splits[k].names)
            if len(detectors) > 1:
                seen[k] = match(truth, rows, len(splits[k].names))
    notes = remarks(splits[0], data)  # of each the same: it is about images and labels
    for d, own in zip(detectors, splits):
        notes += remarks_on_classes(own, list(d.names.values()), data, d.path)
    for k in range(1, len(out)):
        out[k].update(difference=_less(out[k]["mAP50-95"], out[0]["mAP50-95"]), difference_95=None)
    alike = {k: m for k, m in sorted(seen.items()) if splits[k].single_cls == splits[0].single_cls}
    if len(alike) > 1:
        first, *others = alike.values()
        try:
            changes = differences(first, others)
        except ImportError:
            notes.append("intervals of differences need the package scipy: pip install scipy")
            changes = []
        for k, change in zip(list(alike)[1:], changes):
            out[k]["difference_95"] = None if change.low is None or change.high is None else [change.low, change.high]
    return images, out, notes


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


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
        for (name, run), rows in zip(runs.items(), found.values()):
            boxes = _detected(run(x)[0], run.layout or "", len(split.names), name)
            boxes[:, :4] = unletterbox(boxes[:, :4], fit)
            rows.append(boxes)
        tell(f"{', '.join(runs)}: {len(truth)} of {len(split.files)} images of '{split.name}'")
    return truth, found


def _detected(output: np.ndarray, layout: str, classes: int, name: str) -> np.ndarray:
    """Return one image's detections, as the hosts validate: a candidate for each class above the least confidence.

    Raises:
        DataError: It has other classes than the data set; files that name none are seen here alone.
    """
    if layout == "final":
        final = output[output[:, 4] > CONF][:MAX_DET].astype(float)
        if len(final) and final[:, 5].max() >= classes:
            raise DataError(f"{name}: finds class {final[:, 5].max():.0f}, and the data set has {classes}. {THEIRS}")
        return final
    boxes, scores = decode(np.asarray(output, np.float32), layout)
    if scores.shape[1] != classes:
        raise DataError(f"{name}: detects {scores.shape[1]} classes, and the data set has {classes}. {THEIRS}")
    places, labels = (scores > CONF).nonzero()
    boxes, values = boxes[places], scores[places, labels]
    if len(values) > MAX_CANDIDATES:
        best = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
        boxes, values, labels = boxes[best], values[best], labels[best]
    kept = nms(boxes + (labels[:, None] * FAR).astype(np.float32), values, IOU, MAX_DET)
    return np.concatenate((boxes[kept], values[kept, None], labels[kept, None]), 1).astype(float)
