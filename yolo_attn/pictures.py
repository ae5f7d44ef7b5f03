"""Pictures of what a detector does: the truth beside its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import dataset

__all__ = ["truth_beside_prediction"]

# BGR, told apart on most backgrounds and by most colour-blind readers (Okabe and Ito's palette).
COLOURS = [(0, 159, 230), (233, 180, 86), (115, 158, 0), (66, 228, 240), (178, 114, 0), (0, 94, 213), (167, 121, 204)]
INK = (40, 40, 40)


def truth_beside_prediction(
    weights: Path, data: str, folder: Path, imgsz: int, *, count: int = 6, conf: float = 0.25
) -> Path:
    """Draw validation images twice, truth above prediction, and save them as `truth_and_prediction.jpg`.

    Args:
        weights: The detector's checkpoint.
        data: The data set's YAML.
        folder: Where the picture goes.
        imgsz: Inference size, pixels.
        count: How many images.
        conf: Least confidence of a box that is drawn.

    Returns:
        The picture's path.
    """
    import cv2
    import numpy as np
    from ultralytics import YOLO
    from ultralytics.data.utils import check_det_dataset

    info = check_det_dataset(data)
    places = info["val"] if isinstance(info["val"], list) else [info["val"]]
    images = [i for p in places for i in dataset.image_files(Path(p))][:count]
    names, model = info["names"], YOLO(str(weights))
    above, below = [], []
    for file in images:
        picture = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            continue
        truth = [(c, box, None) for c, box in _truth(file, picture.shape)]
        # Without verbose=False the host prints one line an image.
        result: Any = model.predict(picture, imgsz=imgsz, conf=conf, verbose=False)
        result = result[0].boxes
        found = [
            (int(c), [float(v) for v in box], float(p))
            for c, box, p in zip(result.cls.tolist(), result.xyxy.tolist(), result.conf.tolist())
        ]
        found.sort(key=lambda box: box[2])  # the surest is drawn last, on top
        above.append(_panel(picture, truth, names))
        below.append(_panel(picture, found, names))
    target = folder / "truth_and_prediction.jpg"
    width = sum(p.shape[1] for p in above) if above else 320
    sheet = np.vstack([_title("truth", width), *_row(above), _title("prediction", width), *_row(below)])
    ok, coded = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if ok:
        target.write_bytes(coded.tobytes())
    return target


def _row(panels: list[Any]) -> list[Any]:
    import numpy as np

    return [np.hstack(panels)] if panels else []


def _truth(image: Path, shape: tuple[int, ...]) -> list[tuple[int, list[float]]]:
    file, (h, w) = dataset.label_file(image), shape[:2]
    boxes = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        numbers = [float(v) for v in line.split()]
        if len(numbers) >= 5:
            c, x, y, bw, bh = numbers[:5]
            boxes.append((int(c), [(x - bw / 2) * w, (y - bh / 2) * h, (x + bw / 2) * w, (y + bh / 2) * h]))
    return boxes


def _panel(
    picture: Any, boxes: Sequence[tuple[int, list[float], float | None]], names: dict[int, str], side: int = 256
) -> Any:
    """The picture on a square of `side` pixels with its boxes, each with name and confidence."""
    import cv2
    import numpy as np

    h, w = picture.shape[:2]
    scale = side / max(h, w)
    sheet = np.full((side, side, 3), 255, np.uint8)
    small = cv2.resize(picture, (max(round(w * scale), 1), max(round(h * scale), 1)), interpolation=cv2.INTER_AREA)
    sheet[: small.shape[0], : small.shape[1]] = small
    for c, box, p in boxes:
        colour = COLOURS[c % len(COLOURS)]
        x1, y1, x2, y2 = (round(v * scale) for v in box)
        cv2.rectangle(sheet, (x1, y1), (x2, y2), colour, 2, cv2.LINE_AA)
        label = str(names.get(c, c)) + ("" if p is None else f" {p:.2f}")
        (tw, th), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.38, 1)
        left, top = min(max(x1 - 1, 0), side - tw - 4), max(y1 - th - 6, 0)
        cv2.rectangle(sheet, (left, top), (left + tw + 4, top + th + 6), colour, -1)
        cv2.putText(sheet, label, (left + 2, top + th + 2), cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(sheet, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _title(text: str, width: int) -> Any:
    import cv2
    import numpy as np

    bar = np.full((26, width, 3), 255, np.uint8)
    cv2.putText(bar, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return bar
