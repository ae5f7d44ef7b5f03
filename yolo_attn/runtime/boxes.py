"""From the network's output to detections: the three output layouts of YOLO heads, non-maximum suppression, IoU."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["LAYOUTS", "chosen", "decode", "iou_matrix", "layout_of", "nms", "suppress"]

# Meaning of the output array.
LAYOUTS = {
    "anchor-free": "(B, 4 + classes, N): x y w h in pixels and a score per class",
    "anchor-based": "(B, N, 5 + classes): x y w h in pixels, objectness, and a score per class",
    "final": "(B, N, 6): x1 y1 x2 y2 in pixels, confidence, class; after NMS",
}
MAX_CANDIDATES = 30_000
# Defaults of the hosts and their exporters: confidence threshold, IoU threshold of NMS, maximum number of boxes.
CONF, IOU, MAX_DET = 0.25, 0.7, 300
FAR = 7680.0  # pixels; boxes of different classes are moved this far apart, so that one NMS handles all classes


def layout_of(shape: tuple[int, ...], classes: int | None, final: bool = False) -> str | None:
    """Return the layout of an output, a key of :data:`LAYOUTS`, or None if it is not a detector's.

    Args:
        shape: Shape of the output array, (B, ?, ?).
        classes: Number of classes, if known.
        final: Whether the file's metadata says that it contains NMS.
    """
    if len(shape) != 3:
        return None
    _, rows, columns = shape
    if final:
        return "final" if columns == 6 else None
    if classes is not None:
        if rows == 4 + classes and columns != 5 + classes:
            return "anchor-free"
        if columns == 5 + classes:
            return "anchor-based"
        return "anchor-free" if rows == 4 + classes else None
    if columns == 6 and rows <= 1000:
        return "final"
    if 5 <= rows < columns:
        return "anchor-free"
    return "anchor-based" if 6 <= columns < rows else None


def decode(output: np.ndarray, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """Split one image's output into boxes, (N, 4) x1 y1 x2 y2 in pixels, and class scores, (N, classes).

    Args:
        output: One image of the batch, without the batch dimension; not in the layout ``final``.
        layout: A key of :data:`LAYOUTS`.
    """
    if layout == "anchor-free":
        p = output.T
        xywh, scores = p[:, :4], p[:, 4:]
    else:
        xywh, scores = output[:, :4], output[:, 5:] * output[:, 4:5]
    half = xywh[:, 2:] / 2
    return np.concatenate((xywh[:, :2] - half, xywh[:, :2] + half), 1), scores


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every pair of boxes, (N, 4) and (M, 4) x1 y1 x2 y2 -> (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clip(0).prod(2)
    area_a = (a[:, 2:] - a[:, :2]).prod(1)
    area_b = (b[:, 2:] - b[:, :2]).prod(1)
    return np.asarray(inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-12))


def nms(boxes: np.ndarray, scores: np.ndarray, iou: float, most: int | None = None) -> np.ndarray:
    """Greedy non-maximum suppression: return the indices to keep, best score first.

    Args:
        boxes: (N, 4) x1 y1 x2 y2.
        scores: (N,).
        iou: IoU threshold: a box that overlaps a better one by more is dropped.
        most: Number of boxes to keep at most; all when absent.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order].astype(np.float32)
    x1, y1, x2, y2 = boxes.T
    area = (x2 - x1) * (y2 - y1)
    alive = np.ones(len(order), dtype=bool)
    keep = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        keep.append(i)
        if len(keep) == most:
            break
        rest = np.flatnonzero(alive[i + 1 :]) + i + 1
        w = np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest])
        h = np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest])
        inter = w.clip(0) * h.clip(0)
        overlap = inter > iou * (area[i] + area[rest] - inter)
        alive[rest[overlap]] = False
    return order[keep]


def suppress(output: np.ndarray, layout: str, **limits: Any) -> np.ndarray:
    """Return the detections of :func:`chosen` alone."""
    return chosen(output, layout, **limits)[0]


def chosen(
    output: np.ndarray,
    layout: str,
    *,
    conf: float = CONF,
    iou: float = IOU,
    max_det: int = MAX_DET,
    classes: list[int] | None = None,
    agnostic: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn one image's output into detections, (M, 6) x1 y1 x2 y2 confidence class, best first, and their candidates.

    Args:
        output: One image of the batch, without the batch dimension.
        layout: A key of :data:`LAYOUTS`.
        conf: Confidence threshold, exclusive.
        iou: See :func:`nms`.
        max_det: Maximum number of detections.
        classes: Keep only these class numbers.
        agnostic: Let boxes of different classes suppress each other.

    Returns:
        The detections, and the number of the candidate in `output` that each comes from, (M,).
    """
    if layout == "final":
        index = np.flatnonzero(output[:, 4] > conf)
        if classes is not None:
            index = index[np.isin(output[index, 5].astype(int), classes)]
        index = index[:max_det]
        return output[index].astype(np.float32), index
    output = np.asarray(output, dtype=np.float32)
    # Drop what cannot reach `conf` first: decoding thousands of candidates takes longer than NMS of the rest.
    if layout == "anchor-free":
        index = np.flatnonzero(output[4:].max(0) > conf)
        output = output[:, index]
    else:
        index = np.flatnonzero(output[:, 4] > conf)
        output = output[index]
    boxes, scores = decode(output, layout)
    best = scores.argmax(1)
    value = scores[np.arange(len(scores)), best]
    mask = value > conf
    if classes is not None:
        mask &= np.isin(best, classes)
    boxes, value, best, index = boxes[mask], value[mask], best[mask], index[mask]
    if len(value) > MAX_CANDIDATES:
        top = np.argsort(-value, kind="stable")[:MAX_CANDIDATES]
        boxes, value, best, index = boxes[top], value[top], best[top], index[top]
    shifted = boxes if agnostic else boxes + (best[:, None] * FAR).astype(np.float32)
    keep = nms(shifted, value, iou, max_det)
    found = np.concatenate((boxes[keep], value[keep, None], best[keep, None].astype(np.float32)), 1)
    return found, index[keep]
