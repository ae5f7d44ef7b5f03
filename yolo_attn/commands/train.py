"""`yolo-attn train` and `train_detect.py`."""

from __future__ import annotations

from .. import train
from ..training import options


def run(argv: list[str]) -> int:
    """Train, validate, export."""
    return train.main(options.parse(argv))
