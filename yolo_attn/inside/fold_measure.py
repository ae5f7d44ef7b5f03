"""What a detector reaches before its gates are folded, and after."""

from __future__ import annotations

from typing import Any

from ..detectors.source import Source

__all__ = ["measured"]


def measured(before: Source, after: Source, data: str, imgsz: int | None, batch: int, device: str) -> dict[str, Any]:
    """Measure mAP50-95 of two detectors on the val images of a data set.

    Returns:
        ``before``, ``after``, ``change``, its 95 % ``interval`` over images or None, ``split`` and ``images``.

    Raises:
        DataError: The data set has no val images that can be used.
    """
    from ..evaluation.figures import detect, figures, split_of
    from ..evaluation.images import interval, match

    split = split_of(data, name="val")
    side = imgsz or max(before.imgsz)
    found = []
    for source in (before, after):
        truth, boxes = detect(source, split, side, device, batch)
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
