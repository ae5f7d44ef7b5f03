"""What a trained detector reaches: COCO's figures on a split, by one evaluator for both hosts.

Both hosts' detectors are opened by the kit, see the same letterboxed images and go through the same suppression, so
that a difference is the detector's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..errors import DataError, UsageError, YoloAttnError
from ..runtime.boxes import decode, layout_of
from ..runtime.image import blob, letterbox, round_up, unletterbox
from ..words import option

__all__ = ["Split", "batches", "detect", "detect_ways", "device_of", "figures", "size_of", "split_of"]

CONF, IOU, MAX_DET = 0.001, 0.7, 300  # what the hosts validate with
MAX_CANDIDATES = 30_000
LEAST_SIDE = 10  # pixels; the hosts leave smaller images out
UNREADABLE, TINY = "cannot be read", f"sides below {LEAST_SIDE} pixels:"
SIZES = ("small", "medium", "large")  # COCO's: below 32 x 32 pixels, below 96 x 96, and the rest


class Split:
    """The images and objects that figures are measured on.

    Args:
        name: ``train``, ``val`` or ``test``.
        files: The images.
        names: The classes, in order.
        single_cls: All classes count as one.

    Attributes:
        left_out: The images that :meth:`images` left out when it was last gone through, each with the reason.
    """

    def __init__(self, name: str, files: Sequence[Path], names: Sequence[str], single_cls: bool = False) -> None:
        self.name, self.files, self.names, self.single_cls = name, list(files), list(names), single_cls
        self.left_out: dict[Path, str] = {}

    def some(self, most: int) -> Split:
        """Return a split of at most `most` of the images, evenly spaced, the same each time."""
        n = len(self.files)
        kept = self.files if n <= most else [self.files[k * n // most] for k in range(most)]
        return Split(self.name, kept, self.names, self.single_cls)

    def images(self) -> Iterator[tuple[Any, Any]]:
        """Each image, (H, W, 3) BGR, with its objects, (N, 5): x1 y1 x2 y2 in pixels, class.

        What the hosts leave out is left out here: images that cannot be read or that are tiny, and those of which a label
        is not valid. Equal labels of an image are one object.

        Raises:
            DataError: No image can be used.
        """
        from ..runtime.source import read_image

        self.left_out, used = {}, 0
        for file in self.files:
            rows, problem = self._labels(file)
            image = read_image(file)
            if image is None or problem or min(image.shape[:2]) < LEAST_SIDE:
                self.left_out[file] = UNREADABLE if image is None else problem or f"{TINY} {image.shape[1]}x{image.shape[0]}"
                continue
            used += 1
            boxes = [self._box(row, image.shape) for row in rows]
            yield image, np.asarray(boxes, dtype=float).reshape(-1, 5)
        if not used:
            first = "".join(f": {file}: {why}" for file, why in list(self.left_out.items())[:1])
            raise DataError(f"none of the {len(self.files)} images of '{self.name}:' can be used{first}")

    def has_labels(self) -> bool:
        """Whether any image has an object."""
        return any(rows and not problem for rows, problem in map(self._labels, self.files))

    def classes(self) -> set[int]:
        """The classes that there are objects of."""
        used = (rows for rows, problem in map(self._labels, self.files) if not problem)
        return {0 if self.single_cls else int(row[0]) for rows in used for row in rows}

    def _labels(self, file: Path) -> tuple[list[list[float]], str]:
        from .dataset import read_labels

        rows, problem = read_labels(file, None if self.single_cls else len(self.names))
        return [list(row) for row in dict.fromkeys(map(tuple, rows))], problem

    def _box(self, row: list[float], shape: tuple[int, ...]) -> list[float]:
        label, *numbers = row
        if len(numbers) == 4:
            x, y, w, h = numbers
            corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        else:  # a polygon, which the hosts train as its box
            corners = [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]
        sides = (shape[1], shape[0], shape[1], shape[0])
        return [*(min(max(v, 0.0), 1.0) * side for v, side in zip(corners, sides)), 0.0 if self.single_cls else label]


def split_of(data: str, *, single_cls: bool = False, name: str = "") -> Split:
    """Return a split of a data set: the named one, else the test split where there is one, else the validation split.

    It is found as ultralytics finds it, which is asked where it is installed: a machine that runs files may have none.

    Raises:
        DataError: The data set cannot be used.
    """
    from .dataset import image_files

    info = _resolved(data, name)
    asked = bool(name)
    name = name or ("test" if info.get("test") else "val")
    if not info.get(name):
        raise DataError(f"{data}: has no '{name}:'")
    places = info[name] if isinstance(info[name], list) else [info[name]]
    files = [f for place in places for f in image_files(Path(place))]
    if not files and name == "test" and not asked:
        raise DataError(f"{data}: 'test:' has no images. Take the line out, and 'val:' is measured on.")
    names = ["object"] if single_cls else [str(n) for n in info["names"].values()]
    return Split(name, files, names, single_cls)


def _resolved(data: str, name: str) -> dict[str, Any]:
    """Return a data set's classes and the places of its splits."""
    from .dataset import must_be_fetched, on_disk

    try:
        from ultralytics.data.utils import check_det_dataset
    except ImportError:
        return on_disk(data, name)
    if name and not must_be_fetched(data):
        return on_disk(data, name)  # the host would want all splits on this machine
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return dict(check_det_dataset(data))
    except (OSError, SyntaxError, RuntimeError, TypeError) as exc:  # a failed download is an OSError
        raise DataError(f"{data}: {str(exc).strip().splitlines()[0]}") from exc


def detect(source: Any, split: Split, imgsz: int, device: str = "", batch: int = 16) -> tuple[list[Any], list[Any]]:
    """Run a detector over a split.

    Args:
        source: An opened detector, :class:`yolo_attn.detectors.source.Source`.
        split: The images.
        imgsz: Side of the network's input in pixels.
        device: ``cpu``, a GPU's number, or nothing for what trains by default.
        batch: Images at a time.

    Returns:
        For each image its objects, (N, 5) x1 y1 x2 y2 and class, and its detections, (M, 6) x1 y1 x2 y2, confidence
        and class, in the image's pixels.
    """
    truth, found = detect_ways(source, split, imgsz, [contextlib.nullcontext], device, batch)
    return truth, found[0]


def detect_ways(
    source: Any,
    split: Split,
    imgsz: int,
    ways: Sequence[Callable[[], contextlib.AbstractContextManager[Any]]],
    device: str = "",
    batch: int = 16,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[list[Any], list[list[Any]]]:
    """Run a detector over a split in several ways, each image read once.

    Args:
        source: As of :func:`detect`.
        split: The images.
        imgsz: Side of the network's input in pixels.
        ways: Each makes a context within which the detector runs that way.
        device: ``cpu``, a GPU's number, or nothing for what trains by default.
        batch: Images at a time.
        tell: Called with the number of images done.

    Returns:
        The objects, as :func:`detect` returns them, and the detections of each way.
    """
    import torch

    truth: list[Any] = []
    found: list[list[Any]] = [[] for _ in ways]
    classes = None if split.single_cls else len(split.names)
    for x, fits, objects in batches(source, split, imgsz, device, batch):
        for way, kept in zip(ways, found):
            with torch.no_grad(), way():
                y = source.model(x)
            y = y[0] if isinstance(y, (list, tuple)) else y
            for output, fit in zip(y.float(), fits):
                boxes = _suppress(output, source, classes)
                boxes[:, :4] = unletterbox(boxes[:, :4], fit)
                kept.append(boxes)
        truth.extend(objects)
        tell(len(truth))
    return truth, found


def device_of(device: str) -> Any:
    """Return the device that a user names as the hosts take it: ``cpu``, a GPU's number, or nothing for a GPU if there is one.

    Raises:
        UsageError: PyTorch cannot use it here.
    """
    import torch

    first = (device or ("0" if torch.cuda.is_available() else "cpu")).split(",")[0]
    try:
        where = torch.device(f"cuda:{first}" if first.isdigit() else first)
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError) as exc:
        raise UsageError(f"{option('device', device)}: PyTorch cannot use it here: {str(exc).splitlines()[0]}") from exc
    return where


def batches(
    source: Any, split: Split, imgsz: int, device: str = "", batch: int = 16
) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """Put a detector on its device and yield what it is given: a batch (B, 3, H, W), how each image was fitted into it,
    and the objects of each, as :func:`detect` returns them.
    """
    import torch

    where = device_of(device)
    size = round_up((imgsz, imgsz), source.stride, tell=lambda line: None)
    source.model.to(where)
    waiting: list[Any] = []
    truth: list[Any] = []

    def taken() -> tuple[Any, list[Any], list[Any]]:
        x = torch.from_numpy(blob([image for image, _ in waiting])).to(where)
        out = x, [fit for _, fit in waiting], list(truth)
        waiting.clear()
        truth.clear()
        return out

    for image, objects in split.images():
        waiting.append(letterbox(image, size))
        truth.append(objects)
        if len(waiting) == batch:
            yield taken()
    if waiting:
        yield taken()


def _suppress(output: Any, source: Any, classes: int | None) -> Any:
    """One image's output to detections, a candidate for each class that reaches the least confidence."""
    import torch
    from torchvision.ops import nms

    shape = (1, *output.shape)
    if getattr(source.model.model[-1], "end2end", False) and shape[2] == 6:
        kept = output[output[:, 4] > CONF][:MAX_DET]
        return kept.cpu().numpy().astype(float)
    layout = layout_of(shape, classes or len(source.names)) or source.layout
    boxes, scores = (torch.from_numpy(v) for v in decode(output.cpu().numpy(), layout))
    rows, labels = (scores > CONF).nonzero(as_tuple=True)
    boxes, values = boxes[rows], scores[rows, labels]
    if len(values) > MAX_CANDIDATES:
        values, best = values.topk(MAX_CANDIDATES)
        boxes, labels = boxes[best], labels[best]
    apart = boxes + labels[:, None].float() * 7680  # so that one suppression serves all classes
    kept = nms(apart.to(output.device), values.to(output.device), IOU)[:MAX_DET].cpu()
    return np.concatenate((boxes[kept].numpy(), values[kept, None].numpy(), labels[kept, None].numpy()), 1).astype(float)


def figures(truth: Sequence[Any], found: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return COCO's figures: mAP50, mAP50-95, by size and by class, precision and recall.

    Args:
        truth: As :func:`detect` returns it.
        found: Likewise.
        names: The classes.

    Returns:
        ``mAP50-95``, ``mAP50``, ``AP_small`` and so on, ``precision`` and ``recall`` (at IoU 0.5, where their harmonic
        mean is best, averaged over classes), and ``classes``: mAP50-95 of each. None where there is no such object.

    Raises:
        YoloAttnError: The evaluator is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as exc:
        raise YoloAttnError(f"measuring mAP needs the package faster-coco-eval: {exc}. 'pip install faster-coco-eval'") from exc
    if len(set(names)) < len(names):  # nothing forbids two classes of one name
        names = [n if list(names).count(n) == 1 else f"{n} ({k})" for k, n in enumerate(names)]
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(_as_coco(truth, names))
        results = [
            {"image_id": i + 1, "category_id": int(c) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": p}
            for i, rows in enumerate(found)
            for x1, y1, x2, y2, p, c in np.asarray(rows).tolist()
        ]
        if not results:
            return _nothing(truth, names)
        run = COCOeval_faster(api, api.loadRes(results), "bbox", print_function=lambda *words: None)
        run.evaluate()
        run.accumulate()
    precision = np.asarray(run.eval["precision"])[..., -1]  # (IoUs, recalls, classes, sizes), 100 detections
    out: dict[str, Any] = {"mAP50-95": _mean(precision[..., 0]), "mAP50": _mean(precision[0, ..., 0])}
    out.update({f"AP_{size}": _mean(precision[..., k + 1]) for k, size in enumerate(SIZES)})
    out.update(_best_point(precision[0, ..., 0]))
    out["classes"] = {n: _mean(precision[:, :, k, 0]) for k, n in enumerate(names)}
    return out


def _as_coco(truth: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for i, rows in enumerate(truth):
        for x1, y1, x2, y2, c in np.asarray(rows).tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            entry = {"image_id": i + 1, "category_id": int(c) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **entry})
    return {
        "info": {},
        "images": [{"id": i + 1} for i in range(len(truth))],
        "categories": [{"id": k + 1, "name": n} for k, n in enumerate(names)],
        "annotations": annotations,
    }


def _mean(values: Any) -> float | None:
    """Mean of what there is; COCO writes -1 where there are no objects."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None


def _best_point(precision: Any) -> dict[str, float | None]:
    recall = np.linspace(0, 1, len(precision))
    points = []
    for column in precision.T:
        if column.max() > -1:
            harmonic = 2 * column * recall / np.maximum(column + recall, 1e-12)
            k = int(harmonic.argmax())
            points.append((float(column[k]), float(recall[k]) if harmonic[k] > 0 else 0.0))
    if not points:
        return {"precision": None, "recall": None}
    return {"precision": float(np.mean([p for p, _ in points])), "recall": float(np.mean([r for _, r in points]))}


def _nothing(truth: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """The figures of a detector that found nothing at all: 0 where there are objects."""
    rows = np.concatenate([np.asarray(t).reshape(-1, 5) for t in truth]) if truth else np.zeros((0, 5))
    area = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    zero: float | None = 0.0 if len(rows) else None
    out: dict[str, Any] = {"mAP50-95": zero, "mAP50": zero}
    for size, (least, most) in zip(SIZES, ((0, 32**2), (32**2, 96**2), (96**2, np.inf))):
        out[f"AP_{size}"] = 0.0 if ((area >= least) & (area <= most)).any() else None
    out.update(precision=zero, recall=zero)
    out["classes"] = {n: 0.0 if (rows[:, 4] == k).any() else None for k, n in enumerate(names)}
    return out


def size_of(source: Any, imgsz: int) -> dict[str, float]:
    """Return parameters, and GFLOPs of one image: convolutions and matrix products, as `yolo-attn show` counts."""
    import torch

    from ..hook.flops import count

    side = round_up((imgsz, imgsz), source.stride, tell=lambda line: None)[0]
    first = next(source.model.parameters())
    operations = count(source.model, torch.zeros(1, 3, side, side, device=first.device))
    return {"parameters": sum(p.numel() for p in source.model.parameters()), "gflops": round(operations / 1e9, 4)}
