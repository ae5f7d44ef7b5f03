"""The embedded data set: shapes on textured backgrounds, generated locally and reproducibly.

For first runs, tests and comparisons without a download. It has the YOLO layout:
``images/{train,val}``, ``labels/{train,val}`` and ``shapes.yaml``.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import cache_folder, read_source, write_text
from ..system import locks
from ..system.drafts import lock_name, note, scratch

__all__ = ["NAMES", "Recipe", "make"]

NAMES = ("circle", "square", "triangle")


@dataclass(frozen=True)
class Recipe:
    """What to generate. The same recipe gives the same images, byte for byte with the same version of OpenCV.

    Args:
        train: Number of training images, at least 1.
        val: Number of validation images, at least 1.
        size: Side of the square images in pixels, at least 32.
        seed: Random seed, not negative.

    Raises:
        DataError: A number is below its minimum.
    """

    train: int = 128
    val: int = 32
    size: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("train", 1), ("val", 1), ("size", 32), ("seed", 0)):
            if getattr(self, name) < least:
                raise DataError(f"embedded data set: {name} must be at least {least}, got {getattr(self, name)}")


# Changes with the drawing, so that cached sets of older versions are not used.
VERSION = 1
_drawing = threading.Lock()


def make(folder: str | os.PathLike[str] | None = None, recipe: Recipe | None = None) -> Path:
    """Generate the data set, unless it exists, and return the path of its YAML.

    Args:
        folder: Where to write it; the kit's cache when absent.
        recipe: What to generate; the default recipe when absent.

    Raises:
        DataError: The folder is a file, contains other files, or cannot be written.
    """
    recipe = recipe or Recipe()
    stamp = json.dumps({"version": VERSION, **asdict(recipe)}, sort_keys=True)
    if folder is None:
        target = cache_folder() / f"shapes-{hashlib.sha256(stamp.encode()).hexdigest()[:10]}"
    else:
        target = Path(folder)
    target = Path(os.path.realpath(target))
    mark, data = target / ".complete", target / "shapes.yaml"
    if _complete(target, stamp, recipe):
        return data
    if target.exists() and not target.is_dir():
        raise DataError(f"{target} is a file. Give an empty or new folder for the embedded data set.")
    if folder is not None and target.exists() and any(target.iterdir()):
        found = "a data set of another recipe" if mark.is_file() else "other files"
        raise DataError(f"{target} contains {found}. Give an empty or new folder for the embedded data set.")
    lock = target.with_name(lock_name(target.name))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        note(target.parent)
        with _drawing:  # threads of one process share its lock
            locks.take(lock, wait=True)
            try:
                if not _complete(target, stamp, recipe):  # otherwise another process has generated it meanwhile
                    _make(target, stamp, recipe)
            finally:
                locks.release(lock)
    except OSError as exc:
        raise DataError(f"cannot write the embedded data set to {target}: {exc.strerror or exc}") from exc
    return data


def _complete(target: Path, stamp: str, recipe: Recipe) -> bool:
    """Whether the data set of this recipe is there, with every image and label."""
    try:
        if read_source(target / ".complete") != stamp or not (target / "shapes.yaml").is_file():
            return False
        counts = {"train": recipe.train, "val": recipe.val}
        return all(len(os.listdir(target / "images" / s)) >= n for s, n in counts.items()) and all(
            len([f for f in os.listdir(target / "labels" / s) if f.endswith(".txt")]) >= n for s, n in counts.items()
        )
    except OSError:
        return False


def _make(target: Path, stamp: str, recipe: Recipe) -> None:
    """Generate the set in a folder beside the target, then move it there in one step."""
    with scratch(target.parent) as folder:
        draft = folder / "set"
        draft.mkdir()
        _draw(draft, recipe)
        # Classic YOLOv5 needs the absolute path.
        write_text(draft / "shapes.yaml", _yaml(target), error=None, durable=False)
        write_text(draft / ".complete", stamp, error=None, durable=False)
        if target.exists():  # empty, or damaged; the lock keeps other processes out
            os.replace(target, folder / "before")
        os.replace(draft, target)


def _yaml(target: Path) -> str:
    names = "\n".join(f"  {i}: {n}" for i, n in enumerate(NAMES))
    return (
        "# Shapes on textured backgrounds, drawn by yolo_attn\n"
        f"path: {json.dumps(str(target.resolve()))}\ntrain: images/train\nval: images/val\n"
        f"nc: {len(NAMES)}\nnames:\n{names}\n"
    )


def _draw(folder: Path, recipe: Recipe) -> None:
    import cv2
    import numpy as np

    rng = np.random.default_rng(recipe.seed)
    for split, count in (("train", recipe.train), ("val", recipe.val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for k in range(count):
            picture, rows = scene(rng, recipe.size)
            ok, coded = cv2.imencode(".png", picture)
            if not ok:
                raise OSError("OpenCV could not encode an image")
            (images / f"{k:04d}.png").write_bytes(coded.tobytes())
            text = "".join(f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in rows)
            (labels / f"{k:04d}.txt").write_text(text, encoding="utf-8")


def scene(rng: Any, size: int) -> tuple[Any, list[tuple[int, float, float, float, float]]]:
    """Draw one image.

    Args:
        rng: A NumPy generator.
        size: Side in pixels.

    Returns:
        The image, (size, size, 3) uint8 BGR, and its objects: class, center x, center y, width, height, relative to the
        side.
    """
    import cv2
    import numpy as np

    picture = _background(rng, size)
    boxes: list[tuple[float, float, float, float]] = []
    rows: list[tuple[int, float, float, float, float]] = []
    for _ in range(int(rng.integers(2, 6))):
        for _attempt in range(20):
            radius = size * float(rng.uniform(0.09, 0.21))
            cx, cy = (float(v) for v in rng.uniform(radius + 1, size - radius - 1, 2))
            kind = int(rng.integers(len(NAMES)))
            outline = _outline(
                kind, cx, cy, radius, float(rng.uniform(-0.35, 0.35)) + (np.pi / 4 if kind == 1 else -np.pi / 2)
            )
            x1, y1 = outline.min(0)
            x2, y2 = outline.max(0)
            if all(x2 < a or x1 > c or y2 < b or y1 > d for a, b, c, d in boxes):
                break
        else:
            continue
        boxes.append((x1, y1, x2, y2))
        # Require contrast with the background, or the object would be invisible.
        around = picture[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1].reshape(-1, 3).mean(0)
        colour = next(c for c in (rng.uniform(0, 255, 3) for _ in range(64)) if np.abs(c - around).sum() > 240)
        shift = 4  # fractional bits: sub-pixel outlines keep the form of small shapes
        points = np.round(outline * 2**shift).astype(np.int32)
        cv2.fillPoly(picture, [points], colour.tolist(), cv2.LINE_AA, shift)
        if rng.random() < 0.5:
            cv2.polylines(picture, [points], True, (colour * 0.5).tolist(), 1, cv2.LINE_AA, shift)
        rows.append((kind, (x1 + x2) / 2 / size, (y1 + y2) / 2 / size, (x2 - x1) / size, (y2 - y1) / size))
    grain = rng.normal(0, 6, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8), rows


def _background(rng: Any, size: int) -> Any:
    """Smooth colour noise and a few thin lines: texture, but nothing shaped like an object."""
    import cv2
    import numpy as np

    picture = np.zeros((size, size, 3), np.float32)
    for cells, weight in ((3, 34), (9, 16), (27, 10)):
        noise = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        picture += weight * cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(picture + rng.uniform(60, 195) + rng.uniform(-25, 25, 3), 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        a, b = rng.integers(0, size, (2, 2))
        cv2.line(picture, a.tolist(), b.tolist(), rng.uniform(40, 215, 3).tolist(), 1, cv2.LINE_AA)
    return picture


def _outline(kind: int, cx: float, cy: float, radius: float, turn: float) -> Any:
    """Return the corners of a shape, (K, 2), in pixels."""
    import numpy as np

    corners = (40, 4, 3)[kind]
    angle = turn + np.arange(corners) * 2 * np.pi / corners
    return np.stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)], 1)
