"""`yolo-attn train` and `train_detect.py`."""

from __future__ import annotations

from ..training import options, ultralytics


def run(argv: list[str]) -> int:
    """Train, validate, export."""
    return ultralytics.main(options.parse(argv))
