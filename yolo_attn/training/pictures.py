"""An image that compares labels with predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ..evaluation import dataset
from ..files import replacing

__all__ = ["truth_beside_prediction"]

# RGB; Okabe and Ito's palette, distinguishable on most backgrounds and for most colour-blind readers.
COLOURS = [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
INK, PAPER = (32, 32, 32), (255, 255, 255)
SIDE, GAP, LETTERS = 256, 4, 14  # pixels: side of a cell for square images, gap between two, height of text
LONGEST = 2.0  # side ratio of a cell at most
Box = tuple[int, list[float], Optional[float]]  # class; x1, y1, x2, y2 in pixels; confidence, None for labels


def truth_beside_prediction(
    weights: Path, data: str, folder: Path, imgsz: int, *, count: int = 4, conf: float = 0.25
) -> Path:
    """Draw validation images with their labels, and below with predictions, into `truth_and_prediction.jpg`.

    Args:
        weights: The detector's checkpoint.
        data: The data set's YAML.
        folder: Where to save it.
        imgsz: Inference size in pixels.
        count: Number of images, the first of the validation set that can be read.
        conf: Confidence threshold.

    Returns:
        The image's path.

    Raises:
        FileError: It cannot be written.
    """
    import numpy as np
    from PIL import Image
    from ultralytics import YOLO
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.utils.plotting import Annotator

    from ..runtime.source import read_image

    info = check_det_dataset(data)
    places = info["val"] if isinstance(info["val"], list) else [info["val"]]
    names, model = info["names"], YOLO(str(weights))
    # The host finds a font for these names, also for 类别.
    font = Annotator(np.zeros((8, 8, 3), np.uint8), font_size=LETTERS, pil=True, example="".join(names.values())).font
    shown: list[tuple[Any, list[Box], list[Box]]] = []
    for file in (i for p in places for i in dataset.image_files(Path(p))):
        picture = read_image(file)
        if picture is None:
            continue
        # Without verbose=False, the host prints one line per image.
        results: Any = model.predict(picture, imgsz=imgsz, conf=conf, verbose=False)
        found = results[0].boxes
        predicted: list[Box] = list(zip(map(int, found.cls.tolist()), found.xyxy.tolist(), found.conf.tolist()))
        predicted.sort(key=lambda box: box[2] or 0.0)  # the most confident is drawn last, on top
        shown.append((picture, _truth(file, picture.shape), predicted))
        if len(shown) == count:
            break
    cell = _cell([picture.shape for picture, _, _ in shown])
    rows = [[_panel(picture, sides[k], names, font, cell) for picture, *sides in shown] for k in (0, 1)]
    target = folder / "truth_and_prediction.jpg"
    sheet = Image.fromarray(np.vstack([_strip(title, row, font) for title, row in zip(("truth", "prediction"), rows)]))
    with replacing(target, durable=False) as draft:
        sheet.save(draft, format="JPEG", quality=90)
    return target


def _truth(image: Path, shape: tuple[int, ...]) -> list[Box]:
    boxes: list[Box] = []
    for c, *numbers in dataset.read_labels(image)[0]:
        if len(numbers) == 4:
            x, y, w, h = numbers
            corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        else:  # a polygon, of which the hosts use the bounding box
            xs, ys = numbers[::2], numbers[1::2]
            corners = [min(xs), min(ys), max(xs), max(ys)]
        boxes.append((int(c), [v * side for v, side in zip(corners, (shape[1], shape[0]) * 2)], None))
    return boxes


def _cell(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Return width and height of the cells, with the area of a square and the side ratio of the middle image."""
    ratios = sorted(shape[1] / shape[0] for shape in shapes) or [1.0]
    ratio = min(max(ratios[len(ratios) // 2], 1 / LONGEST), LONGEST)
    return round(SIDE * ratio**0.5), round(SIDE / ratio**0.5)


def _panel(
    picture: Any, boxes: Sequence[Box], names: dict[int, str], font: Any, cell: tuple[int, int] = (SIDE, SIDE)
) -> Any:
    """Draw a BGR image with boxes, names and confidences on a cell of this width and height; return RGB."""
    import cv2
    import numpy as np
    from PIL import Image, ImageDraw

    h, w = picture.shape[:2]
    scale = min(cell[0] / w, cell[1] / h)
    size = (max(round(w * scale), 1), max(round(h * scale), 1))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    sheet = Image.new("RGB", cell, PAPER)
    sheet.paste(Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)))
    draw = ImageDraw.Draw(sheet)
    scaled = [(c, [round(v * scale) for v in box], p) for c, box, p in boxes]
    for c, box, _ in scaled:
        line = 3 if min(box[2] - box[0], box[3] - box[1]) > 24 else 1
        draw.rectangle(box, outline=COLOURS[c % len(COLOURS)], width=line)
    taken = [tuple(box) for _, box, _ in scaled]
    for c, (x1, y1, x2, y2), p in scaled:  # after all boxes, so that none is drawn over a name
        colour = COLOURS[c % len(COLOURS)]
        label = str(names.get(c, c)) + ("" if p is None else f" {p:.2f}")
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        wide, high = right + 5, bottom - top + 6
        beside = [(x1, y1 - high), (x1, y2), (x2 - wide, y1 - high), (x2 - wide, y2), (x2, y1), (x1 - wide, y1)]
        places = [(max(min(x, size[0] - wide - 1), 0), max(min(y, size[1] - high - 1), 0)) for x, y in beside]
        x, y = min(places, key=lambda at: _covered((*at, at[0] + wide, at[1] + high), taken))
        taken.append((x, y, x + wide, y + high))
        draw.rectangle((x, y, x + wide, y + high), fill=colour)
        bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120
        draw.text((x + 3 - left, y + 3 - top), label, fill=INK if bright else PAPER, font=font)
    return np.asarray(sheet)


def _covered(label: tuple[int, ...], taken: Sequence[tuple[int, ...]]) -> float:
    """Return how much of boxes and other labels a label covers, as the sum of their shares: small objects count alike."""
    total = 0.0
    for left, top, right, bottom in taken:
        wide = max(min(label[2], right) - max(label[0], left), 0)
        high = max(min(label[3], bottom) - max(label[1], top), 0)
        total += wide * high / max((right - left) * (bottom - top), 1)
    return total


def _strip(title: str, panels: list[Any], font: Any) -> Any:
    """Place images side by side below a title; return RGB."""
    import numpy as np
    from PIL import Image, ImageDraw

    high, wide = panels[0].shape[:2] if panels else (0, SIDE)
    sheet = Image.new("RGB", (max(len(panels), 1) * (wide + GAP) - GAP, LETTERS + 14 + high), PAPER)
    ImageDraw.Draw(sheet).text((2, 5), title, fill=INK, font=font)
    for k, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel), (k * (wide + GAP), LETTERS + 14))
    return np.asarray(sheet)
