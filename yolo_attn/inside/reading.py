"""A detector as `explain` reads it: boxes and scores of every position of its head, differentiable, on both hosts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..detectors.source import Source
from ..errors import CheckpointError, YoloAttnError, first_line
from ..runtime.boxes import iou_matrix, nms
from ..runtime.image import Letterbox, blob, letterbox

__all__ = ["Candidate", "Picture", "Reader", "matched", "picture"]

TASKS = ("detect", "segment", "pose")
FAR = 7680.0  # pixels; boxes of different classes are moved this far apart, so that one NMS handles all classes


@dataclass(frozen=True)
class Candidate:
    """One detection.

    Args:
        index: Position among those of the head: the row of the detector's output, before NMS.
        cls: Class number.
        score: Confidence.
        box: (4,) x1 y1 x2 y2 in pixels of the network's input.
    """

    index: int
    cls: int
    score: float
    box: Any


@dataclass(frozen=True)
class Picture:
    """One image, ready for the network.

    Args:
        name: Of its file.
        image: (H, W, 3) BGR uint8, as read.
        x: (1, 3, h, w) float32 RGB between 0 and 1.
        fit: Maps the network's input to the image.
    """

    name: str
    image: Any
    x: Any
    fit: Letterbox


def picture(name: str, image: Any, size: tuple[int, int], stride: int, *, square: bool = False) -> Picture:
    """Return an image, (H, W, 3) BGR uint8, as the network sees it.

    Args:
        name: Of its file.
        image: As read.
        size: Height and width of the network's input, in pixels.
        stride: The network's largest.
        square: Pad to the full `size`, so that all images have one shape.
    """
    import torch

    fitted, fit = letterbox(image, size, stride=stride, rectangular=not square)
    return Picture(name, image, torch.from_numpy(blob([fitted])), fit)


class Reader:
    """A copy of a detector whose output keeps the position of every candidate.

    Args:
        source: The opened detector; not changed.

    Raises:
        CheckpointError: It is not a detector of boxes.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        if source.task not in TASKS:
            raise CheckpointError(f"{source.path}: is for the task '{source.task}', explain takes {', '.join(TASKS)}")
        self.model = copy.deepcopy(source.model).eval()
        for p in self.model.parameters():
            p.requires_grad_(False)  # the image alone seeds the graph
        head = self.model.model[-1]
        if "RTDETR" in type(head).__name__:
            raise CheckpointError(f"{source.path}: an RT-DETR has no positions that a map could begin at; explain takes YOLO")
        self.classes = int(head.nc)
        self.corners = bool(getattr(head, "end2end", False))
        if self.corners:  # top-300 of all positions: what position a row is of would be lost
            head.postprocess = _as_it_is
        if hasattr(head, "inplace"):
            head.inplace = False  # older heads write into what backward needs

    def __call__(self, x: Any) -> tuple[Any, Any]:
        """Run a batch of images.

        Args:
            x: (B, 3, h, w), h and w multiples of the stride.

        Returns:
            Boxes, (B, N, 4) x1 y1 x2 y2 in pixels, and scores, (B, N, classes), of every position.

        Raises:
            CheckpointError: The model does not run, or its output is no detector's.
        """
        import torch

        try:
            out = self.model(x)
        except YoloAttnError:
            raise
        except Exception as exc:  # a user's module raises whatever it likes
            raise CheckpointError(
                f"{self.source.path}: does not run on {x.shape[-2]} x {x.shape[-1]} pixels: "
                f"{type(exc).__name__}: {first_line(exc)[:200]}"
            ) from exc
        while isinstance(out, (tuple, list)):
            out = out[0]
        nc = self.classes
        if self.source.layout == "anchor-based":
            boxes, scores = out[..., :4], out[..., 5 : 5 + nc] * out[..., 4:5]
        else:
            rows = out if self.corners else out.transpose(1, 2)
            boxes, scores = rows[..., :4], rows[..., 4 : 4 + nc]
        if scores.shape[-1] != nc:
            raise CheckpointError(f"{self.source.path}: its output {tuple(out.shape)} is no detector's of {nc} classes")
        if not self.corners:
            half = boxes[..., 2:] / 2
            boxes = torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), -1)
        return boxes, scores

    def detections(self, x: Any, *, conf: float, iou: float) -> list[Candidate]:
        """Return the detections in one image, (1, 3, h, w), the surest first, as the host's `predict` finds them."""
        import torch

        with torch.no_grad():
            boxes, scores = (t[0].cpu().numpy() for t in self(x))
        cls, best = scores.argmax(1), scores.max(1)
        at = np.flatnonzero(best > conf)
        if self.corners:
            keep = np.argsort(-best[at], kind="stable")
        else:
            keep = nms(boxes[at] + cls[at, None].astype(np.float32) * FAR, best[at], iou)
        return [Candidate(int(k), int(cls[k]), float(best[k]), boxes[k].astype(float)) for k in at[keep]]


def _as_it_is(rows: Any, *_: Any) -> Any:
    return rows


def matched(ours: list[Candidate], theirs: list[Candidate], least: float = 0.5) -> list[tuple[Candidate, Candidate]]:
    """Pair the detections of two detectors: one class, IoU of at least `least`, those that overlap most first.

    Returns:
        Pairs, those of which both detectors are surest first.
    """
    if not ours or not theirs:
        return []
    overlap = iou_matrix(np.stack([c.box for c in ours]), np.stack([c.box for c in theirs]))
    overlap[np.array([c.cls for c in ours])[:, None] != np.array([c.cls for c in theirs])[None]] = 0
    pairs = []
    while overlap.max() >= least:
        i, k = np.unravel_index(int(overlap.argmax()), overlap.shape)
        pairs.append((ours[i], theirs[k]))
        overlap[i], overlap[:, k] = 0, 0
    return sorted(pairs, key=lambda p: -(p[0].score + p[1].score))
