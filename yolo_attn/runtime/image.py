"""From an image to the network's input and back: letterbox, blob, boxes in image pixels, annotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import cv2
import numpy as np

__all__ = ["Letterbox", "annotate", "blob", "color", "letterbox", "round_up", "unletterbox"]

GREY = 114  # padding value of the hosts
SMALL = 320  # pixels of a side, up to which lines are thin


@dataclass(frozen=True)
class Letterbox:
    """How an image was letterboxed: two gains, since each side is rounded to pixels; `left` and `top` are the padding."""

    gain_x: float
    gain_y: float
    left: int
    top: int
    height: int
    width: int


def letterbox(
    image: np.ndarray, size: tuple[int, int], *, stride: int = 32, rectangular: bool = False
) -> tuple[np.ndarray, Letterbox]:
    """Resize an image to fit `size`, keeping its aspect ratio, and pad the rest with grey.

    Args:
        image: (H, W, 3), uint8.
        size: Height and width of the network's input, in pixels.
        stride: With `rectangular`, pad to the next multiple of the stride only.
        rectangular: Pad as little as possible; for files with dynamic height and width.

    Returns:
        The letterboxed image, and the :class:`Letterbox` that maps boxes back.
    """
    h, w = image.shape[:2]
    gain = min(size[0] / h, size[1] / w)
    new_w, new_h = max(round(w * gain), 1), max(round(h * gain), 1)
    pad_w, pad_h = size[1] - new_w, size[0] - new_h
    if rectangular:
        pad_w, pad_h = pad_w % stride, pad_h % stride
    if (new_w, new_h) != (w, h):
        image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    # odd padding is split as in the hosts
    top, bottom = round(pad_h / 2 - 0.1), round(pad_h / 2 + 0.1)
    left, right = round(pad_w / 2 - 0.1), round(pad_w / 2 + 0.1)
    out = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
    return out, Letterbox(new_w / w, new_h / h, left, top, h, w)


def blob(images: Sequence[np.ndarray]) -> np.ndarray:
    """Convert BGR images of one size, (H, W, 3) uint8, to RGB between 0 and 1, (B, 3, H, W) float32."""
    batch = np.stack([im[..., ::-1].transpose(2, 0, 1) for im in images])
    return np.ascontiguousarray(batch, dtype=np.float32) / np.float32(255)


def unletterbox(boxes: np.ndarray, fit: Letterbox) -> np.ndarray:
    """Map boxes, (N, 4) x1 y1 x2 y2, from pixels of the network's input to pixels of the image, clipped to it."""
    corner = np.array([fit.left, fit.top] * 2, dtype=boxes.dtype)
    out = (boxes - corner) / np.array([fit.gain_x, fit.gain_y] * 2, dtype=boxes.dtype)
    out[:, 0::2] = out[:, 0::2].clip(0, fit.width)
    out[:, 1::2] = out[:, 1::2].clip(0, fit.height)
    return out


def color(index: int) -> tuple[int, int, int]:
    """Return a BGR color for a class; hues are spaced by the golden angle, so that neighbours differ clearly."""
    hue = int(index * 0.618034 * 180) % 180
    b, g, r = cv2.cvtColor(np.array([[[hue, 200, 235]]], dtype=np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return int(b), int(g), int(r)


def annotate(image: np.ndarray, detections: np.ndarray, names: dict[int, str], frames: bool = True) -> np.ndarray:
    """Return a copy of the image with boxes, class names and confidences drawn on it.

    Args:
        image: (H, W, 3) BGR, uint8.
        detections: (N, 6) x1 y1 x2 y2 confidence class, in pixels of the image.
        names: Class number to name.
        frames: Draw the boxes; without, the words alone.
    """
    out = image.copy()
    side = sum(image.shape[:2]) / 2
    unit = max(round(side * 0.003), 2 if side > SMALL else 1)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(min(max(unit, 2) / 3, side / 600), 0.33)  # names of small images do not hide them
    for x1, y1, x2, y2, conf, cls in detections.tolist():
        c = color(int(cls))
        p, q = (round(x1), round(y1)), (round(x2), round(y2))
        if frames:
            cv2.rectangle(out, p, q, c, unit, cv2.LINE_AA)
        text = f"{_drawable(names, int(cls))} {conf:.2f}"
        (w, h), _ = cv2.getTextSize(text, font, scale, max(unit - 1, 1))
        y = p[1] - 3 if p[1] - h - 6 >= 0 else p[1] + h + 3  # above the box, or inside if there is no room
        x = max(min(p[0], out.shape[1] - w), 0)
        cv2.rectangle(out, (x, y - h - 3), (x + w, y + 3), c, -1, cv2.LINE_AA)
        cv2.putText(out, text, (x, y), font, scale, (255, 255, 255), max(unit - 1, 1), cv2.LINE_AA)
    return out


def _drawable(names: dict[int, str], index: int) -> str:
    """Return a class name, or the class number if OpenCV cannot draw the name: before 5.0 it draws ASCII only."""
    name = names.get(index, str(index))
    return name if name.isascii() or int(cv2.__version__.split(".")[0]) >= 5 else f"class {index}"


def round_up(size: tuple[int, int], stride: int, tell: Callable[[str], Any] = print) -> tuple[int, int]:
    """Round height and width up to multiples of the stride.

    Args:
        size: Height and width in pixels.
        stride: The network's largest stride.
        tell: Called with a message if the size changes.
    """
    h, w = (-(-side // stride) * stride for side in size)
    if (h, w) != size:
        tell(f"image size {size[0]}x{size[1]} rounded up to {h}x{w}, multiples of the stride {stride}")
    return h, w
