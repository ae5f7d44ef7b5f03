"""What a detector reaches before its gates are folded, and after."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..detectors.source import Source
from ..errors import DataError
from .progress import Progress

if TYPE_CHECKING:
    from ..evaluation.figures import Split

__all__ = ["labelled", "measured"]


def labelled(source: Source, data: str) -> Split:
    """Return the val images of a data set.

    Raises:
        DataError: The data set cannot be used, or is not of the detector's classes.
    """
    from ..evaluation.figures import split_of

    split = split_of(data, name="val")
    if not split.files:
        raise DataError(f"{data}: 'val:' has no images")
    if len(split.names) != len(source.names):
        raise DataError(
            f"{data}: has {len(split.names)} classes and the detector {len(source.names)}; give the data set that it was trained on"
        )
    return split


def measured(before: Source, after: Source, split: Split, imgsz: int | None, batch: int, device: str) -> dict[str, Any]:
    """Measure mAP50-95 of two detectors on labelled images.

    Returns:
        ``before``, ``after``, ``change``, its 95 % ``interval`` over images or None, ``split`` and ``images``.

    Raises:
        DataError: No image can be read.
    """
    from ..evaluation.figures import detect_ways, figures
    from ..evaluation.images import interval, match

    side = imgsz or max(before.imgsz)
    found = []
    with Progress(2 * len(split.files), "images", "mAP") as progress:
        for k, source in enumerate((before, after)):

            def tell(done: int, first: int = k * len(split.files)) -> None:
                progress.step(first + done - progress.n)

            truth, (boxes,) = detect_ways(source, split, side, [contextlib.nullcontext], device, batch, tell)
            source.model.cpu()
            found.append((figures(truth, boxes, split.names)["mAP50-95"], match(truth, boxes, len(split.names))))
    (old, first), (new, second) = found
    reach = interval(second, first)
    return {
        "before": old,
        "after": new,
        "change": None if old is None or new is None else new - old,
        "interval": None if reach is None else list(reach),
        "split": split.name,
        "images": first.images,
    }
