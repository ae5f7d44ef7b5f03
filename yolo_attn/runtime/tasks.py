"""What models for segmentation, pose, oriented boxes and classification find, as ultralytics' `predict` tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from ..errors import YoloAttnError
from .boxes import MAX_CANDIDATES, chosen
from .image import Letterbox, unletterbox

__all__ = ["TASKS", "Seen", "class_input", "extra_columns", "find"]

TASKS = ("detect", "segment", "pose", "obb", "classify")
EPS = 1e-7


@dataclass(frozen=True)
class Seen:
    """What was found in one image.

    Args:
        boxes: (N, 6) x1 y1 x2 y2 in pixels of the image, confidence, class; best first. For oriented boxes, those around
            them.
        fields: Of each box what its task tells besides: ``polygons`` of a mask, ``keypoints``, or ``xywhr`` and
            ``corners`` of an oriented box, in pixels of the image.
        scores: Of a classifier, the probability of each class.
    """

    boxes: np.ndarray
    fields: list[dict[str, Any]] = field(default_factory=list)
    scores: np.ndarray | None = None


def extra_columns(task: str, outputs: list[np.ndarray], points: tuple[int, int]) -> int:
    """Return how many numbers a candidate has beside box and class scores.

    Args:
        task: One of :data:`TASKS`.
        outputs: The file's outputs.
        points: Number of key points and of numbers for each.

    Raises:
        YoloAttnError: A model for segmentation has no prototypes.
    """
    if task == "segment":
        if len(outputs) < 2 or outputs[1].ndim != 4:
            raise YoloAttnError("it has no prototypes of masks, which a model for segmentation has as its second output")
        return int(outputs[1].shape[1])
    return points[0] * points[1] if task == "pose" else 1 if task == "obb" else 0


def class_input(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fit an image into a classifier's input as the host does: shorter side resized, the middle cut out.

    Args:
        image: (H, W, 3) BGR, uint8.
        size: Height and width of the input, in pixels; where they differ, the image is stretched to them.

    Returns:
        (height, width, 3) BGR, uint8.

    Raises:
        YoloAttnError: Pillow is not installed, whose interpolation the host uses.
    """
    try:
        from PIL import Image
    except ImportError as exc:
        raise YoloAttnError("Pillow is not installed, which resizes pictures for classifiers: pip install pillow") from exc
    h, w = image.shape[:2]
    new = (size[1], size[0])
    if size[0] == size[1]:
        side = size[0]
        new = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(image[..., ::-1])).resize(new, Image.Resampling.BILINEAR))
    top, left = round((new[1] - size[0]) / 2), round((new[0] - size[1]) / 2)
    return resized[top : top + size[0], left : left + size[1], ::-1]


def find(
    task: str, outputs: list[np.ndarray], layout: str, fit: Letterbox, size: tuple[int, int], *, extra: int, points: tuple[int, int],
    **limits: Any,
) -> Seen:  # fmt: skip
    """Turn one image's outputs into what was found.

    Args:
        task: One of :data:`TASKS`, not ``classify``.
        outputs: Of one image, without the batch dimension, the main one first.
        layout: A key of :data:`.boxes.LAYOUTS`, of the main output without its last `extra` numbers a candidate.
        fit: How the image was letterboxed.
        size: Height and width of the input, in pixels.
        extra: See :func:`extra_columns`.
        points: Number of key points and of numbers for each.
        limits: Of :func:`.boxes.suppress`.
    """
    main = np.asarray(outputs[0], np.float32)
    if layout == "anchor-free":
        main, more = main[: len(main) - extra], main[len(main) - extra :].T
    else:
        main, more = main[:, : main.shape[1] - extra], main[:, main.shape[1] - extra :]
    if task == "obb":
        return _oriented(main, more[:, 0], layout, fit, **limits)
    boxes, index = chosen(main, layout, **limits)
    more = more[index]
    fields: list[dict[str, Any]] = [{} for _ in boxes]
    if task == "segment":
        polygons = [_outlines(row, outputs[1], box, fit, size) for row, box in zip(more, boxes[:, :4])]
        kept = [k for k, found in enumerate(polygons) if found is not None]  # the host drops what has no mask, too
        boxes, fields = boxes[kept], [{"polygons": polygons[k]} for k in kept]
    elif task == "pose":
        for row, told in zip(more.reshape(-1, *points), fields):
            at = np.concatenate((_point(row[:, :2], fit), row[:, 2:]), 1)
            told["keypoints"] = np.round(at.astype(float), 4).tolist()
    boxes[:, :4] = unletterbox(boxes[:, :4], fit)
    return Seen(boxes, fields)


def _point(xy: np.ndarray, fit: Letterbox) -> np.ndarray:
    """Map points, (N, 2), to pixels of the image, clipped to it."""
    return unletterbox(np.concatenate((xy, xy), 1).astype(np.float32), fit)[:, :2]


def _outlines(
    coefficients: np.ndarray, prototypes: np.ndarray, box: np.ndarray, fit: Letterbox, size: tuple[int, int]
) -> list[list[list[float]]] | None:
    """Return the outlines of a mask in pixels of the image, each a list of x y; None where the mask is empty."""
    c, h, w = prototypes.shape
    mask = (coefficients @ prototypes.reshape(c, -1)).reshape(h, w).astype(np.float32)
    inside = (cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8)
    x1, y1, x2, y2 = box
    columns, rows = np.arange(size[1]), np.arange(size[0])
    inside *= ((columns >= x1) & (columns < x2))[None] & ((rows >= y1) & (rows < y2))[:, None]
    if not inside.any():
        return None
    found = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    return [np.round(_point(np.asarray(f).reshape(-1, 2), fit).astype(float), 2).tolist() for f in found]


# --- oriented boxes -------------------------------------------------------------------------------------------------


def _oriented(
    main: np.ndarray, angle: np.ndarray, layout: str, fit: Letterbox, *, conf: float, iou: float, max_det: int,
    classes: list[int] | None, agnostic: bool,
) -> Seen:  # fmt: skip
    if layout == "final":
        xywh, value, best = main[:, :4], main[:, 4], main[:, 5].astype(int)
    else:
        p = main.T
        xywh, best = p[:, :4], p[:, 4:].argmax(1)
        value = p[np.arange(len(p)), 4 + best]
    mask = value > conf
    if classes is not None:
        mask &= np.isin(best, classes)
    order = np.flatnonzero(mask)
    order = order[np.argsort(-value[order], kind="stable")][:MAX_CANDIDATES]
    boxes = np.concatenate((xywh[order], angle[order, None]), 1).astype(np.float64)
    if layout != "final":
        kept = _unsuppressed(boxes, None if agnostic else best[order], iou)
        order, boxes = order[kept], boxes[kept]
    order, boxes = order[:max_det], boxes[:max_det]
    boxes[:, :2] -= (fit.left, fit.top)
    boxes[:, :4] /= (fit.gain_x, fit.gain_y, fit.gain_x, fit.gain_y)
    corners = _corners(boxes)
    around = np.concatenate((corners.min(1), corners.max(1)), 1) if len(boxes) else np.zeros((0, 4))
    around[:, 0::2] = around[:, 0::2].clip(0, fit.width)
    around[:, 1::2] = around[:, 1::2].clip(0, fit.height)
    found = np.concatenate((around, value[order, None], best[order, None]), 1).astype(np.float32)
    told = [{"xywhr": np.round(b, 4).tolist(), "corners": np.round(c, 2).tolist()} for b, c in zip(boxes, corners)]
    return Seen(found, told)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Return the corners of oriented boxes, (N, 5) x y w h and radians -> (N, 4, 2)."""
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along = np.stack((cos, sin), 1) * boxes[:, 2:3] / 2
    across = np.stack((-sin, cos), 1) * boxes[:, 3:4] / 2
    middle = boxes[:, :2]
    return np.stack((middle + along + across, middle + along - across, middle - along - across, middle - along + across), 1)


def _unsuppressed(boxes: np.ndarray, labels: np.ndarray | None, iou: float) -> np.ndarray:
    """Return which of (N, 5) boxes, best first, no better one of its class overlaps, by ProbIoU.

    As the host's: a box that is itself suppressed suppresses too (Bolya et al., YOLACT, arXiv:1904.02689, Fast NMS).
    """
    kept = np.ones(len(boxes), bool)
    spread = _covariance(boxes)
    for k in range(1, len(boxes)):
        better = slice(0, k)
        near = _probiou(boxes[k], spread[k], boxes[better], spread[better]) > iou
        if labels is not None:
            near &= labels[better] == labels[k]
        kept[k] = not near.any()
    return np.flatnonzero(kept)


def _covariance(boxes: np.ndarray) -> np.ndarray:
    """Return a b c of the covariance matrices [[a, c], [c, b]] of boxes as Gaussians, (N, 3)."""
    a, b = (boxes[:, 2:4] ** 2 / 12).T
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return np.stack((a * cos**2 + b * sin**2, a * sin**2 + b * cos**2, (a - b) * cos * sin), 1)


def _probiou(box: np.ndarray, spread: np.ndarray, boxes: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """Return the similarity of a box to others (Murrugarra-Llerena et al., arXiv:2106.06072, eq. 5 to 8)."""
    a, b, c = (spread + spreads).T
    dx, dy = (box[:2] - boxes[:, :2]).T
    determinant = a * b - c**2
    own = max(spread[0] * spread[1] - spread[2] ** 2, 0.0)
    others = (spreads[:, 0] * spreads[:, 1] - spreads[:, 2] ** 2).clip(0)
    t1 = (a * dy**2 + b * dx**2) / (determinant + EPS) / 4
    t2 = -c * dx * dy / (determinant + EPS) / 2
    t3 = np.log(determinant / (4 * np.sqrt(own * others) + EPS) + EPS) / 2
    distance = (t1 + t2 + t3).clip(EPS, 100)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance) + EPS))
